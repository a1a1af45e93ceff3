"""``opentv-proxy check`` against the real Keycloak: its own refusals, in the words of docs/check.md, and what its event
list says of us."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.test_keycloak_signed import key_pair
from tests.support.checks import Config, Told, answering, client_certificate, document, documented, reply
from tests.support.keycloak import CLIENT, USER, USER_PASSWORD, Administrator, KeycloakServer, Realm
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
X509 = {
    "publicClient": False,
    "clientAuthenticatorType": "client-x509",
    "attributes": {"x509.subjectdn": "(.*?)CN=crm(.*?)", "x509.allow.regex.pattern.comparison": "true"},
}

# What is changed at the realm, its client and its user, and what identities then say that differ so from a right one.
Changes = Mapping[str, Any]
PUBLIC: dict[str, Changes] = {
    "the realm's name is wrong": {"token_url": ("{realm}", "nosuch")},
    "the path is wrong, and the realm is found": {"token_url": ("{base}", "{base}/elsewhere")},
    "the token URL is another endpoint of the realm": {"token_url": ("/token", "/userinfo")},
    "`http://`, and the port has TLS": {"token_url": ("{plain}", "{secure}")},
    "an unknown client": {"client_id": "nosuch"},
    "an unknown scope": {"scope": "nosuch"},
    "the client is public, for client_credentials": CLIENT_CREDENTIALS,
    "a wrong password, or a locked user": {"password": "wrong"},
}
CONFIDENTIAL: dict[str, Changes] = {
    "no client secret": {},
    "a wrong client secret": {"client_auth": "basic", "client_secret": "so%mething else"},
    "Service Accounts is off": WITH_SECRET | CLIENT_CREDENTIALS,
    "a key, where the client has a secret": WITH_KEY,
}
SIGNING: dict[str, Changes] = {
    "private_key_jwt: another key": WITH_KEY | {"private_key_file": "other.pem"},
    "private_key_jwt: another audience": WITH_KEY | {"audience": "https://elsewhere.example.com"},
    "a secret, where the client signs": WITH_SECRET,
}
CERTIFIED: dict[str, Changes] = {
    "tls: another certificate than the client's": {
        "client_auth": "tls",
        "tls": "someone",
        "token_url": ("{base}", "{tls}"),
    },
    "tls: a certificate of an unknown authority": {
        "client_auth": "tls",
        "tls": "stranger",
        "token_url": ("{base}", "{tls}"),
    },
    "tls: the client wants a certificate": {"tls": "none", "token_url": ("{base}", "{tls}")},
}
STATES: dict[str, tuple[dict[str, Changes], dict[str, Changes]]] = {
    "realm": ({}, PUBLIC),
    "secret": ({"client": {"publicClient": False, "secret": SECRET}}, CONFIDENTIAL),
    "key": ({"client": {"publicClient": False, "clientAuthenticatorType": "client-jwt"}}, SIGNING),
    "another algorithm": (
        {"client": {"attributes": {"token.endpoint.auth.signing.alg": "ES256"}}},
        {"private_key_jwt: another algorithm": WITH_KEY},
    ),
    "no key": (
        {"client": {"attributes": {"token.endpoint.auth.signing.alg": "RS256", "jwks.string": ""}}},
        {"private_key_jwt: Keycloak knows no key": WITH_KEY},
    ),
    "certificate": ({"client": X509}, CERTIFIED),
    "disabled": (
        {"client": {"publicClient": True, "clientAuthenticatorType": "client-secret", "enabled": False}},
        {"the client is disabled": {}},
    ),
    "no grant": (
        {"client": {"enabled": True, "directAccessGrantsEnabled": False}},
        {"Direct Access Grants is off": {}},
    ),
    "disabled user": (
        {"client": {"directAccessGrantsEnabled": True}, "user": {"enabled": False}},
        {"the user is disabled": {}},
    ),
    "required action": (
        {"user": {"enabled": True, "requiredActions": ["UPDATE_PASSWORD"]}},
        {"the user is not fully set up (an expired or temporary password, a missing name)": {}},
    ),
    "HTTPS": ({"user": {"requiredActions": []}, "realm": {"sslRequired": "all"}}, {"the realm requires HTTPS": {}}),
    "disabled realm": ({"realm": {"sslRequired": "none", "enabled": False}}, {"the realm is disabled": {}}),
}
EVERY = {name: changes for _, identities in STATES.values() for name, changes in identities.items()}
SITUATIONS = tuple(EVERY)


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


FILES = {"cert_file": ".pem", "key_file": ".key"}


async def refusals(server: KeycloakServer, folder: Path) -> AsyncGenerator[tuple[str, Told], None]:
    """One realm, changed from state to state, and one run in each with all its identities."""
    assert server.ca is not None
    server.ca.cert_pem.write_to_path(str(folder / "ca.pem"))
    for name, authority in (("someone", server.ca), ("stranger", trustme.CA())):
        client_certificate(folder, name, authority)
    public, _ = key_pair("RS256", folder / "key.pem"), key_pair("RS256", folder / "other.pem")
    keys = {"use.jwks.string": "true", "jwks.string": public, "token.endpoint.auth.signing.alg": "RS256"}
    async with Administrator(server) as administrator, answering(reply("204 No Content")) as port:
        realm = await administrator.create_realm(accessTokenLifespan=300)
        for state, (changes, identities) in STATES.items():
            client = {**changes.get("client", {})}
            if state == "key":
                client["attributes"] = keys
            if client:
                await realm.patch_client(**client)
            if "user" in changes:
                await realm.patch_user(**changes["user"])
            if "realm" in changes:
                await realm.patch(**changes["realm"])
            names = {name: f"i{number}" for number, name in enumerate(identities)}
            config = {
                "identities": {names[name]: identity(realm, folder, identities[name]) for name in identities},
                "routes": [{"path": "/", "upstream": f"http://127.0.0.1:{port}", "identity": None}],
            }
            lines = (await document(config, folder, 3))["findings"]
            for name, short in names.items():
                yield name, Told([line for line in lines if line["subject"] == f"identity {short}"], (0, 0, 0))
        assert await administrator.call("GET", f"/{realm.name}/events?type=REFRESH_TOKEN_ERROR") == []
        await realm.delete()


@pytest.fixture(scope="module")
def refused(keycloak_server: KeycloakServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    if keycloak_server.ca is None:
        pytest.skip("the server in KEYCLOAK_URL is not ours: its TLS is not known")

    async def run() -> dict[str, Told]:
        async with contextlib.aclosing(refusals(keycloak_server, tmp_path_factory.mktemp("refused"))) as found:
            return {name: told async for name, told in found}

    return asyncio.run(run())


@pytest.mark.parametrize("situation", EVERY)
def test_check_says_what_keycloak_refuses(situation: str, refused: dict[str, Told]) -> None:
    told = refused[situation]
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
