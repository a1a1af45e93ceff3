"""From a file, the environment and flags to a Config, or to every fault there is."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from proxy.config.faults import translate, with_systems_guessed
from proxy.config.files import named_files
from proxy.config.forwardproxy import from_environment
from proxy.config.model import Clients, Config, Limits, Listen, Store
from proxy.config.overlay import DEFAULT, Overlay, origin_of
from proxy.config.rules import check_tree
from proxy.config.safety import open_door, same_port, sizes
from proxy.config.types import Address, ListenAddress, OverlayText
from proxy.config.yamlfile import read_yaml
from proxy.errors import ConfigError, Fault

SEARCH = (Path("/etc/opentv-proxy/proxy.yaml"), Path("config/proxy.yaml"))
"""Where the file is looked for when neither ``-c`` nor ``$OPENTV_PROXY_CONFIG`` names it."""
FILE_VARIABLE = "OPENTV_PROXY_CONFIG"
PREFIX = "OPENTV_PROXY__"

_T = TypeVar("_T")
Judge = Callable[[Config], list[Fault]]


@dataclass(frozen=True)
class Loaded:
    """A valid configuration; the file it came from, if any; and the origin of each place not left at its default.

    origins: dotted path to ``file``, ``env NAME`` or ``flag --name``.
    """

    config: Config
    path: Path | None
    origins: Mapping[str, str] = field(default_factory=dict)


def load_config(
    path: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, object],
    *,
    read_secrets: bool = True,
    search: Sequence[Path] = SEARCH,
    judge: Judge | None = None,
) -> Loaded:
    """Flags over environment over file over defaults. Raises ConfigError with every fault found.

    path: the file of ``-c``; None looks for one. flags: dotted path to value; None stands for a flag not given.
    read_secrets: also make sure that every file the configuration names can be read. judge: says what else is wrong;
    asked even while other sections are, see ``build``; then files that can be read are looked at in any case.
    """
    file = find_file(path, environ, search)
    if file is None and not any(name.startswith(PREFIX) for name in environ) and "routes" not in flags:
        places = ", ".join(str(place) for place in search)
        words = f"no configuration: no file at {places}, no -c, no ${FILE_VARIABLE} and no {PREFIX}… variable"
        raise ConfigError([Fault("", words)])
    tree, faults = read_yaml(file) if file else ({}, [])
    overlay = Overlay(tree)
    if any(name.startswith(PREFIX) for name in environ):
        from proxy.config.environment import EnvironmentSource  # its library is slow to import, see there

        EnvironmentSource(overlay, environ)()
    for name, value in flags.items():
        if value is not None:
            text = OverlayText(value) if isinstance(value, str) else value
            option = name.removesuffix(".address").replace(".", "-").replace("_", "-")
            overlay.assign(name.split("."), text, f"flag --{'no-' if value is False else ''}{option}")
    for place, written, variable in from_environment(overlay.tree, environ):
        overlay.assign(place, written, f"env {variable}")
    base = file.absolute().parent if file else None
    config, more = build(overlay.tree, base, read_secrets=read_secrets, judge=judge)
    faults = [_with_origin(fault, overlay.origins) for fault in (*faults, *overlay.faults, *more)]
    if config is None or faults:
        raise ConfigError(_in_order(faults))
    return Loaded(config, file, overlay.origins)


def parse_config(tree: Mapping[str, Any], base: Path | None = None, *, read_secrets: bool = False) -> Config:
    """A Config from a tree as a file would hold it, all rules applied. Raises ConfigError with every fault found."""
    config, faults = build(dict(tree), base, read_secrets=read_secrets)
    if config is None or faults:
        raise ConfigError(_in_order(faults))
    return config


def find_file(path: Path | None, environ: Mapping[str, str], search: Sequence[Path] = SEARCH) -> Path | None:
    """The file to read: the one named by ``-c`` or the variable, whether it exists or not; else the first there is."""
    named = path or (Path(environ[FILE_VARIABLE]) if environ.get(FILE_VARIABLE) else None)
    return named or next((place for place in search if place.is_file()), None)


def build(
    tree: dict[str, Any], base: Path | None, *, read_secrets: bool, judge: Judge | None = None
) -> tuple[Config | None, list[Fault]]:
    """Validate a written tree. The Config is None when its shape is wrong; faults may come with or without one.

    judge: is asked about the Config; where its shape is wrong, about one with ``listen`` and ``store`` alone.
    """
    context = {"base": base}
    config, faults = None, []
    try:
        config = Config.model_validate(tree, context=context)
    except ValidationError as exc:
        faults += translate(exc, tree)
        if (guess := with_systems_guessed(tree)) is not None:  # what is wrong below a misspelt system shows as well
            try:
                Config.model_validate(guess, context=context)
            except ValidationError as more:
                faults += translate(more, guess)
    faults += check_tree(tree)
    # Sections by themselves, so that these rules speak even while another section is wrong.
    listen = _part(TypeAdapter(Listen), tree.get("listen") or {}, context)
    clients = _part(TypeAdapter(Clients), tree.get("clients") or {}, context)
    limits = _part(TypeAdapter(Limits), tree.get("limits") or {}, context)
    admin = _part(TypeAdapter[Address](ListenAddress), tree.get("admin") or "127.0.0.1:9090", context)
    if listen and clients:
        faults += open_door(listen, clients)
    if listen and admin:
        faults += same_port(listen, admin)
    if limits:
        faults += sizes(limits)
    unusable = []
    if read_secrets or judge is not None:
        unusable = [(file, Fault(file.where, words)) for file in named_files(tree, base) if (words := file.fault())]
    faults += [fault for file, fault in unusable if read_secrets or os.access(file.path, os.R_OK)]
    if judge is not None:
        store = _part(TypeAdapter(Store), tree.get("store") or {}, context)
        parts: Any = {"listen": listen or Listen(), "store": store or Store(), "identities": {}, "routes": []}
        # A file that is not there is no file without a key.
        told = {fault.path for fault in faults} | {file.where for file, _ in unusable}
        faults += [fault for fault in judge(config or Config.model_construct(**parts)) if fault.path not in told]
    return config, list(dict.fromkeys(faults))


def _part(adapter: TypeAdapter[_T], value: object, context: dict[str, Any]) -> _T | None:
    try:
        return adapter.validate_python(value, context=context)
    except ValidationError:
        return None


def _with_origin(fault: Fault, origins: Mapping[str, str]) -> Fault:
    """Say which variable or flag set the place, for those who look in the file and find nothing."""
    origin = origin_of(fault.path, origins)
    return (
        fault
        if origin in ("file", DEFAULT)
        else Fault(fault.path, f"{fault.message} (set by {origin.partition(' ')[2]})")
    )


def _in_order(faults: list[Fault]) -> list[Fault]:
    """In the order of the sections, each fault once."""
    order = list(Config.model_fields)

    def rank(fault: Fault) -> int:
        head = fault.path.partition(".")[0]
        return order.index(head) if head in order else -1

    return sorted(dict.fromkeys(faults), key=rank)
