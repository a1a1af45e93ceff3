"""``compose.yaml`` holds together: its schema, what it mounts, who may reach whom, and what its services are told."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml

from proxy import __version__
from tests.support.cli import command
from tests.support.compose import COMPOSE, CONFIG, ROOT, SERVICES, binds, gateways, mounts, of_our_image
from tests.support.keycloak_build import VERSION as KEYCLOAK

GATEWAY_CONFIG: Final[dict[str, Any]] = yaml.safe_load((ROOT / "config/compose/proxy.yaml").read_text())
REALM: Final[dict[str, Any]] = json.loads((ROOT / "config/compose/keycloak/nagra-realm.json").read_text())
PASSWORD: Final = (ROOT / "config/compose/demo-password").read_text().rstrip("\n")
ENVIRONMENT: Final = "OPENTV_PROXY__"


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def listening() -> set[str]:
    """``service:port`` of everything that answers within the compose network."""
    published = {f"{name}:{port.rpartition(':')[2]}" for name, one in SERVICES.items() for port in one.get("ports", [])}
    return published | {"redis:6379"}


def test_it_fits_the_schema_of_compose_files() -> None:
    tool = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(  # noqa: S603 - fixed words
        [tool, "--builtin-schema", "vendor.compose-spec", "compose.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned_to_a_version(name: str) -> None:
    image = SERVICES[name]["image"]
    assert re.fullmatch(r"[\w.:/-]+:v?\d+\.\d+\.\d+(-alpine)?", image), image
    if name in of_our_image():
        assert (image, SERVICES[name]["build"]) == (f"opentv-auth-proxy:{__version__}", {"context": "."})
    if name == "keycloak":
        assert image.endswith(f":{KEYCLOAK}"), "not the Keycloak that the tests know"


def test_the_base_of_our_image_is_pinned_to_a_version() -> None:
    base = re.findall(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert [re.fullmatch(r"docker\.io/library/python:3\.1[1-3]\.\d+-slim-\w+", one) is not None for one in base] == [
        True
    ]


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_can_do_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys()
    # Keycloak's development mode writes into its own installation.
    assert service.get("read_only", False) is (name != "keycloak")


@pytest.mark.parametrize("name", SERVICES)
def test_whatever_is_mounted_exists_and_cannot_be_changed_from_within(name: str) -> None:
    service = SERVICES[name]
    assert [str(path) for path in mounts(service).values() if not path.exists()] == []
    assert {mode for _, mode in binds(service).values()} <= {"ro"}
    if "env_file" in service:
        assert (ROOT / service["env_file"]).is_file()
    named = {volume.partition(":")[0] for volume in service.get("volumes", [])} - {""}
    assert {source for source in named if not source.startswith(".")} <= COMPOSE["volumes"].keys()


def test_every_published_port_is_on_loopback_and_no_two_are_the_same() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []
    taken: list[int] = []
    for port in published:
        first, _, last = port.split(":")[1].partition("-")
        taken += range(int(first), int(last or first) + 1)
    assert len(taken) == len(set(taken))
    assert sum(8090 <= port <= 8091 for port in taken) == SERVICES["replica"]["deploy"]["replicas"]


def test_redis_is_reached_by_the_replicas_alone() -> None:
    assert COMPOSE["networks"]["store"]["internal"] is True
    assert [name for name, service in SERVICES.items() if "store" in service.get("networks", [])] == [
        "redis",
        "replica",
    ]
    assert SERVICES["redis"]["networks"] == ["store"]
    assert "ports" not in SERVICES["redis"]


# -- the gateways -------------------------------------------------------------------------------------------------


def outside(value: Any, places: Mapping[str, Path]) -> Any:
    """The configuration with the files' places on the host; a file that nothing mounts is a failure."""
    if isinstance(value, dict):
        return {
            key: str(places[inner]) if key.endswith("_file") else outside(inner, places) for key, inner in value.items()
        }
    return [outside(inner, places) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", gateways())
async def test_the_gateways_configuration_is_valid_and_no_open_door(name: str, tmp_path: Path) -> None:
    """Valid as ``run`` reads it, which refuses one that listens beyond loopback for everybody."""
    service = SERVICES[name]
    places = mounts(service)
    file = tmp_path / "proxy.yaml"
    file.write_text(yaml.safe_dump(outside(yaml.safe_load(places[CONFIG].read_text()), places)))
    env = {
        variable: str(places[value]) if variable.endswith("_FILE") else value
        for variable, value in service.get("environment", {}).items()
    }
    ended = await command("check", "--offline", "-c", file, env=env)
    assert ended.code == 0, ended.err
    shown = await command("config", "-c", file, env=env)
    assert all(value.partition("://")[2] in shown.out for value in env.values() if value.startswith("http")), shown.out


def test_only_the_compose_network_may_use_the_gateways() -> None:
    [network] = COMPOSE["networks"]["default"]["ipam"]["config"]
    assert GATEWAY_CONFIG["clients"] == {"allow_from": [network["subnet"]]}


@pytest.mark.parametrize("name", gateways())
def test_whoever_a_gateway_calls_is_a_service_beside_it(name: str) -> None:
    service = SERVICES[name]
    environment = service.get("environment", {})
    urls = [
        environment.get(
            f"{ENVIRONMENT}IDENTITIES__OPENTV__TOKEN_URL", GATEWAY_CONFIG["identities"]["opentv"]["token_url"]
        ),
        environment.get(f"{ENVIRONMENT}ROUTES__0__UPSTREAM", GATEWAY_CONFIG["routes"][0]["upstream"]),
        *(value for variable, value in environment.items() if variable.endswith("__URL")),
    ]
    assert {urlsplit(url).netloc for url in urls} <= listening()
    called = {str(urlsplit(url).hostname) for url in urls}
    assert [
        one for one in called if not set(SERVICES[one].get("profiles", [])) <= set(service.get("profiles", []))
    ] == []


@pytest.mark.parametrize("name", gateways())
def test_a_gateway_is_given_the_time_that_its_end_takes(name: str) -> None:
    """What is under way, a refresh in flight (two exchanges of 10 s at most), and the logout."""
    wanted = seconds(GATEWAY_CONFIG["shutdown"]["drain"]) + 2 * 10 + 3
    assert seconds(SERVICES[name]["stop_grace_period"]) >= wanted


def test_the_published_ports_are_those_that_the_gateway_listens_on() -> None:
    ports = {port.rpartition(":")[2] for service in gateways().values() for port in service["ports"]}
    assert ports == {GATEWAY_CONFIG[port].rpartition(":")[2] for port in ("listen", "admin")}
    assert {GATEWAY_CONFIG[port].rpartition(":")[0] for port in ("listen", "admin")} == {"0.0.0.0"}  # noqa: S104 - compared


# -- what they are told in confidence -----------------------------------------------------------------------------


def test_what_looks_like_a_secret_says_that_it_is_none() -> None:
    key = base64.b64decode((ROOT / "config/compose/demo-store-key").read_text())
    assert (len(key), b"demo" in key) == (32, True)
    admin = (ROOT / "config/compose/keycloak/demo-admin.env").read_text()
    [admin_password] = re.findall(r"^KC_BOOTSTRAP_ADMIN_PASSWORD=(.+)$", admin, re.MULTILINE)
    assert {PASSWORD, admin_password} == {"demo-only-not-a-secret"}
    assert [one["file"] for one in COMPOSE["secrets"].values() if "/compose/demo-" not in one["file"]] == []


def test_the_realm_fits_the_gateways_identity() -> None:
    identity = GATEWAY_CONFIG["identities"]["opentv"]
    url = SERVICES["gateway-keycloak"]["environment"][f"{ENVIRONMENT}IDENTITIES__OPENTV__TOKEN_URL"]
    [base] = [word.partition("=")[2] for word in SERVICES["keycloak"]["command"] if "relative-path" in word]
    assert url == f"http://keycloak:8080{base}/realms/{REALM['realm']}/protocol/openid-connect/token"
    [client], [user] = REALM["clients"], REALM["users"]
    assert (client["clientId"], client["publicClient"]) == (identity["client_id"], True)
    assert (user["username"], user["credentials"]) == (
        identity["username"],
        [{"type": "password", "value": PASSWORD}],
    )
    assert set(identity["expect_roles"]) <= set(user["realmRoles"])


# -- those who watch ----------------------------------------------------------------------------------------------


def test_prometheus_finds_its_rules_and_scrapes_a_gateways_admin_port() -> None:
    service = SERVICES["prometheus"]
    [(place, (folder, _))] = binds(service).items()
    [file] = [word.partition("=")[2] for word in service["command"] if word.startswith("--config.file=")]
    assert Path(file).parent == Path(place)
    config = yaml.safe_load((folder / Path(file).name).read_text())
    assert [pattern for pattern in config["rule_files"] if not list(folder.glob(pattern))] == []
    targets = [one for job in config["scrape_configs"] for own in job["static_configs"] for one in own["targets"]]
    admin = GATEWAY_CONFIG["admin"].rpartition(":")[2]
    assert targets
    assert [one for one in targets if one not in {f"{name}:{admin}" for name in gateways()}] == []


def test_grafana_finds_its_dashboards_and_its_prometheus() -> None:
    service = SERVICES["grafana"]
    places = {place: path for place, (path, _) in binds(service).items()}
    provisioning = places["/etc/grafana/provisioning"]
    [provider] = [
        one for file in provisioning.glob("dashboards/*.yaml") for one in yaml.safe_load(file.read_text())["providers"]
    ]
    home = Path(service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (places[provider["options"]["path"]] / home.name).is_file()
    assert str(home.parent) == provider["options"]["path"]
    sources = [
        one
        for file in provisioning.glob("datasources/*.yaml")
        for one in yaml.safe_load(file.read_text())["datasources"]
    ]
    assert [urlsplit(source["url"]).netloc for source in sources] == ["prometheus:9090"]
    assert "prometheus:9090" in listening()
