"""Clients: who may use the gateway, and which of their header fields must never travel on."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.config import Clients as ClientsConfig
from proxy.errors import ConfigError, SecretError
from proxy.gateway.clients import Clients, Verdict

ANYWHERE = ["0.0.0.0/0", "::/0"]
CRM = {"crm": {"password": "pass:wörd"}}
KEYS = {"keys": ["key-one", "key-two"]}


def clients(*, ca: bool = False, **section: Any) -> Clients:
    return Clients(ClientsConfig.model_validate(section), listen_has_client_ca=ca)


def having(*fields: tuple[bytes, bytes]) -> Callable[[bytes], list[bytes]]:
    """A request's fields, looked up as the gateway does: by lower-case name."""
    return lambda name: [value for field, value in fields if field.lower() == name]


def basic(user: str, password: str, scheme: str = "Basic") -> tuple[bytes, bytes]:
    return b"Authorization", f"{scheme} ".encode() + base64.b64encode(f"{user}:{password}".encode())


def judged(who: Clients, *fields: tuple[bytes, bytes], peer: str = "127.0.0.1", certificate: bool = False) -> Verdict:
    return who.judge(peer, certificate, having(*fields))


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("localhost", False),
        ("127.1", False),
        ("0127.0.0.1", False),
    ],
)
def test_by_default_only_this_machine_is_allowed(peer: str, allowed: bool) -> None:
    who = clients()
    assert who.connection_verdict(peer) == ("admitted" if allowed else "denied")
    assert judged(who, peer=peer).reason == (None if allowed else "address")


def test_networks_of_both_families_are_matched_whatever_the_scope() -> None:
    who = clients(allow_from=["10.1.0.0/16", "fe80::/10", "192.0.2.7"])
    assert who.connection_verdict("10.1.255.255") == "admitted"
    assert who.connection_verdict("::ffff:10.1.2.3") == "admitted"
    assert who.connection_verdict("fe80::1%eth0") == "admitted"
    assert who.connection_verdict("192.0.2.7") == "admitted"
    assert who.connection_verdict("10.2.0.0") == "denied"
    assert who.connection_verdict("127.0.0.1") == "denied"


def test_an_empty_allow_from_refuses_everybody() -> None:
    assert clients(allow_from=[]).connection_verdict("127.0.0.1") == "denied"


def test_the_memory_of_addresses_is_bounded_and_forgets_nothing_it_needs() -> None:
    who = clients(allow_from=["10.0.0.0/16"])
    for number in range(10_000):
        assert who.connection_verdict(f"10.0.{number >> 8}.{number & 255}") == "admitted"
    assert len(who._places) <= 4096
    assert who.connection_verdict("10.1.0.1") == "denied"


@pytest.mark.parametrize(
    ("section", "ca"),
    [({"basic": CRM}, False), ({"api_keys": KEYS}, False), ({}, True), ({"trusted_proxies": ["::1"]}, False)],
)
def test_a_connection_is_waved_through_only_when_no_request_on_it_can_be_refused(
    section: dict[str, Any], ca: bool
) -> None:
    assert clients(ca=ca, **section).connection_verdict("::1") == "ask"


PROXIED: dict[str, Any] = {"allow_from": ["10.0.0.0/8"], "trusted_proxies": ["192.168.0.0/24", "fd00::/8"]}


@pytest.mark.parametrize(
    ("forwarded", "client", "allowed"),
    [
        ([], "192.168.0.1", False),
        ([b""], "192.168.0.1", False),
        ([b"10.0.0.1"], "10.0.0.1", True),
        ([b"11.0.0.1"], "11.0.0.1", False),
        ([b"10.0.0.1, 11.0.0.1"], "11.0.0.1", False),
        ([b"11.0.0.1, 10.0.0.1"], "10.0.0.1", True),
        ([b"10.0.0.1", b"11.0.0.1"], "11.0.0.1", False),
        ([b"10.0.0.1, 192.168.0.7"], "10.0.0.1", True),
        ([b"9.9.9.9, 10.0.0.1, 192.168.0.7, fd00::5"], "10.0.0.1", True),
        ([b"192.168.0.9, 192.168.0.7"], "192.168.0.9", False),
        ([b"10.0.0.1,, ,"], "10.0.0.1", True),
        ([b"10.0.0.1:4711"], "10.0.0.1", True),
        ([b'"[::ffff:10.0.0.1]:4711"'], "10.0.0.1", True),
        ([b"[2001:db8::1]"], "2001:db8::1", False),
        ([b"10.0.0.1, unknown"], "192.168.0.1", False),
        ([b"10.0.0.1, unknown, 192.168.0.7"], "192.168.0.7", False),
        ([b"10.0.0.1, _hidden:1"], "192.168.0.1", False),
        ([b"10.0.0.1, \xff\xfe"], "192.168.0.1", False),
        ([b"10.0.0.1, " + b"192.168.0.7, " * 40], "192.168.0.7", False),
    ],
)
def test_x_forwarded_for_is_read_from_the_right_through_trusted_proxies(
    forwarded: list[bytes], client: str, allowed: bool
) -> None:
    verdict = judged(clients(**PROXIED), *((b"X-Forwarded-For", value) for value in forwarded), peer="192.168.0.1")
    assert verdict.client == client
    assert verdict.reason == (None if allowed else "address")
    assert verdict.trusted


def test_nobody_is_believed_who_is_no_trusted_proxy() -> None:
    verdict = judged(clients(**PROXIED), (b"X-Forwarded-For", b"10.0.0.1"), peer="11.0.0.1")
    assert (verdict.reason, verdict.client, verdict.trusted) == ("address", "11.0.0.1", False)


def test_an_unnamed_client_is_refused_even_where_everybody_is_allowed() -> None:
    who = clients(allow_from=ANYWHERE, trusted_proxies=["192.168.0.1"])
    assert judged(who, (b"X-Forwarded-For", b"unknown"), peer="192.168.0.1").reason == "address"
    assert judged(who, (b"X-Forwarded-For", b"203.0.113.5"), peer="192.168.0.1").reason is None


@pytest.mark.parametrize(
    ("field", "admitted"),
    [
        (basic("crm", "pass:wörd"), True),
        (basic("crm", "pass:wörd", "bAsIc"), True),
        (basic("crm", "pass:wörd", "Basic "), True),
        ((b"AUTHORIZATION", basic("crm", "pass:wörd")[1]), True),
        (basic("crm", "pass"), False),
        (basic("crm", "pass:wörd "), False),
        (basic("CRM", "pass:wörd"), False),
        (basic("nobody", "pass:wörd"), False),
        (basic("", ""), False),
        (basic("crm", "pass:wörd", "Bearer"), False),
        ((b"Authorization", b"Basic " + base64.b64encode("crm:pass:wörd".encode("latin-1"))), False),
        ((b"Authorization", b"Basic " + base64.b64encode(b"crm")), False),
        ((b"Authorization", b"Basic !!!"), False),
        ((b"Authorization", b"Basic Y3Jt\xff"), False),
        ((b"Authorization", basic("crm", "pass:wörd")[1] + b" x"), False),
        ((b"Authorization", b"Basic"), False),
        ((b"Authorization", b""), False),
        ((b"X-Authorization", basic("crm", "pass:wörd")[1]), False),
    ],
)
def test_basic_admits_exactly_a_configured_user_with_its_password(field: tuple[bytes, bytes], admitted: bool) -> None:
    verdict = judged(clients(basic=CRM), field)
    assert verdict.reason == (None if admitted else "credential")
    if admitted:
        assert verdict.consumed == {b"authorization"}


def test_without_a_credential_nobody_is_admitted_where_one_is_configured() -> None:
    for who in (clients(basic=CRM), clients(api_keys=KEYS), clients(ca=True)):
        assert judged(who).reason == "credential"


def test_a_good_credential_does_not_make_up_for_a_wrong_address() -> None:
    assert judged(clients(basic=CRM), basic("crm", "pass:wörd"), peer="10.0.0.1").reason == "address"


def test_every_key_admits_and_its_field_never_travels() -> None:
    who = clients(api_keys=KEYS)
    for key in (b"key-one", b"key-two"):
        verdict = judged(who, (b"x-API-key", key))
        assert verdict.reason is None
        assert verdict.consumed == {b"x-api-key"}


@pytest.mark.parametrize(
    "fields",
    [
        [(b"X-Api-Key", b"key-three")],
        [(b"X-Api-Key", b"")],
        [(b"X-Api-Key", b"key-on")],
        [(b"X-Api-Key", b"key-one,key-two")],
        [(b"X_Api_Key", b"key-one")],
        [(b"X-Api-Key", b"key-one"), (b"x-api-key", b"key-one")],
        [(b"X-Api-Key", b"key-one"), (b"X-Api-Key", b"wrong")],
    ],
)
def test_a_wrong_repeated_or_look_alike_key_admits_nobody(fields: list[tuple[bytes, bytes]]) -> None:
    assert judged(clients(api_keys=KEYS), *fields).reason == "credential"


def test_the_key_field_is_named_so_that_its_look_alikes_are_dropped_as_well() -> None:
    who = clients(api_keys={"header": "Crm_Key", "keys": ["k"]})
    verdict = judged(who, (b"crm_key", b"k"))
    assert verdict.reason is None
    assert verdict.consumed == {b"crm-key"}


def test_any_one_of_several_mechanisms_admits() -> None:
    who = clients(basic=CRM, api_keys=KEYS, ca=True)
    assert judged(who, basic("crm", "pass:wörd")).reason is None
    assert judged(who, (b"X-Api-Key", b"key-one")).reason is None
    assert judged(who, certificate=True).reason is None
    assert judged(who).reason == "credential"
    assert judged(clients(basic=CRM), certificate=True).reason == "credential"


def test_all_mechanisms_are_needed_where_the_configuration_says_so() -> None:
    who = clients(basic=CRM, api_keys=KEYS, ca=True, require="all")
    every = [basic("crm", "pass:wörd"), (b"X-Api-Key", b"key-one")]
    assert judged(who, *every, certificate=True).reason is None
    assert judged(who, *every, certificate=True).consumed == {b"authorization", b"x-api-key"}
    assert judged(who, *every).reason == "credential"
    assert judged(who, *every[:1], certificate=True).reason == "credential"
    assert judged(who, *every[1:], certificate=True).reason == "credential"


@pytest.mark.parametrize(
    ("field", "travels"),
    [
        (basic("crm", "pass:wörd"), False),
        (basic("crm", "the old password"), False),
        ((b"Authorization", b"Basic !!!"), False),
        ((b"Authorization", b"Basic " + base64.b64encode(b"crm")), False),
        ((b"Authorization", b"Basic\tY3JtOng="), False),
        (basic("platform-user", "x"), True),
        ((b"Authorization", b"Bearer abc"), True),
    ],
)
def test_whoever_a_key_admits_keeps_an_authorization_that_is_not_meant_for_the_gateway(
    field: tuple[bytes, bytes], travels: bool
) -> None:
    verdict = judged(clients(basic=CRM, api_keys=KEYS), field, (b"X-Api-Key", b"key-one"))
    assert verdict.reason is None
    assert verdict.consumed == ({b"x-api-key"} if travels else {b"x-api-key", b"authorization"})


TWICE = [basic("crm", "pass:wörd"), (b"authorization", b"Bearer x")]
TWO_KEYS = [(b"X-Api-Key", b"key-one"), (b"x-api-key", b"key-one")]


@pytest.mark.parametrize(
    ("fields", "repeated", "tried"),
    [
        ([*TWICE, (b"X-Api-Key", b"key-one")], "Authorization", False),
        ([*TWICE, (b"X-Api-Key", b"wrong")], "Authorization", False),
        (TWO_KEYS, "x-api-key", False),
        ([*TWO_KEYS, *TWICE], "Authorization", False),
        ([*TWO_KEYS, basic("crm", "wrong")], "x-api-key", True),
        ([(b"X-Api-Key", b"wrong")], "", True),
    ],
)
def test_a_repeated_credential_is_refused_by_name_and_is_no_guess(
    fields: list[tuple[bytes, bytes]], repeated: str, tried: bool
) -> None:
    """Whatever is in it: it tells nothing of what a single one would, whatever else the client shows."""
    verdict = judged(clients(basic=CRM, api_keys=KEYS), *fields)
    assert (verdict.reason, verdict.repeated, verdict.tried) == ("credential", repeated, tried)


def test_a_repeated_key_does_not_keep_out_whom_another_credential_admits() -> None:
    verdict = judged(clients(basic=CRM, api_keys=KEYS), *TWO_KEYS, TWICE[0])
    assert verdict.reason is None
    assert verdict.consumed == {b"x-api-key", b"authorization"}


def test_a_401_names_a_way_in() -> None:
    assert clients(basic=CRM).challenge() == [b'WWW-Authenticate: Basic realm="opentv-auth-proxy", charset="UTF-8"\r\n']
    assert clients(api_keys=KEYS).challenge() == [
        b'WWW-Authenticate: ApiKey realm="opentv-auth-proxy", header="x-api-key"\r\n'
    ]
    assert clients(ca=True).challenge() == [b'WWW-Authenticate: ClientCertificate realm="opentv-auth-proxy"\r\n']
    assert len(clients(basic=CRM, api_keys=KEYS, ca=True).challenge()) == 2


def test_a_keys_file_has_one_key_a_line_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# the CRM\nkey-one\r\n\n  key two  \n#key-three\n")
    who = clients(api_keys={"keys_file": str(file)})
    assert judged(who, (b"X-Api-Key", b"key-one")).reason is None
    assert judged(who, (b"X-Api-Key", b"key two")).reason is None
    for wrong in (b"# the CRM", b"#key-three", b"key-three", b""):
        assert judged(who, (b"X-Api-Key", wrong)).reason == "credential"


def test_changed_files_are_in_force_after_a_reload(tmp_path: Path) -> None:
    keys, password = tmp_path / "keys", tmp_path / "password"
    keys.write_text("old\nkept\n")
    password.write_text("old\n")
    who = clients(basic={"crm": {"password_file": str(password)}}, api_keys={"keys_file": str(keys)})
    keys.write_text("kept\nnew\n")
    password.write_text("new\n")
    assert judged(who, (b"X-Api-Key", b"new")).reason == "credential"
    who.reload_secrets()
    for key, admitted in ((b"old", False), (b"kept", True), (b"new", True)):
        assert (judged(who, (b"X-Api-Key", key)).reason is None) is admitted
    assert judged(who, basic("crm", "new")).reason is None
    assert judged(who, basic("crm", "old")).reason == "credential"


def test_a_file_that_vanishes_leaves_its_secret_in_force_and_the_others_are_still_read(tmp_path: Path) -> None:
    keys, password = tmp_path / "keys", tmp_path / "password"
    keys.write_text("old")
    password.write_text("old")
    who = clients(basic={"crm": {"password_file": str(password)}}, api_keys={"keys_file": str(keys)})
    password.unlink()
    keys.write_text("new")
    with pytest.raises(SecretError, match="password does not exist"):
        who.reload_secrets()
    assert judged(who, basic("crm", "old")).reason is None
    assert judged(who, (b"X-Api-Key", b"new")).reason is None
    assert judged(who, (b"X-Api-Key", b"old")).reason == "credential"


def test_emptying_the_keys_file_takes_every_key_back(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("key")
    who = clients(api_keys={"keys_file": str(file)})
    file.write_text("# nobody\n")
    with pytest.raises(SecretError, match="holds no key"):
        who.reload_secrets()
    assert judged(who, (b"X-Api-Key", b"key")).reason == "credential"


def test_a_missing_or_empty_secret_prevents_the_start_and_every_one_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "keys"
    empty.write_text("\n")
    with pytest.raises(ConfigError, match=r"password does not exist.*holds no key"):
        clients(basic={"crm": {"password_file": str(tmp_path / "password")}}, api_keys={"keys_file": str(empty)})


def test_no_repr_holds_a_secret() -> None:
    who = clients(basic=CRM, api_keys=KEYS)
    shown = repr(who) + repr(judged(who, (b"X-Api-Key", b"key-one"), basic("crm", "pass:wörd")))
    assert "key-one" not in shown
    assert "pass" not in shown
