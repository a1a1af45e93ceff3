"""``opentv-proxy check`` against the real Keycloak: its own refusals, in the words of docs/check.md, and what its event
list says of us."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.test_keycloak_signed import key_pair
from tests.support.checks import Config, Told, answering, client_certificate, document, documented, reply
from tests.support.keycloak import CLIENT, REALM_FILE, USER, USER_PASSWORD, Administrator, KeycloakServer, Realm
from tests.support.verifying_upstream import VerifyingUpstream

pytestmark = pytest.mark.timeout(600)  # the first test on a machine pays for the download and the build

SECRET = "s3cr%t"
CLIENT_CREDENTIALS: dict[str, Any] = {
    "grant": "client_credentials",
    "username": None,
    "password": None,
    "expect_roles": [],
}
WITH_SECRET = {"client_auth": "post", "client_secret": SECRET}
WITH_KEY = {"client_auth": "private_key_jwt", "private_key_file": "key.pem"}
JWT = {"publicClient": False, "clientAuthenticatorType": "client-jwt"}
X509 = {"x509.subjectdn": "(.*?)CN=crm(.*?)", "x509.allow.regex.pattern.comparison": "true"}
BY_TLS = {"token_url": ("{base}", "{tls}")}
FILES = {"cert_file": ".pem", "key_file": ".key"}


def clients(jwks: str) -> list[dict[str, Any]]:
    """The realm's clients, each wrong in its own way but for the first."""
    keys = {"use.jwks.string": "true", "jwks.string": jwks, "token.endpoint.auth.signing.alg": "RS256"}
    made: dict[str, dict[str, Any]] = {
        CLIENT: {},
        "confidential": {"publicClient": False, "secret": SECRET},
        "signing": {**JWT, "attributes": keys},
        "signing-by-es256": {**JWT, "attributes": {**keys, "token.endpoint.auth.signing.alg": "ES256"}},
        "without-key": {**JWT, "attributes": {**keys, "jwks.string": ""}},
        "certified": {"publicClient": False, "clientAuthenticatorType": "client-x509", "attributes": X509},
        "disabled": {"enabled": False},
        "without-grant": {"directAccessGrantsEnabled": False},
    }
    common = {"enabled": True, "publicClient": True, "directAccessGrantsEnabled": True, "standardFlowEnabled": False}
    return [{**common, "clientId": name, **fields} for name, fields in made.items()]


def users() -> list[dict[str, Any]]:
    common = json.loads(REALM_FILE.read_text())["users"][0]
    wrong: dict[str, dict[str, Any]] = {
        USER: {},
        "disabled": {"enabled": False},
        "new": {"requiredActions": ["UPDATE_PASSWORD"]},
        "nameless": {"firstName": "", "lastName": "", "email": ""},
        "online": {"realmRoles": ["operatorRole"]},
    }
    return [{**common, "username": name, "email": f"{name}@example.com", **fields} for name, fields in wrong.items()]


# What an identity says that differs so from a right one.
Changes = Mapping[str, Any]
SET_UP = "the user is not fully set up (an expired or temporary password, a missing name)"
IDENTITIES: list[tuple[str, Changes]] = [
    ("the realm's name is wrong", {"token_url": ("{realm}", "nosuch")}),
    ("the path is wrong, and the realm is found", {"token_url": ("{base}", "{base}/elsewhere")}),
    ("the token URL is another endpoint of the realm", {"token_url": ("/token", "/userinfo")}),
    ("`http://`, and the port has TLS", {"token_url": ("{plain}", "{secure}")}),
    ("an unknown client", {"client_id": "nosuch"}),
    ("an unknown scope", {"scope": "nosuch"}),
    ("offline_access is not allowed", {"scope": "offline_access", "username": "online"}),
    ("the client is public, for client_credentials", CLIENT_CREDENTIALS),
    ("the client is disabled", {"client_id": "disabled"}),
    ("Direct Access Grants is off", {"client_id": "without-grant"}),
    ("no client secret", {"client_id": "confidential"}),
    (
        "a wrong client secret",
        {"client_id": "confidential", "client_auth": "basic", "client_secret": "so%mething else"},
    ),
    ("Service Accounts is off", {"client_id": "confidential", **WITH_SECRET, **CLIENT_CREDENTIALS}),
    ("a key, where the client has a secret", {"client_id": "confidential", **WITH_KEY}),
    ("private_key_jwt: another key", {"client_id": "signing", **WITH_KEY, "private_key_file": "other.pem"}),
    (
        "private_key_jwt: another audience",
        {"client_id": "signing", **WITH_KEY, "audience": "https://elsewhere.example.com"},
    ),
    ("a secret, where the client signs", {"client_id": "signing", **WITH_SECRET}),
    ("private_key_jwt: another algorithm", {"client_id": "signing-by-es256", **WITH_KEY}),
    ("private_key_jwt: Keycloak knows no key", {"client_id": "without-key", **WITH_KEY}),
    (
        "tls: another certificate than the client's",
        {"client_id": "certified", "client_auth": "tls", "tls": "someone", **BY_TLS},
    ),
    (
        "tls: a certificate of an unknown authority",
        {"client_id": "certified", "client_auth": "tls", "tls": "stranger", **BY_TLS},
    ),
    ("tls: the client wants a certificate", {"client_id": "certified", "tls": "none", **BY_TLS}),
    ("the user is disabled", {"username": "disabled"}),
    (SET_UP, {"username": "new"}),
    (SET_UP, {"username": "nameless"}),
    ("a wrong password, or a locked user", {"password": "not the password"}),
]
REALM: list[tuple[str, Changes]] = [
    ("the realm requires HTTPS", {"sslRequired": "all"}),
    ("the realm is disabled", {"sslRequired": "none", "enabled": False}),
]
SITUATIONS = tuple(dict(IDENTITIES + REALM))


def identity(realm: Realm, folder: Path, changes: Changes) -> Config:
    who: dict[str, Any] = {"system": "keycloak", "token_url": realm.token_url, "client_id": CLIENT, "username": USER}
    who |= {"password": USER_PASSWORD, "expect_roles": ["operatorRole"]} | dict(changes)
    if isinstance(who["token_url"], tuple):
        secure = (realm.server.tls_url or "").replace("https:", "http:")
        places = {"realm": realm.name, "base": realm.server.url, "tls": realm.server.tls_url}
        places |= {"plain": realm.server.url, "secure": secure}
        old, new = (part.format(**places) for part in who["token_url"])
        who["token_url"] = realm.token_url.replace(old, new)
    if isinstance(who.get("tls"), str):
        shown = {} if who["tls"] == "none" else {key: f"{who['tls']}{end}" for key, end in FILES.items()}
        who["tls"] = {"ca_file": str(folder / "ca.pem"), **shown}
    return {key: value for key, value in who.items() if value is not None}


async def run(realm: Realm, folder: Path, port: int, every: Sequence[Changes]) -> list[Told]:
    """One run with an identity for each. The rows of the document speak of one client."""
    config = {
        "identities": {f"i{number}": identity(realm, folder, changes) for number, changes in enumerate(every)},
        "routes": [{"path": "/", "upstream": f"http://127.0.0.1:{port}", "identity": None}],
    }
    lines = (await document(config, folder, 3))["findings"]
    found = []
    for number, changes in enumerate(every):
        name = str(changes.get("client_id", CLIENT)).replace("nosuch", CLIENT)
        own = [line for line in lines if line["subject"] == f"identity i{number}"]
        own = [{key: text.replace(f"client {name}", f"client {CLIENT}") for key, text in line.items()} for line in own]
        found.append(Told(own, (0, 0, 0)))
    return found


async def refusals(server: KeycloakServer, folder: Path) -> list[Told]:
    """A realm where much is wrong, in three runs: as it is, then as its own settings are wrong."""
    assert server.ca is not None
    server.ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name, authority in (("someone", server.ca), ("stranger", trustme.CA())):
        client_certificate(folder, name, authority)
    public, _ = key_pair("RS256", folder / "key.pem"), key_pair("RS256", folder / "other.pem")
    async with Administrator(server) as administrator, answering(reply("204 No Content")) as port:
        realm = await administrator.create_realm(clients=clients(public), users=users())
        found = await run(realm, folder, port, [changes for _, changes in IDENTITIES])
        # A wrong password once, and nobody is locked by it; no refresh token was ever presented.
        errors = [event["error"] for event in await realm.events("LOGIN_ERROR")]
        assert errors.count("invalid_user_credentials") == 1
        assert not await realm.locked()
        assert await realm.count("REFRESH_TOKEN", "REFRESH_TOKEN_ERROR") == 0
        for _, changes in REALM:
            await realm.patch(**changes)
            found += await run(realm, folder, port, [{}])
        await realm.delete()
        return found


@pytest.fixture(scope="module")
def refused(keycloak_server: KeycloakServer, tmp_path_factory: pytest.TempPathFactory) -> list[Told]:
    if keycloak_server.ca is None:
        pytest.skip("the server in KEYCLOAK_URL is not ours: its TLS is not known")
    return asyncio.run(refusals(keycloak_server, tmp_path_factory.mktemp("refused")))


@pytest.mark.parametrize(("number", "situation"), list(enumerate(name for name, _ in IDENTITIES + REALM)))
def test_check_says_what_keycloak_refuses(number: int, situation: str, refused: list[Told]) -> None:
    told = refused[number]
    assert told.says(documented()[situation]), told
    assert [line["severity"] for line in told.lines] == ["problem"]


def site(realm: Realm, upstream: VerifyingUpstream, **changes: Any) -> Config:
    routes = [{"path": "/", "upstream": upstream.url, "identity": "opentv"}]
    return {"identities": {"opentv": identity(realm, Path(), changes)}, "routes": routes}


async def findings(config: Config, folder: Path, code: int) -> list[str]:
    return [f"{one['severity']} {one['finding']}" for one in (await document(config, folder, code))["findings"]]


async def test_check_leaves_one_login_one_refresh_one_logout_and_no_error(
    realm: Realm, upstream: VerifyingUpstream, tmp_path: Path
) -> None:
    found = await findings(site(realm, upstream), tmp_path, code=0)
    assert "ok the upstream takes the token" in found
    assert [event["type"] for event in await realm.events()] == ["LOGIN", "REFRESH_TOKEN", "LOGOUT"]
    assert await realm.sessions() == []


async def test_check_never_presents_a_seed_not_even_to_a_realm_it_has_to_look_for(
    realm: Realm, upstream: VerifyingUpstream, tmp_path: Path
) -> None:
    seed = {"grant": "refresh_token", "refresh_token": "opaque-seed-4711", "username": None, "password": None}
    right = await findings(site(realm, upstream, **seed), tmp_path, code=0)
    assert f"ok {realm.token_url} answers" in right
    wrong = await findings(site(realm, upstream, **seed, token_url=("{base}", "{base}/elsewhere")), tmp_path, code=3)
    assert "problem there is no token endpoint at this address" in wrong
    assert await realm.events() == []
