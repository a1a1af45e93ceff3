"""A wrong configuration: every fault at once, each with its place and what was expected, no value repeated."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy.config import load_config
from proxy.errors import ConfigError

HEAD = "routes: [{path: /, upstream: 'https://h', identity: idp}]\n"
IDP = "identities: {idp: {system: keycloak, token_url: 'https://idp/token', client_id: crm, %s}}\n"
USER = "username: alice, password: pw"


def faults_of(tmp_path: Path, text: str, *, read_secrets: bool = False) -> list[str]:
    file = tmp_path / "proxy.yaml"
    file.write_text(text)
    try:
        load_config(file, {}, {}, read_secrets=read_secrets)
    except ConfigError as exc:
        return [str(fault) for fault in exc.faults]
    return []


def idp(keys: str) -> str:
    return HEAD + IDP % keys


def route(keys: str) -> str:
    return IDP % USER + "routes: [{path: /, upstream: 'https://h', identity: idp, %s}]\n" % keys  # noqa: UP031 - braces


PLAIN = "routes: [{path: /, upstream: 'https://h'}]\n"

SHAPE = {
    # what is written: every fault it has
    **{
        f"listen: {wrong}": [
            "listen: expected host:port, such as 127.0.0.1:8080, or a mapping with keys such as address, tls"
        ]
        for wrong in ("[1]", "8080", "true")
    },
    "store: 5": ["store: expected memory, {file: {path, key_file}} or {redis: {url_file, key_file, prefix}}"],
    "listen: {adress: 'h:1'}": ["listen.adress: unknown key; did you mean address?"],
    "listen: {tls: {cert_file: a}}": ["listen.tls.key_file: is required: PEM file of its private key"],
    "admin: 8080": ["admin: expected host:port, such as 127.0.0.1:8080, 0.0.0.0:8080 (all interfaces) or [::1]:8080"],
    "admin: 127.0.0.1:8080": ["admin: expected another port than that of listen (127.0.0.1:8080)"],
    "zebra: 1": ["zebra: unknown key; known here: listen, admin, clients, identities, routes, limits, store, shutdown"],
    "uvloop: maybe": ["uvloop: expected true or false"],
    "limits: {connections: 0}": ["limits.connections: expected at least 1"],
    "limits: {connections: 1.5}": ["limits.connections: expected a whole number"],
    "limits: {head_time: 2 minutes}": [
        "limits.head_time: expected a duration such as 250ms, 30s, 5m, 2h, 1d or seconds"
    ],
    "limits: {head_time: 2d}": ["limits.head_time: expected between 100ms and 1h"],
    "limits: {head_size: 1GiB}": ["limits.head_size: expected between 1KiB and 16MiB"],
    "limits: {head_size: 8KiB}": [],
    "limits: {head_size: 8KiB, target_size: 9KiB}": ["limits.target_size: expected at most limits.head_size (8KiB)"],
    "limits: {target_size: 65KiB}": ["limits.target_size: expected at most limits.head_size (64KiB)"],
    "limits: {connections: true}": ["limits.connections: expected a number, not true or false"],
    "uvloop: 0": ["uvloop: expected true or false"],
    "uvloop: 1.0": ["uvloop: expected true or false"],
    "log: {level: warn}": ["log.level: expected one of debug, info, warning, error; did you mean warning?"],
    "log: {access: no}": ["log.access: expected one of all, errors, off"],
    "shutdown: 25s": ["shutdown: expected a mapping with keys such as drain"],
    "clients: {allow_from: 10.0.0.0/8}": ["clients.allow_from: expected a list"],
    "clients: {allow_from: [10.0.0.1/8]}": [
        "clients.allow_from.0: has bits set beyond its prefix; the network is 10.0.0.0/8"
    ],
    "clients: {basic: {crm: {}}}": ["clients.basic.crm.password_file: is required, or password in its place"],
    "clients: {basic: {'a:b': {password: x}}}": ["clients.basic.a:b: a user name has no colon"],
    "clients: {api_keys: {keys: [a], keys_file: b}}": [
        "clients.api_keys.keys: give either keys or keys_file, not both"
    ],
    "clients: {api_keys: {header: Host, keys: [a]}}": ["clients.api_keys.header: this field frames the message"],
    **{
        f"clients: {{api_keys: {{header: {name}, keys: [a]}}}}": [
            "clients.api_keys.header: the gateway uses this field itself, and shows what is in it to others"
        ]
        for name in ("X-Correlation-Id", "x_correlation_id", "X-Forwarded-For", "Forwarded", "Proxy-Authorization")
    },
    "clients: {api_keys: {header: Authorization, keys: [a]}}": [],
    "clients: {api_keys: {keys: [a, ' ', '']}}": [
        "clients.api_keys.keys.1: is empty",
        "clients.api_keys.keys.2: is empty",
    ],
    "clients: {basic: {crm: {password: ''}}}": ["clients.basic.crm.password: is empty"],
    "store: {redis: {url: '', key_file: k}}": ["store.redis.url: is empty"],
    "store: disk": ["store: expected memory, {file: {path, key_file}} or {redis: {url_file, key_file, prefix}}"],
    "store: {file: {path: a}}": ["store.file.key_file: is required"],
    "identities: {'a b': {system: keycloak}}": [
        "identities.a b: expected letters, digits, - _ and . only",
        "identities.a b.token_url: is required: The token endpoint's URL",
        "identities.a b.client_id: is required: The client's identifier",
        "identities.a b.password: is required with grant password",
        "identities.a b.username: is required with grant password",
    ],
    "identities: {idp: {}}": ["identities.idp.system: is required: Which kind of system issues the token."],
    "identities: {idp: {system: keykloak, clientid: c}}": [
        "identities.idp.system: expected one of keycloak, oauth2, ags, veeam, ssp, token_file; did you mean keycloak?",
        "identities.idp.token_url: is required: The token endpoint's URL",
        "identities.idp.client_id: is required: The client's identifier",
        "identities.idp.clientid: unknown key; did you mean client_id?",
    ],
}


@pytest.mark.parametrize(("text", "faults"), SHAPE.items(), ids=list(SHAPE))
def test_a_value_of_the_wrong_shape_is_named(tmp_path: Path, text: str, faults: list[str]) -> None:
    """Its path, what was expected, and the nearest known name."""
    found = faults_of(tmp_path, f"{PLAIN}{text}\n")
    assert [fault[: len(wanted)] for fault, wanted in zip(found, faults, strict=True)] == faults


CREDENTIALS = {
    "username: alice": ["password: is required with grant password, or password_file in its place"],
    "password: 12345, username: alice": ["password: expected text (a number, true or false needs quotes to be text)"],
    f"{USER}, password_file: f": ["password: give either password or password_file, not both"],
    "username: alice, password: ''": ["password: is empty"],
    f"{USER}, client_auth: post, client_secret: ' '": ["client_secret: is empty"],
    f"{USER}, proxy: {{url: 'http://h', username: u, password: ''}}": ["proxy.password: is empty"],
    f"{USER}, grant: passwort": [
        "grant: expected one of password, client_credentials, refresh_token; did you mean password?"
    ],
    f"{USER}, client_secret: x": [
        "client_secret: is not used with client_auth none; client_auth post or basic would use it"
    ],
    f"{USER}, client_auth: basic": [
        "client_secret: is required with client_auth basic, or client_secret_file in its place"
    ],
    f"{USER}, client_auth: tls": ["tls.cert_file: is required with client_auth tls"],
    f"{USER}, client_auth: tls, tls: {{cert_file: a}}": ["tls.key_file: is required, as cert_file is given"],
    f"{USER}, client_auth: private_key_jwt": [
        "private_key: is required with client_auth private_key_jwt, or private_key_file in its place"
    ],
    f"{USER}, audience: x": ["audience: is not used with client_auth none; client_auth private_key_jwt would use it"],
    "grant: refresh_token": ["refresh_token: is required with grant refresh_token, or refresh_token_file in its place"],
    f"{USER}, grant: client_credentials": [
        "password: is not used with grant client_credentials; grant password would use it",
        "username: is not used with grant client_credentials; grant password would use it",
    ],
    f"{USER}, inject: {{header: Content-Length}}": ["inject.header: this field frames the message"],
    f"{USER}, inject: {{header: x-correlation-id}}": ["inject.header: the gateway uses this field itself"],
    f"{USER}, inject: {{header: X-Forwarded-Host}}": ["inject.header: the gateway uses this field itself"],
    f"{USER}, inject: {{scheme: 'Bearer '}}": ["inject.scheme: expected one word such as Bearer"],
    f"{USER}, refresh: {{ahead: 1}}": ["refresh.ahead: expected less than 1"],
    f"{USER}, headers: {{Content-Type: x}}": ["headers.Content-Type: the token request writes this field itself"],
    f"{USER}, headers: {{X-Correlation-Id: x}}": [
        "headers.X-Correlation-Id: the token request writes this field itself"
    ],
    f"{USER}, headers: {{x-a: x, X-A: y}}": ["headers.x-a: is set twice"],
    f"{USER}, headers: {{Authorization: x, nv-tenant-id: y}}": [],
    f"{USER}, client_auth: basic, client_secret: s, headers: {{Authorization: x}}": [
        "headers.Authorization: the token request writes this field itself"
    ],
    f"{USER}, tls: {{verify: 'no'}}": [],
    f"{USER}, tls: {{verify: 0}}": ["tls.verify: expected true or false"],
    f"{USER}, refresh: {{jitter: true}}": ["refresh.jitter: expected a number, not true or false"],
    **{
        f"{USER}, tls: {{server_name: '{wrong}'}}": ["tls.server_name: expected a host name such as host.example.com"]
        for wrong in ("http://a b/", "a:443", "[::1]", "a b", "a/")
    },
    **{f"{USER}, tls: {{server_name: '{name}'}}": [] for name in ("a", "a_b.example.com", "::1", "10.0.0.1")},
    f"{USER}, proxy: 3128": ["proxy: expected none, a URL such as http://proxy.example.com:3128, or a mapping"],
    f"{USER}, base_url: 'https://h'": ["base_url: unknown key; known here"],
}


def test_a_bound_is_written_as_the_documents_write_it(tmp_path: Path) -> None:
    bounds = {"ahead: 1": "less than 1", "ahead: 0": "more than 0", "jitter: 2": "at most 1"}
    for written, words in bounds.items():
        (fault,) = faults_of(tmp_path, idp(f"{USER}, refresh: {{{written}}}"))
        assert fault.endswith(f": expected {words}")


@pytest.mark.parametrize(("keys", "faults"), CREDENTIALS.items(), ids=list(CREDENTIALS))
def test_grant_and_client_auth_decide_which_keys_there_are(tmp_path: Path, keys: str, faults: list[str]) -> None:
    """What is missing is asked for, and what nothing would use is a mistake."""
    found = [fault.removeprefix("identities.idp.") for fault in faults_of(tmp_path, idp(keys))]
    assert [fault[: len(wanted)] for fault, wanted in zip(found, faults, strict=True)] == faults


ROUTES = {
    "headers: {set: {Authorization: x}}": ["headers.set.Authorization: the identity's token goes into Authorization"],
    "headers: {remove: [authorization]}": ["headers.remove: the identity's token goes into Authorization"],
    "headers: {set: {Connection: x}}": ["headers.set.Connection: this field frames the message"],
    'headers: {set: {X: "a\\r\\nY: b"}}': ["headers.set.X: expected printable ASCII without line breaks"],
    "headers: {set: {nv-x: a, NV-X: b}}": ["headers.set.nv-x: is set twice"],
    "headers: {set: {X-Correlation-Id: a}}": ["headers.set.X-Correlation-Id: the gateway writes this field itself"],
    "headers: {set: {X_Forwarded_Proto: https}}, forwarded: true": [
        "headers.set.X_Forwarded_Proto: the gateway writes this field itself with forwarded: true"
    ],
    "headers: {set: {X-Forwarded-Proto: https}}": [],
    "allow: [GET]": ['allow.0: expected a method and a path such as "GET /adm/**"'],
    "rejected: {statuses: [200]}": ["rejected.statuses.0: expected at least 300"],
    "rejected: {result_codes: [99999]}": ["rejected.result_codes.0: expected text"],
    "host: client": ["host: expected one of upstream, preserve"],
    "timeouts: {connect: 0}": ["timeouts.connect: expected between 10ms and 10m"],
    "tls: {key_file: a}": ["tls.cert_file: is required, as key_file is given"],
    "max_connections: true": ["max_connections: expected a number, not true or false"],
    "retries: 3": ["retries: unknown key; known here: path, upstream"],
}


@pytest.mark.parametrize(("keys", "faults"), ROUTES.items(), ids=list(ROUTES))
def test_a_wrong_route_is_named(tmp_path: Path, keys: str, faults: list[str]) -> None:
    """Routes are counted from 0, as in the variables of the environment."""
    found = [fault.removeprefix("routes.0.") for fault in faults_of(tmp_path, route(keys))]
    assert [fault[: len(wanted)] for fault, wanted in zip(found, faults, strict=True)] == faults


def test_routes_are_compared_with_each_other_and_with_the_identities(tmp_path: Path) -> None:
    """A prefix once, with or without its last slash; an identity that exists, the nearest named."""
    text = (
        IDP % USER + "routes:\n- {path: /adm, upstream: 'https://h', identity: ipd}\n- {path: /adm/, upstream: 'h'}\n"
        "- {path: adm, upstream: 'https://h/b?c'}\n"
    )
    assert faults_of(tmp_path, text) == [
        "routes.1.upstream: expected a URL that begins with https:// or http://",
        "routes.2.path: expected a path that begins with /",
        "routes.2.upstream: a URL here has no ?query",
        "routes.0.identity: no identity has this name; did you mean idp?",
        "routes.1.path: is the same prefix as that of routes.0",
    ]
    assert faults_of(tmp_path, HEAD) == ["routes.0.identity: no identity has this name; none is configured"]
    assert faults_of(tmp_path, "log: {}") == [
        "routes: is required: Which path goes to which upstream, signed by which identity."
    ]


OTHERS: dict[str, dict[str, Any]] = {
    "ags": {
        "base_url": "https://ags/ags",
        "auth_service_id": "sso 1",
        "tenant_id": "nagra",
        "sign_on": [{"name": "username", "value": "dave"}, {"name": "password", "value_file": "/run/secrets/dave"}],
        "refresh_parameters": [{"name": "username", "value": "dave"}],
        "device": {"screens": [{"height": 1}]},
    },
    "veeam": {"token_url": "https://10.0.0.5/token", "username": "administrator", "password_file": "/run/secrets/v"},
    "ssp": {
        "credentials_file": "/run/secrets/c.json",
        "lifetime": "5m",
        "inject": {"header": "nv-authorizations", "scheme": ""},
    },
    "token_file": {"file": "/run/secrets/token"},
}


@pytest.mark.parametrize("system", list(OTHERS))
def test_each_system_has_keys_of_its_own(tmp_path: Path, system: str) -> None:
    """Those of another are faults."""
    tree: dict[str, Any] = {
        "identities": {"idp": {"system": system, **OTHERS[system]}},
        "routes": [{"path": "/", "upstream": "https://h", "identity": "idp"}],
    }
    for name in ("pasword", "grant"):
        tree["identities"]["idp"][name] = "x"
    found = faults_of(tmp_path, yaml.safe_dump(tree))
    assert {fault.partition(":")[0] for fault in found} == {"identities.idp.pasword", "identities.idp.grant"}


AGS = {"system": "ags", "base_url": "https://h", "auth_service_id": "sso-1", "tenant_id": "nagra"}


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("X-Auth-Service-Id", ": set auth_service_id"),
        ("nv-tenant-id", ": set tenant_id"),
        ("Authorization", ""),
        ("x-correlation-id", ""),
        ("content-type", ""),
    ],
)
def test_a_header_that_an_ags_call_writes_itself_is_refused(tmp_path: Path, name: str, instead: str) -> None:
    """Twice on the wire, one of them would win: which, is the server's choice."""
    identity = {**AGS, "sign_on": [{"name": "username", "value": "dave"}], "headers": {name: "x", "X-Other": "y"}}
    tree = {"identities": {"idp": identity}, "routes": [{"path": "/", "upstream": "https://h", "identity": "idp"}]}
    words = f"identities.idp.headers.{name}: the token request writes this field itself{instead}"
    assert faults_of(tmp_path, json.dumps(tree)) == [words]


WRITES = "the token request writes this field itself"


@pytest.mark.parametrize(
    ("keys", "name", "words"),
    [
        (USER, "grant_type", f"{WRITES}: set grant"),
        (USER, "client_id", f"{WRITES}: set client_id"),
        (f"{USER}, client_auth: basic, client_secret: s", "client_id", ""),
        (USER, "client_secret", f"{WRITES}: set client_auth post or basic, and client_secret_file"),
        (USER, "username", f"{WRITES}: set grant password, and username"),
        ("grant: client_credentials", "password", f"{WRITES}: set grant password, and password_file"),
        (USER, "refresh_token", f"{WRITES}: set grant refresh_token, and refresh_token_file"),
        (USER, "client_assertion", f"{WRITES}: set client_auth private_key_jwt, and private_key_file"),
        (USER, "client_assertion_type", f"{WRITES}: set client_auth private_key_jwt"),
        (USER, "scope", ""),
        (USER, "Username", ""),
        (USER, "resource", ""),
    ],
)
def test_a_form_field_that_the_grant_writes_itself_is_refused(tmp_path: Path, keys: str, name: str, words: str) -> None:
    faults = faults_of(tmp_path, idp(f"{keys}, extra: {{{name}: hh}}"))
    assert faults == ([f"identities.idp.extra.{name}: {words}"] if words else [])


@pytest.mark.parametrize(
    ("name", "instead"),
    [("grant_type", ""), ("refresh_token", ""), ("Username", ": set username"), ("password", ": set password_file")],
)
def test_a_form_field_that_a_veeam_call_writes_itself_is_refused(tmp_path: Path, name: str, instead: str) -> None:
    """In any case of letters: its server reads both as one field."""
    identity: dict[str, Any] = {"system": "veeam", "token_url": "https://h/token", "username": "u", "password": "p"}
    identity |= {"extra": {name: "x", "use_short_term_refresh": "false"}}
    tree = {"identities": {"idp": identity}, "routes": [{"path": "/", "upstream": "https://h", "identity": "idp"}]}
    assert faults_of(tmp_path, json.dumps(tree)) == [f"identities.idp.extra.{name}: {WRITES}{instead}"]


def test_a_client_certificate_is_shown_by_tls_only(tmp_path: Path) -> None:
    keys = f"{USER}, client_auth: tls, tls: {{cert_file: a, key_file: b}}"
    text = idp(keys).replace("https://idp", "http://idp")
    assert faults_of(tmp_path, text) == [
        "identities.idp.token_url: expected https:// with client_auth tls: no certificate is shown without TLS"
    ]


def test_one_store_at_a_time(tmp_path: Path) -> None:
    text = PLAIN + "store: {redis: {url: redis://r, key_file: k}, file: {path: a, key_file: k}}"
    assert faults_of(tmp_path, text) == ["store: give either file or redis, not both"]


def test_faults_of_every_kind_are_in_one_listing(tmp_path: Path) -> None:
    """A wrong value hides neither a broken rule beside it, nor a missing file, nor an open door elsewhere."""
    text = """\
listen: 0.0.0.0:8080
clients: {allow_from: [0.0.0.0/0]}
identities:
  idp:
    system: keycloak
    token_url: https://idp/token
    client_id: crm
    timeout: soon
    username: alice
    password_file: missing
    tls: {ca_file: missing.pem}
routes:
  - {path: /, upstream: 'https://h', identity: dip}
limits: {}
limits: {}
"""
    assert [fault.partition(": ")[0] for fault in faults_of(tmp_path, text, read_secrets=True)] == [
        "clients.allow_from",
        "identities.idp.timeout",
        "identities.idp.password_file",
        "identities.idp.tls.ca_file",
        "routes.0.identity",
        "limits",
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "does not exist"), ("", "is empty"), ("x" * 70000, "64 KiB")],
    ids=["missing", "empty", "too long"],
)
def test_every_secret_is_read_once_at_load(tmp_path: Path, content: str | None, words: str) -> None:
    """A start fails on it with words, not the first request; a relative path starts at the file's directory."""
    if content is not None:
        (tmp_path / "pw").write_text(content)
    (found,) = faults_of(tmp_path, idp("username: alice, password_file: pw"), read_secrets=True)
    assert found.startswith(f"identities.idp.password_file: the secret file {tmp_path}/pw ")
    assert words in found


def test_a_keys_file_that_holds_only_comments_holds_no_key(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# nobody any more\n\n")
    (found,) = faults_of(tmp_path, f"{PLAIN}clients: {{api_keys: {{keys_file: keys}}}}", read_secrets=True)
    assert found.startswith(f"clients.api_keys.keys_file: the keys file {tmp_path}/keys holds no key")


def test_no_fault_repeats_a_value(tmp_path: Path) -> None:
    """A secret in the wrong place, of the wrong type or in broken YAML stays out of the listing."""
    for text in (
        idp("username: alice, password: [hunter2]"),
        idp("username: alice, password_file: pw, grant: hunter2"),
        idp("username: {hunter2: hunter2}, password: pw").replace("{hunter2:", "{x:"),
        HEAD + "identities: hunter2",
        HEAD + "identities: {idp: hunter2}",
        HEAD + "listen: hunter2\nadmin: hunter2\nstore: hunter2\nlimits: {head_time: hunter2, head_size: hunter2}",
        HEAD + "clients: {allow_from: [hunter2], require: hunter2, api_keys: {keys: hunter2}}",
        HEAD + "x: !hunter2 hunter2",
        HEAD + "x: *hunter2",
        HEAD + "x: &hunter2 [*hunter2]",
        HEAD + "x: 'hunter2",
        HEAD + 'x: "\\hunter2"',
        HEAD + "x: a: hunter2",
        HEAD + "x: @hunter2",
        HEAD + "x: !!int hunter2",
        HEAD + "x: !!timestamp hunter2",
    ):
        found = faults_of(tmp_path, text)
        assert found, text
        assert "hunter2" not in "\n".join(found).replace("x.hunter2", "")
