"""What a provider's "no" is taken for: on ``error`` first, on known descriptions second, never on the status alone."""

from typing import Any

import pytest

from proxy.config import KeycloakIdentity, OAuth2Identity
from proxy.errors import TokenError
from proxy.tokens.systems.base import Reply, Step
from proxy.tokens.systems.keycloak import Keycloak
from proxy.tokens.systems.oauth2 import OAuth2
from tests.support.tokens import TOKEN_URL, refused, replied

NOW = 1_700_000_000.0
VALUES = {"client_id": "crm_client", "token_url": TOKEN_URL, "username": "user", "password": "hunter2 secret"}


def judged(reply: Reply, step: Step = "login", system: str = "keycloak", **changes: Any) -> TokenError:
    adapter: OAuth2
    if system == "keycloak":
        adapter = Keycloak(KeycloakIdentity.model_validate({"system": system} | VALUES | changes))
    else:
        adapter = OAuth2(OAuth2Identity.model_validate({"system": system} | VALUES | changes))
    request = adapter.login() if step == "login" else adapter.refresh("the-refresh-token")
    with pytest.raises(TokenError) as caught:
        adapter.read(reply, request, step, NOW)
    return caught.value


# (step, status, error, description, result, a word that must be in the words): as Keycloak 26.4.7 answers.
TABLE: list[tuple[Step, int, str, str, str, str]] = [
    ("refresh", 400, "invalid_grant", "Token is not active", "invalid_grant", "refresh token"),
    ("refresh", 400, "invalid_grant", "Session not active", "invalid_grant", "refresh token"),
    ("refresh", 400, "invalid_grant", "Stale token", "invalid_grant", "refresh token"),
    ("refresh", 400, "invalid_grant", "Invalid refresh token", "invalid_grant", "refresh token"),
    ("refresh", 400, "invalid_grant", "Session doesn't have required client", "invalid_grant", "refresh token"),
    ("refresh", 400, "invalid_grant", "Maximum allowed refresh token reuse exceeded", "invalid_grant", "refresh token"),
    ("refresh", 400, "invalid_grant", "Invalid token issuer. Expected 'https://x'", "invalid_grant", "host name"),
    ("refresh", 400, "invalid_grant", "User disabled", "operator", "disabled"),
    ("login", 401, "invalid_grant", "Invalid user credentials", "invalid_credentials", "password"),
    ("login", 400, "invalid_grant", "Something new", "invalid_credentials", "credentials"),
    ("login", 400, "invalid_grant", "Account disabled", "operator", "disabled"),
    ("login", 400, "invalid_grant", "Account is not fully set up", "operator", "required actions"),
    (
        "login",
        400,
        "unauthorized_client",
        "Client not allowed for direct access grants",
        "operator",
        "Direct Access Grants is off for client crm_client",
    ),
    ("login", 401, "invalid_client", "Invalid client or Invalid client credentials", "operator", "crm_client"),
    ("login", 401, "unauthorized_client", "Invalid client or Invalid client credentials", "operator", "secret"),
    ("login", 400, "unauthorized_client", "Unexpected error when authenticating client", "operator", "secret"),
    *(
        ("login", 400, "invalid_client", description, "operator", word)
        for description, word in (
            ("Client authentication with signed JWT failed: Signature on JWT token failed validation", "public half"),
            ("Client authentication with signed JWT failed: Error when loading public keys: x", "Keys tab"),
            ("Unable to load public key", "Keys tab"),
            ("Invalid token audience", "set audience"),
            ("Invalid signature algorithm", "RS256"),
            ("Token was issued in the future", "NTP"),
            ("Token was issued too far in the past to be used now", "NTP"),
            ("Parameter client_assertion_type is missing", "set client_auth private_key_jwt"),
        )
    ),
    ("login", 400, "not_allowed", "Offline tokens not allowed for the user or client", "operator", "offline_access"),
    ("refresh", 401, "unauthorized_client", "Invalid client or Invalid client credentials", "operator", "secret"),
    ("login", 404, "Realm does not exist", "", "operator", "realm"),
    ("login", 403, "access_denied", "Realm not enabled", "operator", "enable"),
    ("login", 403, "invalid_request", "HTTPS required", "operator", "https"),
    ("login", 400, "invalid_scope", "Invalid scopes: x", "operator", "scope"),
    ("login", 400, "unsupported_grant_type", "Unsupported grant_type", "operator", "grant"),
    ("login", 500, "unknown_error", "", "http_error", "failed"),
    ("login", 400, "temporarily_unavailable", "", "http_error", "failed"),
    ("login", 429, "invalid_grant", "Invalid user credentials", "rate_limited", "rate"),
    ("login", 503, "invalid_grant", "Invalid user credentials", "http_error", "not available"),
    ("login", 400, "slow_down", "", "rate_limited", "rate"),
    ("login", 200, "invalid_grant", "Invalid user credentials", "invalid_credentials", "password"),
]


@pytest.mark.parametrize(("step", "status", "error", "description", "result", "word"), TABLE)
def test_a_refusal_is_classified(step: Step, status: int, error: str, description: str, result: str, word: str) -> None:
    found = judged(refused(status, error, description), step)
    assert found.result == result
    assert word in found.words
    assert found.status == status


@pytest.mark.parametrize(
    ("status", "result", "lost"),
    [
        (302, "malformed", False),
        (307, "malformed", False),
        (400, "http_error", True),
        (401, "http_error", True),
        (403, "http_error", True),
        (404, "operator", False),
        (418, "http_error", True),
        (429, "rate_limited", False),
        (500, "http_error", True),
        (502, "http_error", True),
        (503, "http_error", True),
        (204, "http_error", True),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b"[1]", b'{"error": 7}'])
def test_a_reply_that_oauth_does_not_know_is_no_judgement_on_credentials(
    status: int, result: str, lost: bool, body: bytes
) -> None:
    for step in ("login", "refresh"):
        found = judged(replied(status, body), step)
        assert (found.result, found.lost) == (result, lost)


def test_a_503_that_says_when_was_not_carried_out() -> None:
    found = judged(replied(503, retry_after="7"))
    assert (found.retry_after, found.lost) == (7, False)


def test_a_seed_that_is_refused_says_nothing_of_a_password() -> None:
    found = judged(
        refused(400, "invalid_grant", "Token is not active"), grant="refresh_token", refresh_token="seed", password=None
    )
    assert found.result == "invalid_grant"


def test_a_seed_that_came_from_another_address_is_not_called_dead() -> None:
    found = judged(
        refused(400, "invalid_grant", "Invalid token issuer. Expected 'https://x'"),
        grant="refresh_token",
        refresh_token="seed",
        password=None,
    )
    assert found.result == "operator"
    assert "host name" in found.words
    assert "new refresh token" not in found.words


def test_keycloaks_descriptions_are_keycloaks_alone() -> None:
    found = judged(refused(400, "invalid_grant", "Account disabled"), system="oauth2")
    assert found.result == "invalid_credentials"


@pytest.mark.parametrize(
    "description",
    [
        "wrong password: hunter2 secret",
        "wrong password: hunter2+secret",
        "bad token " + "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "line one\r\nSet-Cookie: x",
        "\x1b[31mred\x00",
        "long " * 1000,
    ],
)
def test_a_providers_words_are_cleaned_before_they_are_quoted(description: str) -> None:
    words = judged(refused(401, "invalid_grant", description)).words
    assert "hunter2" not in words
    assert "eyJ" not in words
    assert words.isprintable()
    assert len(words) < 500


def test_a_password_that_a_provider_quotes_in_its_answer_to_a_refresh_is_cut_out_too() -> None:
    identity = KeycloakIdentity.model_validate(
        {"system": "keycloak", "token_url": TOKEN_URL, "client_id": "c", "username": "u", "password": "hunter2 secret"}
    )
    system = Keycloak(identity)
    request = system.refresh("a-refresh-token")
    for quoted in ("no such hunter2 secret", "no such hunter2+secret", "no such aHVudGVyMiBzZWNyZXQ="):
        with pytest.raises(TokenError) as raised:
            system.read(refused(503, "temporarily_unavailable", quoted), request, "refresh", 0.0)
        assert "hunter2" not in raised.value.words
        assert "aHVudGVy" not in raised.value.words
