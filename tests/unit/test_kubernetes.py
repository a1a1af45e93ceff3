"""The Kubernetes manifests: valid, complete, as tight as they say, and in step with the gateway that they run."""

import base64
import functools
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import kubernetes_validate  # type: ignore[import-untyped]  # it brings no types
import pytest
import yaml

from proxy import __version__
from proxy.config import Config, load_config, warnings
from proxy.config.types import parse_size
from proxy.errors import ConfigError

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "config/kubernetes"
OVERLAYS: Final = ("single", "replicas")
NAMESPACE: Final = "opentv-auth-proxy"
NAME: Final = "opentv-auth-proxy"
NOTICE: Final = 0.2  # of the drain, in which a gateway that is watched still takes connections (docs/how-it-works.md)
LOGOUTS: Final = 3.0  # seconds that the end may take beyond drain and renewals (docs/how-it-works.md)

Object = dict[str, Any]


def builder() -> list[str]:
    """The command that builds an overlay; a skip with what to install, in CI a failure."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "opentv-auth-proxy/kustomize"
    for program, verb in (("kustomize", "build"), (str(home), "build"), ("kubectl", "kustomize")):
        if found := shutil.which(program):
            return [found, verb]
    words = f"neither kustomize nor kubectl is installed, and there is no {home}"
    if os.environ.get("CI"):
        pytest.fail(words)
    pytest.skip(words)


@functools.cache
def built(overlay: str) -> tuple[Object, ...]:
    """What ``kubectl apply -k`` would send."""
    command = [*builder(), str(FOLDER / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - fixed words
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower(), done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


def of(overlay: str, kind: str, name: str = NAME) -> Object:
    """One built object."""
    (found,) = (each for each in built(overlay) if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def pod(overlay: str) -> Object:
    spec: Object = of(overlay, "Deployment")["spec"]["template"]["spec"]
    return spec


def container(overlay: str) -> Object:
    (only,) = pod(overlay)["containers"]
    found: Object = only
    return found


class Pod(NamedTuple):
    """A pod template. claims: names of the volumes that a StatefulSet makes for it."""

    labels: Object
    spec: Object
    claims: set[str]


def pods(overlay: str) -> list[Pod]:
    """Of every Deployment and StatefulSet."""
    owners = [each["spec"] for each in built(overlay) if "template" in each.get("spec", {})]
    return [
        Pod(
            owner["template"]["metadata"]["labels"],
            owner["template"]["spec"],
            {claim["metadata"]["name"] for claim in owner.get("volumeClaimTemplates", [])},
        )
        for owner in owners
    ]


def example_secrets() -> dict[str, dict[str, str]]:
    documents = yaml.safe_load_all((FOLDER / "secrets.example.yaml").read_text())
    return {each["metadata"]["name"]: each["stringData"] for each in documents}


def mounts(overlay: str) -> dict[str, tuple[str, str]]:
    """Where the gateway finds what: folder → (``configMap`` or ``secret``, name)."""
    volumes = {volume["name"]: volume for volume in pod(overlay)["volumes"]}
    found = {}
    for mount in container(overlay)["volumeMounts"]:
        volume = volumes[mount["name"]]
        kind = "secret" if "secret" in volume else "configMap"
        found[mount["mountPath"]] = (kind, volume[kind].get("secretName") or volume[kind]["name"])
    return found


def environment(overlay: str) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(overlay).get("env", [])}


def loaded(overlay: str, folder: Path, content: Mapping[str, Mapping[str, str]] | None = None) -> Config:
    """The gateway's configuration as the pod has it. content: of the Secrets, as files in ``folder``, which then
    stands for ``/run``; else no secret is read."""
    (name,) = (name for kind, name in mounts(overlay).values() if kind == "configMap")
    text = of(overlay, "ConfigMap", name)["data"]["proxy.yaml"]
    env = environment(overlay)
    for place, (kind, secret) in mounts(overlay).items() if content is not None else ():
        if kind == "secret" and content is not None:
            (folder / place.lstrip("/")).mkdir(parents=True)
            for key, value in content[secret].items():
                (folder / place.lstrip("/") / key).write_text(value)
    if content is not None:
        text = text.replace("/run/", f"{folder}/run/")
        env = {key: value.replace("/run/", f"{folder}/run/") for key, value in env.items()}
    file = folder / "proxy.yaml"
    file.write_text(text)
    return load_config(file, env, {}, read_secrets=content is not None).config


def sources() -> Iterator[tuple[str, Object]]:
    """Whole objects as they are written, before kustomize has touched them."""
    patches = {FOLDER / "overlays/replicas/deployment.yaml"}
    for file in sorted(FOLDER.rglob("*.yaml")):
        if file.name in ("kustomization.yaml", "proxy.yaml") or file in patches:
            continue
        for found in yaml.safe_load_all(file.read_text()):
            yield f"{file.relative_to(FOLDER)} {found['kind']}", found


def validate(found: Object) -> None:
    """By Kubernetes' own schemas; unknown fields are faults. The ServiceMonitor's is looked at in a test of its own."""
    if found["apiVersion"] != "monitoring.coreos.com/v1":
        kubernetes_validate.validate(found, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("found", [pytest.param(each, id=name) for name, each in sources()])
def test_a_manifest_is_valid_as_it_is_written(found: Object) -> None:
    validate(found)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_builds_into_valid_objects_of_one_namespace(overlay: str) -> None:
    for found in built(overlay):
        validate(found)
    outside = [each["kind"] for each in built(overlay) if each["metadata"].get("namespace") != NAMESPACE]
    assert outside == ["Namespace"]
    assert {each["metadata"]["namespace"] for each in read_all("secrets.example.yaml")} == {NAMESPACE}
    assert of(overlay, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def read_all(name: str) -> list[Object]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whatever_a_pod_names_exists(overlay: str) -> None:
    """Volumes, Secrets, ConfigMaps, its account."""
    names = {(each["kind"], each["metadata"]["name"]) for each in built(overlay)}
    names |= {("Secret", name) for name in example_secrets()}
    for each in pods(overlay):
        for volume in each.spec["volumes"]:
            secret, config = volume.get("secret"), volume.get("configMap")
            assert (("Secret", secret["secretName"]) if secret else ("ConfigMap", config["name"])) in names
        mounted = {mount["name"] for one in each.spec["containers"] for mount in one["volumeMounts"]}
        assert mounted == {volume["name"] for volume in each.spec["volumes"]} | each.claims
        assert ("ServiceAccount", each.spec.get("serviceAccountName", NAME)) in names


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whatever_a_selector_means_exists(overlay: str) -> None:
    """The pods of Services, policies and controllers, and the ports that Services lead to."""
    for found in built(overlay):
        if found["kind"] == "Service":
            spec = selected(overlay, found["spec"]["selector"]).spec
            ports = {port["name"] for each in spec["containers"] for port in each["ports"]}
            assert {port["targetPort"] for port in found["spec"]["ports"]} <= ports, found["metadata"]["name"]
        elif found["kind"] in ("NetworkPolicy", "PodDisruptionBudget", "Deployment", "StatefulSet"):
            selector = found["spec"].get("podSelector") or found["spec"]["selector"]
            selected(overlay, selector["matchLabels"])


def selected(overlay: str, wanted: Mapping[str, str]) -> Pod:
    """The one kind of pod that a selector means."""
    (found,) = (each for each in pods(overlay) if wanted.items() <= each.labels.items())
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_keeps_to_the_restricted_standard_and_more(overlay: str) -> None:
    """The Pod Security Standard `restricted`, a read-only root, and no token for Kubernetes' API."""
    for _, spec, _ in pods(overlay):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
        assert all({"secret", "configMap"} & volume.keys() for volume in spec["volumes"])
        for each in spec["containers"]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in each["ports"])
            assert {"cpu", "memory"} <= each["resources"]["requests"].keys()
            assert "memory" in each["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_come_as_files_that_only_the_pods_group_may_read(overlay: str) -> None:
    """No secret in the environment, no subPath (which would hide a change from the gateway), no file for others."""
    for _, spec, _ in pods(overlay):
        modes = [volume["secret"]["defaultMode"] for volume in spec["volumes"] if "secret" in volume]
        assert set(modes) == {0o440}
        assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"]
        for each in spec["containers"]:
            assert "secretKeyRef" not in str(each)
            assert "envFrom" not in each
            assert not any("subPath" in mount for mount in each["volumeMounts"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_gateway_is_started_with_a_configuration_that_it_takes_without_a_warning(
    overlay: str, tmp_path: Path
) -> None:
    """Beyond loopback and no open door; a warning in the log would be there for ever."""
    config = loaded(overlay, tmp_path)
    assert warnings(config) == []
    assert not config.clients.open
    assert config.listen.tls is not None
    assert config.clients.api_keys is not None
    assert container(overlay)["command"] == ["opentv-proxy"]
    option, place = container(overlay)["args"][1:]
    assert (container(overlay)["args"][0], option) == ("run", "-c")
    assert mounts(overlay)[str(Path(place).parent)][0] == "configMap"


@pytest.mark.parametrize(("overlay", "kind"), [("single", "memory"), ("replicas", "redis")])
def test_tokens_are_kept_where_the_overlay_says(overlay: str, kind: str, tmp_path: Path) -> None:
    assert loaded(overlay, tmp_path).store.kind == kind
    assert of(overlay, "Deployment")["spec"]["replicas"] == {"single": 1, "replicas": 2}[overlay]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ports_and_paths_are_the_gateways(overlay: str, tmp_path: Path) -> None:
    """Probes and scrapes ask the admin port for what is there; the Services lead to the right ports."""
    config, gateway = loaded(overlay, tmp_path), container(overlay)
    ports = {port["name"]: port["containerPort"] for port in gateway["ports"]}
    assert ports == {"proxy": config.listen.address.port, "admin": config.admin.port}
    assert not config.admin.is_loopback, "the kubelet's probes come from outside the pod"
    probes = {name: gateway[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert probes == {
        "startup": {"path": "/livez", "port": "admin"},
        "liveness": {"path": "/livez", "port": "admin"},
        "readiness": {"path": "/readyz", "port": "admin"},
    }
    assert [port["targetPort"] for port in of(overlay, "Service")["spec"]["ports"]] == ["proxy"]
    assert [port["targetPort"] for port in of(overlay, "Service", f"{NAME}-admin")["spec"]["ports"]] == ["admin"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_is_killed_before_it_has_ended_by_itself(overlay: str, tmp_path: Path) -> None:
    """What counts against the grace period: preStop, the drain, a renewal in flight, the logouts."""
    config, spec = loaded(overlay, tmp_path), pod(overlay)
    pause = container(overlay)["lifecycle"]["preStop"]["sleep"]["seconds"]
    renewal = 2 * max(identity.timeout for identity in config.identities.values())
    assert pause + NOTICE * config.shutdown.drain >= 10, "endpoints take a while to be forgotten everywhere"
    assert spec["terminationGracePeriodSeconds"] >= pause + config.shutdown.drain + renewal + LOGOUTS


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_memory_limit_holds_what_the_configuration_lets_in(overlay: str, tmp_path: Path) -> None:
    """A body that may be sent again was measured to take a little more than twice its size, a connection 26 KiB."""
    config = loaded(overlay, tmp_path)
    held = 2.25 * max(route.replay_limit for route in config.routes) + 26 * 1024
    limit = parse_size(container(overlay)["resources"]["limits"]["memory"].replace("i", "iB"))
    assert 64 * 2**20 + config.limits.connections * held <= limit


def test_the_image_is_of_this_version() -> None:
    """In the base and in every overlay, so that a release changes them all."""
    assert [container(overlay)["image"] for overlay in OVERLAYS] == [f"opentv-auth-proxy:{__version__}"] * 2
    (base,) = read_all("base/deployment.yaml")
    assert base["spec"]["template"]["spec"]["containers"][0]["image"] == f"opentv-auth-proxy:{__version__}"


PEERS: Final = {
    "crm": {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "crm"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "crm"}},
    },
    "prometheus": {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}},
    },
    "dns": {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    },
    "anywhere": {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}},
    "gateway": {"podSelector": {"matchLabels": {"app.kubernetes.io/name": NAME}}},
    "redis": {"podSelector": {"matchLabels": {"app.kubernetes.io/name": f"{NAME}-redis"}}},
}


def flows(overlay: str) -> set[tuple[str, str, str, int | str]]:
    """Every permission of every policy: (whose pod, direction, peer, port)."""
    found = set()
    for policy in (each["spec"] for each in built(overlay) if each["kind"] == "NetworkPolicy"):
        whose = policy["podSelector"]["matchLabels"]["app.kubernetes.io/name"].removeprefix(NAME) or "gateway"
        for direction, key in (("from", "ingress"), ("to", "egress")):
            for rule in policy.get(key, []):
                for peer in rule[direction]:
                    (name,) = (name for name, each in PEERS.items() if each == peer)
                    found |= {(whose, direction, name, port["port"]) for port in rule["ports"]}
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_the_crm_reaches_the_proxied_port_and_only_prometheus_the_admin_port(overlay: str) -> None:
    """And nothing else passes in or out but names, HTTPS, and the store."""
    expected = {
        ("gateway", "from", "crm", "proxy"),
        ("gateway", "from", "prometheus", "admin"),
        ("gateway", "to", "dns", 53),
        ("gateway", "to", "anywhere", 443),
    }
    if overlay == "replicas":
        expected |= {("gateway", "to", "redis", 6379), ("-redis", "from", "gateway", "redis")}
    assert flows(overlay) == expected
    closed = {
        policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        for policy in built(overlay)
        if policy["kind"] == "NetworkPolicy" and policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    }
    assert closed == {each.labels["app.kubernetes.io/name"] for each in pods(overlay)}


def test_replicas_are_spread_and_never_all_taken_away_at_once() -> None:
    spec = of("replicas", "PodDisruptionBudget")["spec"]
    assert spec["maxUnavailable"] < of("replicas", "Deployment")["spec"]["replicas"]
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
    spread = {rule["topologyKey"]: rule["whenUnsatisfiable"] for rule in pod("replicas")["topologySpreadConstraints"]}
    assert spread == {"kubernetes.io/hostname": "DoNotSchedule", "topology.kubernetes.io/zone": "ScheduleAnyway"}
    for rule in pod("replicas")["topologySpreadConstraints"]:
        assert selected("replicas", rule["labelSelector"]["matchLabels"]).spec == pod("replicas")
    assert not [each for each in built("single") if each["kind"] == "PodDisruptionBudget"], "it would block for ever"


def test_a_rollout_never_leaves_fewer_gateways_than_there_are() -> None:
    for overlay in OVERLAYS:
        assert of(overlay, "Deployment")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_service_monitor_scrapes_the_admin_port_and_nothing_else(overlay: str) -> None:
    """Its schema is the Prometheus Operator's, which no package carries: the fields are looked at here."""
    monitor = of(overlay, "ServiceMonitor")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    assert monitor["spec"].keys() == {"jobLabel", "selector", "endpoints"}
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint == {"port": "admin", "path": "/metrics", "interval": "15s", "scrapeTimeout": "10s"}
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (service,) = (
        each for each in built(overlay) if each["kind"] == "Service" and wanted <= each["metadata"]["labels"].items()
    )
    assert service["metadata"]["name"] == f"{NAME}-admin"
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == NAME
    assert [port["name"] for port in service["spec"]["ports"]] == [endpoint["port"]]
    assert service["spec"]["publishNotReadyAddresses"] is True


@pytest.mark.parametrize(
    ("overlay", "missing"),
    [
        ("single", {"tls.crt", "tls.key", "api_keys", "opentv_password"}),
        ("replicas", {"tls.crt", "tls.key", "api_keys", "opentv_password", "redis_url", "store_key"}),
    ],
)
def test_a_secret_that_was_left_as_in_the_example_keeps_the_gateway_from_starting(
    overlay: str, missing: set[str], tmp_path: Path
) -> None:
    """It names each. A placeholder that is sent to an identity provider would be a failed login of a real user."""
    with pytest.raises(ConfigError) as caught:
        loaded(overlay, tmp_path, example_secrets())
    named = {match[1] for fault in caught.value.faults if (match := re.search(r"/([\w.]+) is empty", fault.message))}
    assert named == missing


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_with_the_secrets_filled_in_the_gateway_starts(overlay: str, tmp_path: Path) -> None:
    """Every file that the configuration names is a key of a Secret that is mounted there."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    filled = {name: dict.fromkeys(content, key) for name, content in example_secrets().items()}
    assert loaded(overlay, tmp_path, filled).identities.keys() == {"opentv"}


def test_the_example_redis_user_is_the_one_of_the_documentation_and_nobody_else_gets_in() -> None:
    """Redis takes no `#` that 64 hex digits do not follow: it ends at start, and says which line is wrong."""
    default, gateway = example_secrets()[f"{NAME}-redis"]["users.acl"].splitlines()
    assert default == "user default off"
    documented = re.search(r"ACL SETUSER gateway on >PASSWORD (.+)", (ROOT / "docs/stores.md").read_text())
    assert documented is not None
    assert gateway == f"user gateway on #SHA256-OF-THE-PASSWORD {documented[1]}"
    example = (FOLDER / "secrets.example.yaml").read_text()
    assert (
        f"redis://gateway:PASSWORD@{of('replicas', 'Service', f'{NAME}-redis')['metadata']['name']}:6379/0" in example
    )
