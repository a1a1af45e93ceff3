"""The adapters: which bytes go out, and what a good reply is read as."""

from base64 import b64decode
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import pytest

from proxy.config import KeycloakIdentity, OAuth2Identity
from proxy.errors import SecretError, TokenError
from proxy.tokens.systems.base import TokenRequest
from proxy.tokens.systems.keycloak import Keycloak
from proxy.tokens.systems.oauth2 import OAuth2
from tests.support.tokens import TOKEN_URL, jwt, replied

NOW = 1_700_000_000.0
GOOD: dict[str, object] = {"access_token": jwt(iat=NOW - 600, exp=NOW - 300), "token_type": "bearer", "expires_in": 300}


def keycloak(**changes: Any) -> Keycloak:
    values = {"username": "user", "password": "pass word&=+%ü", "client_id": "crm", "token_url": TOKEN_URL}
    return Keycloak(KeycloakIdentity.model_validate({"system": "keycloak"} | values | changes))


def oauth2(**changes: Any) -> OAuth2:
    values = {"client_id": "crm", "token_url": "https://as.example.com/token", "grant": "client_credentials"}
    return OAuth2(OAuth2Identity.model_validate({"system": "oauth2"} | values | changes))


def form(request: TokenRequest) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode("ascii"), strict_parsing=True))


def test_a_password_login_is_the_form_of_rfc_6749() -> None:
    request = keycloak(scope="openid profile").login()
    assert (request.method, request.url) == ("POST", TOKEN_URL)
    assert dict(request.headers)["Content-Type"] == "application/x-www-form-urlencoded"
    assert form(request) == {
        "grant_type": "password",
        "username": "user",
        "password": "pass word&=+%ü",
        "client_id": "crm",
        "scope": "openid profile",
    }


def test_a_refresh_asks_for_no_scope() -> None:
    request = keycloak(scope="openid").refresh("r-1")
    assert form(request) == {"grant_type": "refresh_token", "refresh_token": "r-1", "client_id": "crm"}


def test_a_seed_is_a_login_by_refresh_token(tmp_path: Path) -> None:
    file = tmp_path / "refresh-token.txt"
    file.write_text("seed-1\r\n")
    system = keycloak(grant="refresh_token", refresh_token_file=str(file), scope="offline_access")
    assert system.seed == str(file)
    assert form(system.login()) == {
        "grant_type": "refresh_token",
        "refresh_token": "seed-1",
        "client_id": "crm",
        "scope": "offline_access",
    }
    file.write_text("seed-2")
    assert form(system.login())["refresh_token"] == "seed-2"


def test_client_credentials_send_no_user() -> None:
    request = oauth2(client_auth="post", client_secret="s").login()
    assert form(request) == {"grant_type": "client_credentials", "client_id": "crm", "client_secret": "s"}


def test_basic_client_authentication_encodes_the_form_before_base64() -> None:
    request = oauth2(client_auth="basic", client_id="a b", client_secret="50%+:ü").login()
    scheme, _, value = dict(request.headers)["Authorization"].partition(" ")
    name, _, secret = b64decode(value).decode("ascii").partition(":")
    assert (scheme, unquote_plus(name), unquote_plus(secret)) == ("Basic", "a b", "50%+:ü")
    assert ("%" in secret, ":" in secret) == (True, False)
    assert form(request) == {"grant_type": "client_credentials"}


def test_additions_go_with_login_and_refresh_and_replace_nothing() -> None:
    system = oauth2(extra={"resource": "x", "grant_type": "evil"}, headers={"X-Site": "7"})
    for request in (system.login(), system.refresh("r")):
        assert form(request)["resource"] == "x"
        assert form(request)["grant_type"] != "evil"
        assert ("X-Site", "7") in request.headers


def test_secrets_are_read_at_each_use(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    system = keycloak(password=None, password_file=str(file))
    assert form(system.login())["password"] == "old"
    file.write_text("new")
    assert form(system.login())["password"] == "new"
    file.unlink()
    with pytest.raises(SecretError, match="does not exist"):
        system.login()


def test_keycloaks_logout_is_beside_its_token_endpoint() -> None:
    request = keycloak(client_auth="post", client_secret="s").logout("a", "r")
    assert request is not None
    assert request.url == TOKEN_URL.removesuffix("token") + "logout"
    assert form(request) == {"client_id": "crm", "client_secret": "s", "refresh_token": "r"}
    assert keycloak(token_url="https://idp.example.com/elsewhere").logout("a", "r") is None
    assert oauth2().logout("a", "r") is None


def test_a_request_shows_no_secret() -> None:
    request = keycloak(client_auth="basic", client_secret="hush").login()
    assert "hush" not in repr(request)
    assert "pass" not in repr(request)


def test_a_good_reply_is_read_whole() -> None:
    extra = {"refresh_token": "r", "refresh_expires_in": 1800, "not-before-policy": 5, "scope": "profile"}
    system = keycloak()
    grant = system.read(replied(200, GOOD | extra), system.login(), "login", NOW)
    assert (grant.access, grant.refresh, grant.lifetime, grant.refresh_lifetime) == (
        GOOD["access_token"],
        "r",
        300,
        1800,
    )
    assert (grant.issued_at, grant.not_before, grant.scope, grant.roles) == (NOW - 600, 5, "profile", frozenset())


def test_the_zero_of_a_client_credentials_reply_is_no_expired_refresh_token() -> None:
    system = oauth2()
    grant = system.read(replied(200, GOOD | {"refresh_expires_in": 0}), system.login(), "login", NOW)
    assert (grant.refresh, grant.refresh_lifetime) == (None, inf)


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER"])
def test_bearer_is_meant_whatever_its_case(kind: str) -> None:
    system = oauth2()
    assert system.read(replied(200, GOOD | {"token_type": kind}), system.login(), "login", NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"access_token": None},
        {"access_token": ""},
        {"access_token": 7},
        {"access_token": ["x"]},
        {"access_token": "a\r\nX-Evil: 1"},
        {"access_token": "a b"},
        {"access_token": "a\tb"},
        {"access_token": "a\x00b"},
        {"access_token": "a\x7fb"},
        {"access_token": "tokén"},
        {"access_token": "x" * 40_000},
        {"refresh_token": ""},
        {"refresh_token": 7},
        {"refresh_token": "a\nb"},
        {"token_type": "mac"},
        {"token_type": "DPoP"},
        {"token_type": None},
        {"token_type": 1},
        {"expires_in": "soon", "access_token": "opaque"},
        {"expires_in": -1, "access_token": "opaque"},
    ],
    ids=repr,
)
def test_a_reply_that_could_harm_is_refused_in_words(changes: dict[str, object]) -> None:
    system = oauth2()
    with pytest.raises(TokenError) as caught:
        system.read(replied(200, GOOD | changes), system.login(), "login", NOW)
    assert (caught.value.result, caught.value.lost) == ("malformed", True)
    assert "the token endpoint's reply cannot be used: " in caught.value.words
    assert "Evil" not in caught.value.words


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"null",
        b"7",
        b'"token"',
        b"[]",
        b"{}",
        b'{"access_token": "x"',
        b"<html>maintenance</html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"access_token":' + b"1" * 5000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_that_is_no_grant_is_refused_in_words(body: bytes) -> None:
    system = oauth2()
    with pytest.raises(TokenError) as caught:
        system.read(replied(200, body), system.login(), "login", NOW)
    assert (caught.value.result, caught.value.lost) == ("malformed", True)
