"""Veeam on literal bytes: names to the letter, both credentials each time, times with seven fractional digits."""

from math import inf
from typing import Any

import pytest

from proxy.config import VeeamIdentity
from proxy.errors import TokenError
from proxy.tokens.systems.base import Step
from proxy.tokens.systems.veeam import Veeam
from tests.support.tokens import jwt, replied

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z
CREDENTIALS = "Username=back+up&Password=p%C3%A4ss%261"
DAYS_14 = 14 * 86400
GOOD: dict[str, object] = {
    "access_token": jwt(iat=NOW, exp=NOW + 3600),
    "token_type": "bearer",
    "refresh_token": jwt(iat=NOW, exp=NOW + DAYS_14, aud="auth/refresh/6f"),
    "expires_in": 3600,
    ".issued": "2023-11-14T22:13:20.1234567Z",
    ".expires": "2023-11-14T23:13:20.1234567Z",
    "userId": "u",
    "username": "back up",
    "roleName": "Portal Administrator",
    "userType": "Internal",
    "mfa_enabled": False,
    "shortLived": False,
}


def veeam(**changes: Any) -> Veeam:
    values = {"token_url": "https://10.0.0.5/api/oauth2/token", "username": "back up", "password": "päss&1"}
    return Veeam(VeeamIdentity.model_validate({"system": "veeam"} | values | changes))


def test_the_odd_names_are_kept_to_the_letter() -> None:
    system = veeam()
    login, refresh = system.login(), system.refresh("r=1")
    assert login.body.decode() == f"grant_type=Password&{CREDENTIALS}"
    assert refresh.body.decode() == f"grant_type=Refresh_token&refresh_token=r%3D1&{CREDENTIALS}"
    for request in (login, refresh):
        assert (request.method, request.url) == ("POST", "https://10.0.0.5/api/oauth2/token")
        assert request.headers == (
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Accept", "application/json"),
        )
        assert "päss" not in repr(request)
        assert "r=1" not in repr(request)
    assert system.logout("a", "r") is None


def test_additions_go_with_login_and_refresh_and_replace_nothing() -> None:
    system = veeam(extra={"use_short_term_refresh": "false", "Username": "evil"}, headers={"x-api-version": "1.0"})
    for request in (system.login(), system.refresh("r")):
        assert b"use_short_term_refresh=false&" in request.body
        assert b"evil" not in request.body
        assert request.headers[-1] == ("x-api-version", "1.0")


@pytest.mark.parametrize("step", ["login", "refresh"])
def test_a_good_reply_is_read_whole(step: Step) -> None:
    system = veeam()
    grant = system.read(replied(200, GOOD), system.login(), step, NOW)
    assert (grant.access, grant.refresh) == (GOOD["access_token"], GOOD["refresh_token"])
    assert (grant.lifetime, grant.refresh_lifetime, grant.session_lifetime) == (3600, DAYS_14, None)


# (changes of the reply, lifetime, refresh lifetime)
TIMES: list[tuple[dict[str, object], float, float | None]] = [
    ({"expires_in": None}, 3600, DAYS_14),
    ({"expires_in": None, "access_token": "opaque"}, 3600, DAYS_14),
    ({"expires_in": None, "access_token": "opaque", ".issued": None}, 3600.123456, DAYS_14),
    ({"expires_in": None, "access_token": "opaque", ".issued": "yesterday"}, 3600.123456, DAYS_14),
    (
        {"expires_in": None, "access_token": "opaque", ".expires": "2023-11-14T23:13:20.0000000+00:00"},
        3599.876544,
        DAYS_14,
    ),
    ({"expires_in": None, "access_token": "opaque", ".expires": "2023-11-14T23:13:20.1234567"}, 3600, DAYS_14),
    ({"expires_in": None, "access_token": "opaque", ".expires": None}, inf, DAYS_14),
    ({"expires_in": None, "access_token": "opaque", ".expires": "soon"}, inf, DAYS_14),
    ({"expires_in": None, "access_token": "opaque", ".expires": 7}, inf, DAYS_14),
    ({"refresh_token": "opaque"}, 3600, None),
    ({"refresh_token": jwt(exp=NOW + 1000)}, 3600, 1000),
    ({"refresh_token": None}, 3600, None),
]


@pytest.mark.parametrize(("changes", "lifetime", "refresh"), TIMES)
def test_times_are_had_from_where_there_are_any(
    changes: dict[str, object], lifetime: float, refresh: float | None
) -> None:
    system = veeam()
    body = {name: value for name, value in (GOOD | changes).items() if value is not None}
    grant = system.read(replied(200, body), system.login(), "login", NOW)
    assert grant.lifetime == pytest.approx(lifetime, abs=1e-5)
    assert grant.refresh_lifetime == refresh


# (step, status, body, result, lost, a word that must be in the words): Veeam documents no error words.
REFUSALS: list[tuple[Step, int, bytes, str, bool, str]] = [
    ("login", 200, b'{"mfa_token": "m", "mfa_enabled": true}', "operator", False, "multi-factor"),
    ("login", 200, b'{"mfa_token": "m", "access_token": null}', "operator", False, "multi-factor"),
    ("login", 400, b"", "invalid_credentials", False, "refused the login"),
    ("login", 401, b"", "invalid_credentials", False, "refused the login"),
    ("refresh", 400, b"", "invalid_grant", False, "refresh token"),
    ("refresh", 401, b"", "invalid_grant", False, "refresh token"),
    ("login", 400, b'{"error": "unsupported_grant_type"}', "operator", False, "grant"),
    ("login", 400, b'{"error": "temporarily_unavailable"}', "http_error", True, "failed"),
    ("login", 403, b"", "operator", False, "forbids"),
    ("login", 404, b"", "operator", False, "token_url"),
    ("login", 302, b"", "malformed", False, "redirect"),
    ("login", 429, b"", "rate_limited", False, "rate"),
    ("refresh", 500, b"", "http_error", True, "failed"),
    ("refresh", 503, b"", "http_error", True, "not available"),
    ("login", 200, b'{"access_token": 7}', "malformed", True, "access_token"),
    ("login", 200, b'{"access_token": "a\\r\\nX: 1"}', "malformed", True, "no token may hold"),
    ("login", 200, b"<html>", "malformed", True, "not a JSON object"),
    (
        "login",
        200,
        b'{"access_token": "opaque", ".expires": "2023-11-14T20:13:20.1234567Z"}',
        "malformed",
        True,
        "expired already",
    ),
]


@pytest.mark.parametrize(("step", "status", "body", "result", "lost", "word"), REFUSALS)
def test_a_refusal_is_classified(step: Step, status: int, body: bytes, result: str, lost: bool, word: str) -> None:
    system = veeam()
    request = system.login() if step == "login" else system.refresh("refresh-1")
    with pytest.raises(TokenError) as caught:
        system.read(replied(status, body), request, step, NOW)
    assert (caught.value.result, caught.value.lost) == (result, lost)
    assert word in caught.value.words
