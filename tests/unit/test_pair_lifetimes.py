"""Lifetimes as providers write them: numbers, strings, milliseconds, nothing at all, or only inside the token."""

from math import inf

import pytest

from proxy.errors import TokenError
from proxy.tokens import claims
from proxy.tokens.systems.replies import access_lifetime, http_date, refresh_lifetime, retry_after
from tests.support.tokens import jwt, replied

NOW = 1_700_000_000.0
FOREIGN = NOW - 600  # iat of a provider whose clock is ten minutes behind
FIVE_MINUTES = {"iat": FOREIGN, "exp": FOREIGN + 300}


@pytest.mark.parametrize(
    ("expires_in", "inside", "expected"),
    [
        (300, {}, 300),
        (299.5, {}, 299.5),
        ("300", {}, 300),
        (" 300 ", {}, 300),
        (300_000, FIVE_MINUTES, 300),  # milliseconds: the token says so
        (3_600_000, {}, 3600),  # milliseconds: nobody issues opaque tokens for 41 days
        (86_400, {}, 86_400),
        (100, FIVE_MINUTES, 100),  # a reply may promise less
        (None, FIVE_MINUTES, 300),
        (0, FIVE_MINUTES, 300),
        ("0", FIVE_MINUTES, 300),
        ("soon", FIVE_MINUTES, 300),
        (-1, FIVE_MINUTES, 300),
        (None, {"iat": FOREIGN * 1000, "exp": (FOREIGN + 300) * 1000}, 300),  # AGS: NumericDates in milliseconds
        (None, {"exp": NOW + 42}, 42),  # AGS: no iat
        (None, {}, inf),
        (0, {}, inf),
        (10**400, FIVE_MINUTES, 300),
        (1e300, {}, 10 * 365 * 86400),
        (True, FIVE_MINUTES, 300),
    ],
)
def test_the_access_lifetime_is_understood(expires_in: object, inside: dict[str, object], expected: float) -> None:
    assert access_lifetime(expires_in, inside, NOW) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("expires_in", "inside"),
    [
        (-1, {}),
        ("soon", {}),
        ([300], {}),
        ({}, {}),
        (True, {}),
        (float("nan"), {}),
        (0, {"iat": NOW, "exp": NOW}),  # Keycloak at the last moment of a session
        (None, {"exp": NOW - 1}),
        (None, {"iat": NOW, "exp": NOW - 5}),
    ],
)
def test_a_lifetime_that_is_none_is_refused(expires_in: object, inside: dict[str, object]) -> None:
    with pytest.raises(TokenError) as caught:
        access_lifetime(expires_in, inside, NOW)
    assert caught.value.result == "malformed"


def test_a_token_cut_to_whole_seconds_lives_as_much_shorter_where_the_clocks_agree() -> None:
    inside = {"iat": NOW, "exp": NOW + 6}
    assert access_lifetime(6, inside, NOW + 0.9) == pytest.approx(5.1)
    assert access_lifetime(6, inside, NOW + 600) == 6
    assert access_lifetime(6, inside, NOW - 600) == 6


@pytest.mark.parametrize(
    ("expires_in", "token", "expected"),
    [
        (1800, None, 1800),
        ("1800", None, 1800),
        (0, "opaque", inf),  # an offline session (K2)
        (None, None, None),
        (None, "opaque", None),
        (None, jwt(iat=FOREIGN, exp=FOREIGN + 14 * 86400), 14 * 86400),  # Veeam: only in the token
        (None, jwt(exp=NOW + 14 * 86400), 14 * 86400),
        (1_800_000, jwt(iat=FOREIGN, exp=FOREIGN + 1800), 1800),
        (2_592_000, None, 2_592_000),  # a month is usual here
        ("never", None, None),
    ],
)
def test_the_refresh_lifetime_is_understood(expires_in: object, token: str | None, expected: float | None) -> None:
    assert refresh_lifetime(expires_in, token, NOW) == expected


@pytest.mark.parametrize(
    "token",
    ["", "opaque", "a.b", "a.b.c", "a.!!.c", "a.bnVsbA.c", "a.W10.c", "é.é.é", "a." + "A" * 70_000 + ".c", "....."],
)
def test_whatever_is_no_jwt_has_no_claims(token: str) -> None:
    assert claims.decode(token) == {}


def test_a_deeply_nested_payload_has_no_claims() -> None:
    import base64

    bomb = base64.urlsafe_b64encode(b"[" * 40_000).decode()
    assert claims.decode(f"a.{bomb}.c") == {}


def test_unset_dates_and_odd_claims_are_not_known() -> None:
    assert claims.moment({"nbf": 0}, "nbf") is None
    assert claims.moment({"exp": "later"}, "exp") is None
    assert claims.lifetime({"iat": 1}) is None


def test_roles_are_found_wherever_a_token_names_them() -> None:
    inside = {
        "realm_access": {"roles": ["operatorRole", 7]},
        "resource_access": {"crm": {"roles": ["view"]}, "odd": 1},
        "roles": ["plain"],
    }
    assert claims.roles(inside) == {"operatorRole", "view", "plain"}
    assert claims.roles({"realm_access": "x", "resource_access": [], "roles": "y"}) == frozenset()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": " 0 "}, 0.0),
        ({"retry_after": "Tue, 14 Nov 2023 22:14:20 GMT"}, 60.0),
        ({"retry_after": "Tue, 14 Nov 2023 22:14:20 GMT", "date": "Tue, 14 Nov 2023 22:14:00 GMT"}, 20.0),
        ({"retry_after": "Tue, 14 Nov 2000 22:14:20 GMT"}, 0.0),
        ({"retry_after": "-5"}, None),
        ({"retry_after": "²"}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "9" * 4000}, 999_999_999.0),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after(replied(503, **headers), NOW) == expected


@pytest.mark.parametrize("value", ["", "x", "Tue, 99 Nov 2023 22:14:20 GMT", "Tue, 14 Nov 99999 00:00:00 GMT"])
def test_a_broken_date_is_none(value: str) -> None:
    assert http_date(value) is None
