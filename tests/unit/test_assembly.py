"""What of a new configuration a running process can follow."""

from pathlib import Path
from typing import Any

import pytest
import trustme

from proxy.assembly import Assembly, Parts, in_force, not_in_force
from proxy.config import ClientTls, Config, parse_config
from proxy.errors import ConfigError
from proxy.gateway.clients import Clients
from proxy.metrics import Metrics

TLS = {"cert_file": "/tls/cert.pem", "key_file": "/tls/key.pem"}
KEYS = {"api_keys": {"keys": ["a-key-of-some-length"]}}


def config(listen: object = "127.0.0.1:8080", **sections: Any) -> Config:
    routes = [{"path": "/", "upstream": "http://127.0.0.1:1"}]
    return parse_config({"listen": listen, "routes": routes} | sections)


def public(**tls: str) -> dict[str, Any]:
    return {"address": "0.0.0.0:8443", "tls": TLS | tls}


def test_addresses_store_and_event_loop_stay_and_are_named() -> None:
    running = config()
    wanted = config("127.0.0.1:8081", admin="127.0.0.1:9091", uvloop=False, log={"level": "debug"})
    held = in_force(wanted, running)
    assert (held.listen, held.admin, held.uvloop) == (running.listen, running.admin, True)
    assert held.log.level == "debug"
    assert not_in_force(wanted, held) == ["listen", "admin", "uvloop"]
    assert not_in_force(wanted, in_force(wanted, held)) == ["listen", "admin", "uvloop"]  # said as long as it is so


def test_a_listeners_certificate_is_followed() -> None:
    wanted = config(public(cert_file="/tls/new.pem"), clients=KEYS)
    held = in_force(wanted, config(public(), clients=KEYS))
    assert held == wanted
    assert not_in_force(wanted, held) == []


def test_a_listener_goes_on_asking_for_certificates_when_they_are_no_longer_wanted() -> None:
    held = in_force(config(public(), clients=KEYS), config(public(client_ca_file="/tls/ca.pem")))
    assert held.listen.tls is not None
    assert str(held.listen.tls.client_ca_file) == "/tls/ca.pem"


def test_a_plain_listener_stays_plain_and_a_tls_one_keeps_its_tls() -> None:
    plain, secure = config(), config({"address": "127.0.0.1:8080", "tls": TLS})
    assert in_force(secure, plain).listen == plain.listen
    assert in_force(plain, secure).listen == secure.listen


@pytest.mark.parametrize(
    ("wanted", "running"),
    [
        # Right for the loopback address that it names, wrong for the one that still listens.
        (config(clients={"allow_from": ["0.0.0.0/0"]}), config("0.0.0.0:8080", clients=KEYS)),
        # The credential is a certificate that the running listener does not ask for.
        (
            config(public(client_ca_file="/tls/ca.pem"), clients={"allow_from": ["0.0.0.0/0"]}),
            config(public(), clients=KEYS | {"allow_from": ["0.0.0.0/0"]}),
        ),
    ],
)
def test_clients_that_would_make_the_running_listener_an_open_door_are_refused(wanted: Config, running: Config) -> None:
    with pytest.raises(ConfigError) as refused:
        in_force(wanted, running)
    assert [fault.path for fault in refused.value.faults] == ["clients.allow_from"]


def test_parts_that_cannot_all_be_built_leave_no_series() -> None:
    metrics = Metrics("test")
    assembly = Assembly(metrics, config().store)
    running = assembly.build(config())
    before = metrics.render("")[0].split(b"opentv_proxy_event_loop")[0]
    identity = {"system": "keycloak", "token_url": "http://127.0.0.1:1/", "client_id": "a", "username": "b"}
    wrong = config(
        identities={"new": identity | {"password": "c"}},
        routes=[
            {"path": "/new", "upstream": "http://127.0.0.1:1", "identity": "new"},
            {"path": "/", "upstream": "https://127.0.0.1:1", "tls": {"ca_file": __file__}},
        ],
    )
    with pytest.raises(ConfigError, match=r"routes\.1\.tls\.ca_file"):
        assembly.build(wrong, running)
    after = metrics.render("")[0].split(b"opentv_proxy_event_loop")[0]
    assert [line for line in after.splitlines() if b"new" in line] == []
    assert _ours(before) == _ours(after)


def _ours(page: bytes) -> list[bytes]:
    return [line for line in page.splitlines() if line.startswith(b"opentv_proxy_")]


def test_the_systems_authorities_are_read_once_for_all_that_trust_them(tmp_path: Path) -> None:
    """Who is not verified, or has an authority of its own, does not share the context of those."""
    authority = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(authority))
    running = config()
    parts = Parts(running, Clients(running.clients, listen_has_client_ca=False))
    trusting = parts.context(ClientTls(), "tls")
    assert parts.context(ClientTls(server_name="platform.example.com"), "tls") is trusting
    others = [parts.context(ClientTls(verify=False), "tls"), parts.context(ClientTls(ca_file=authority), "tls")]
    assert trusting not in others
    assert len(others[1].get_ca_certs()) == 1
