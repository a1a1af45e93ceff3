"""AGS on literal bytes: which go out, what a reply is read as, what a bare status is taken for."""

import json
from typing import Any

import pytest

from proxy.config import AgsIdentity
from proxy.errors import TokenError
from proxy.tokens.systems.ags import Ags, Service, services
from proxy.tokens.systems.base import Step
from tests.support.tokens import jwt, replied

NOW = 1_700_000_000.0
DAVE = '{"parameters":[{"name":"username","value":"dave"},{"name":"password","value":"p\\u00e4ss \\"1\\""}]'
TOKEN = jwt(exp=NOW + 3600, fixed_exp=NOW + 2592000)
GOOD: dict[str, object] = {
    "access_token": TOKEN,
    "refresh_token": "refresh-1",
    "client_id": "device-7",
    "accountId": "account_123",
    "token_type": "bearer",
    "expires_in": 3600,
    "refresh_expires_in": 172800,
    "fixed_refresh_expires_in": 2592000,
}


def ags(**changes: Any) -> Ags:
    values = {
        "system": "ags",
        "base_url": "https://ags.example.com/ags/",
        "auth_service_id": "Customer Auth Service",
        "tenant_id": "nagra",
        "sign_on": [{"name": "username", "value": "dave"}, {"name": "password", "value": 'päss "1"'}],
        "refresh_parameters": [{"name": "username", "value": "dave"}],
    }
    return Ags(AgsIdentity.model_validate(values | changes))


@pytest.mark.parametrize(
    ("device", "client_id", "body"),
    [
        ({}, None, DAVE + "}"),
        ({"model": "x", "screens": [1]}, None, DAVE + ',"deviceInformation":{"model":"x","screens":[1]}}'),
        ({"model": "x"}, "device-7", DAVE + ',"clientId":"device-7"}'),
        ({}, "device-7", DAVE + ',"clientId":"device-7"}'),
    ],
)
def test_a_sign_on_introduces_the_device_once_and_later_names_it(
    device: dict[str, object], client_id: str | None, body: str
) -> None:
    request = ags(device=device).login(client_id)
    assert (request.method, request.url) == ("POST", "https://ags.example.com/ags/signOn")
    assert request.headers == (
        ("x-auth-service-id", "Customer Auth Service"),
        ("nv-tenant-id", "nagra"),
        ("Accept", "application/json"),
        ("Content-Type", "application/json"),
    )
    assert request.body == body.encode()


def test_a_refresh_shows_the_bare_token_and_the_sites_parameters() -> None:
    request = ags(headers={"X-Site": "7"}).refresh("refresh-1")
    assert (request.method, request.url) == ("POST", "https://ags.example.com/ags/refresh")
    assert request.headers[-2:] == (("Authorization", "refresh-1"), ("X-Site", "7"))
    assert ("x-auth-service-id", "Customer Auth Service") in request.headers
    assert request.body == b'{"parameters":[{"name":"username","value":"dave"}]}'
    assert ags(refresh_parameters=[]).refresh("r").body == b'{"parameters":[]}'


def test_a_sign_out_shows_the_bare_access_token() -> None:
    request = ags().logout("access-1", "refresh-1")
    assert request is not None
    assert (request.method, request.url) == ("POST", "https://ags.example.com/ags/signOut")
    assert request.headers[-1] == ("Authorization", "access-1")
    assert request.body == b""


def test_no_secret_shows() -> None:
    system = ags()
    for request in (system.login(), system.refresh("refresh-1")):
        assert "refresh-1" not in repr(request)
        assert "päss" not in repr(request)


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("step", ["login", "refresh"])
def test_a_good_reply_is_read_whole(status: int, step: Step) -> None:
    system = ags()
    grant = system.read(replied(status, GOOD), system.login(), step, NOW)
    assert (grant.access, grant.refresh, grant.client_id) == (TOKEN, "refresh-1", "device-7")
    assert (grant.lifetime, grant.refresh_lifetime, grant.session_lifetime) == (3600, 172800, 2592000)


# (changes of the reply, claims of its token, lifetime, refresh lifetime, session lifetime)
TIMES: list[tuple[dict[str, object], dict[str, object], float, float | None, float | None]] = [
    ({}, {"exp": (NOW + 3600) * 1000, "fixed_exp": (NOW + 2592000) * 1000}, 3600, 172800, 2592000),
    ({"expires_in": None}, {"exp": (NOW + 3600) * 1000}, 3600, 172800, 2592000),
    ({"expires_in": None}, {"exp": NOW + 1800}, 1800, 172800, 2592000),
    ({"expires_in": "3600", "refresh_expires_in": "172800"}, {}, 3600, 172800, 2592000),
    ({"expires_in": 3600000, "refresh_expires_in": 172800000}, {}, 3600, 172800, 2592000),
    ({"fixed_refresh_expires_in": 2592000000}, {}, 3600, 172800, 2592000),
    ({"fixed_refresh_expires_in": None}, {"exp": NOW + 3600, "fixed_exp": NOW + 7200}, 3600, 172800, 7200),
    ({"fixed_refresh_expires_in": None}, {"fixed_exp": NOW + 7200}, 3600, 172800, 7200),
    # The whole length told each time; the token knows better, on its own clock, which is ten minutes ahead of ours.
    ({}, {"exp": NOW + 4200, "fixed_exp": NOW + 7800}, 3600, 172800, 7200),
    ({"fixed_refresh_expires_in": 5000}, {"exp": NOW + 3600, "fixed_exp": NOW + 7200}, 3600, 172800, 5000),
    ({"fixed_refresh_expires_in": None}, {}, 3600, 172800, None),
    ({"fixed_refresh_expires_in": 0, "refresh_expires_in": None}, {}, 3600, None, None),
    ({"fixed_refresh_expires_in": "soon"}, {}, 3600, 172800, None),
]


@pytest.mark.parametrize(("changes", "inside", "lifetime", "refresh", "session"), TIMES)
def test_times_are_understood_in_seconds_and_milliseconds(
    changes: dict[str, object],
    inside: dict[str, object],
    lifetime: float,
    refresh: float | None,
    session: float | None,
) -> None:
    fields = GOOD | {"access_token": jwt(**inside) if inside else "opaque"} | changes
    body = {name: value for name, value in fields.items() if value is not None}
    system = ags()
    grant = system.read(replied(201, body), system.login(), "login", NOW)
    assert (grant.lifetime, grant.refresh_lifetime, grant.session_lifetime) == (lifetime, refresh, session)


@pytest.mark.parametrize("client_id", [None, 7, "", "x" * 5000, ["x"]])
def test_a_client_id_that_is_none_is_left_alone(client_id: object) -> None:
    system = ags()
    assert system.read(replied(201, GOOD | {"client_id": client_id}), system.login(), "login", NOW).client_id is None


# (step, status, body, result, lost, a word that must be in the words): AGS documents no error words.
REFUSALS: list[tuple[Step, int, bytes, str, bool, str]] = [
    (
        "login",
        300,
        b'{"userAccountToken": "u", "accounts": [{"accountId": "a"}]}',
        "operator",
        False,
        "several accounts",
    ),
    ("login", 200, b'{"userAccountToken": "u", "accounts": []}', "operator", False, "several accounts"),
    ("login", 400, b"", "invalid_credentials", False, "refused the login"),
    ("login", 401, b"", "invalid_credentials", False, "refused the login"),
    ("login", 403, b"", "operator", False, "forbids"),
    ("login", 404, b"", "operator", False, "auth_service_id"),
    ("refresh", 400, b"", "invalid_grant", False, "refresh token"),
    ("refresh", 401, b'{"message": "no"}', "invalid_grant", False, "refresh token"),
    ("refresh", 403, b"", "operator", False, "forbids"),
    ("refresh", 300, b"", "operator", False, "several accounts"),
    ("login", 302, b"", "malformed", False, "base_url"),
    ("login", 429, b"", "rate_limited", False, "rate"),
    ("login", 500, b"<html>", "http_error", True, "failed"),
    ("login", 502, b"", "http_error", True, "failed"),
    ("refresh", 503, b"", "http_error", True, "not available"),
    ("login", 418, b"", "http_error", True, "no answer"),
    ("login", 200, b"<html>", "malformed", True, "not a JSON object"),
    ("login", 201, b"", "malformed", True, "empty"),
    ("login", 201, b"null", "malformed", True, "not a JSON object"),
    ("refresh", 200, b"{}", "malformed", True, "access_token"),
]


@pytest.mark.parametrize(("step", "status", "body", "result", "lost", "word"), REFUSALS)
def test_a_refusal_is_classified(step: Step, status: int, body: bytes, result: str, lost: bool, word: str) -> None:
    system = ags()
    request = system.login() if step == "login" else system.refresh("refresh-1")
    with pytest.raises(TokenError) as caught:
        system.read(replied(status, body), request, step, NOW)
    assert (caught.value.result, caught.value.lost) == (result, lost)
    assert word in caught.value.words


@pytest.mark.parametrize("status", [403, 404])
def test_a_device_that_ags_forgot_is_introduced_anew(status: int) -> None:
    system = ags(device={"model": "x"})
    with pytest.raises(TokenError, match="forgotten this device") as caught:
        system.read(replied(status), system.login("device-7"), "login", NOW)
    assert caught.value.result == "invalid_grant"


def test_service_discovery_lists_services_with_their_mandatory_parameters() -> None:
    request = ags().discovery()
    assert (request.method, request.url, request.body) == ("GET", "https://ags.example.com/ags/servicediscovery", b"")
    assert request.headers[0] == ("nv-tenant-id", "nagra")
    properties = [
        {"name": "username", "mandatory": True, "isPassword": False},
        {"name": "password", "mandatory": True, "isPassword": True},
        {"name": "otp", "mandatory": False},
        "nonsense",
    ]
    endpoints = [
        {"name": "SIGNON", "path": "/signOn", "parameterProperties": properties},
        {"name": "REFRESH", "path": "/refresh", "parameterProperties": properties},
        {"name": "SIGNON", "parameterProperties": None},
    ]
    listed = [{"authServiceName": "sso 1", "endpoints": endpoints}, {"authServiceName": "bare"}, {"x": 1}, None]
    found = services(replied(200, {"availableServices": listed}))
    assert found == [Service("sso 1", ("username", "password")), Service("bare", ())]
    assert services(replied(404)) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"availableServices": 7}', b"<html>"])
def test_a_discovery_of_another_shape_is_refused_in_words(body: bytes) -> None:
    with pytest.raises(TokenError, match="availableServices"):
        services(replied(200, body))


def test_the_binding_knows_the_account_and_not_the_password() -> None:
    def binding(user: str, password: str, **changes: Any) -> tuple[str | None, ...]:
        values = {"system": "ags", "base_url": "https://h/ags", "auth_service_id": "s", "tenant_id": "t"} | changes
        sign_on = [{"name": "username", "value": user}, {"name": "password", "value": password}]
        return AgsIdentity.model_validate(values | {"sign_on": sign_on}).binding

    assert binding("dave", "a") == binding("dave", "b")
    assert binding("dave", "a") != binding("eve", "a")
    assert binding("dave", "a") != binding("dave", "a", tenant_id="other")
    assert "a" not in json.dumps(binding("x", "a")[3:])[10:].replace("username", "").replace("password", "")
