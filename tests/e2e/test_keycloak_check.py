"""``opentv-proxy check`` against the real Keycloak: what its own words become, and what its event list says of us."""

import json
from pathlib import Path
from typing import Any

from tests.support.cli import command, written
from tests.support.keycloak import CLIENT, USER, USER_PASSWORD, Realm
from tests.support.verifying_upstream import VerifyingUpstream


def site(realm: Realm, upstream: VerifyingUpstream, **changes: Any) -> dict[str, Any]:
    opentv: dict[str, Any] = {"system": "keycloak", "token_url": realm.token_url, "client_id": CLIENT, "username": USER}
    opentv |= {"password": USER_PASSWORD, "expect_roles": ["operatorRole"]}
    routes = [{"path": "/", "upstream": upstream.url, "identity": "opentv"}]
    return {"identities": {"opentv": opentv | changes}, "routes": routes}


async def findings(config: dict[str, Any], folder: Path, code: int) -> list[str]:
    ended = await command("check", "--json", "-c", written(config, folder))
    assert ended.code == code, ended.out + ended.err
    return [f"{one['severity']} {one['subject']}: {one['finding']}" for one in json.loads(ended.out)["findings"]]


async def test_check_leaves_one_login_one_refresh_one_logout_and_no_error(
    realm: Realm, upstream: VerifyingUpstream, tmp_path: Path
) -> None:
    found = await findings(site(realm, upstream), tmp_path, code=0)
    assert "ok route /: the upstream takes the token" in found
    assert [event["type"] for event in await realm.events()] == ["LOGIN", "REFRESH_TOKEN", "LOGOUT"]
    assert await realm.sessions() == []


async def test_check_names_what_keycloak_refuses(realm: Realm, upstream: VerifyingUpstream, tmp_path: Path) -> None:
    base = realm.server.url
    situations = {
        "there is no such realm": {"token_url": realm.token_url.replace(realm.name, "nosuch")},
        "there is no token endpoint at this address": {"token_url": realm.token_url.replace(base, base + "/elsewhere")},
        "client nosuch is unknown or disabled in this realm": {"client_id": "nosuch"},
        "the provider does not know the configured scope": {"scope": "nosuch"},
        "the provider refused the user name or the password, or has locked the user for a while": {"password": "wrong"},
    }
    for words, changes in situations.items():
        found = await findings(site(realm, upstream, **changes), tmp_path, code=3)
        assert f"problem identity opentv: {words}" in found, found
    assert await realm.count("LOGIN_ERROR") == 3


async def test_check_tells_a_wrong_path_without_presenting_the_seed(
    realm: Realm, upstream: VerifyingUpstream, tmp_path: Path
) -> None:
    seed = {"grant": "refresh_token", "refresh_token": "opaque-seed-4711", "username": None, "password": None}
    right = await findings(site(realm, upstream, **seed), tmp_path, code=0)
    assert f"ok identity opentv: {realm.token_url} answers" in right
    wrong = site(realm, upstream, **seed, token_url=realm.token_url.replace(realm.name, "nosuch"))
    found = await findings(wrong, tmp_path, code=3)
    assert "problem identity opentv: there is no token endpoint at this address" in found
    assert await realm.events() == []
