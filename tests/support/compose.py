"""``compose.yaml`` as the tests read it: services, what is mounted where, the gateways' configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
CONFIG: Final = "/etc/opentv-proxy/proxy.yaml"


def of_our_image() -> dict[str, dict[str, Any]]:
    """The services that run this project's image, gateways and sandbox."""
    return {name: service for name, service in SERVICES.items() if service["image"].startswith("opentv-auth-proxy:")}


def gateways() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in of_our_image().items() if CONFIG in mounts(service)}


def binds(service: Mapping[str, Any]) -> dict[str, tuple[Path, str]]:
    """Place in the container → the checkout's file or folder, and the mode: ``ro``, or "" for writable."""
    found = {}
    for volume in service.get("volumes", []):
        source, place, *mode = volume.split(":")
        if source.startswith("."):
            found[place] = (ROOT / source, *mode) if mode else (ROOT / source, "")
    return found


def mounts(service: Mapping[str, Any]) -> dict[str, Path]:
    """Place in the container → the checkout's file or folder; secrets included."""
    secrets = {f"/run/secrets/{name}": ROOT / COMPOSE["secrets"][name]["file"] for name in service.get("secrets", [])}
    return {place: path for place, (path, _) in binds(service).items()} | secrets
