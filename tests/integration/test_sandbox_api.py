"""The sandbox's API from outside: how it judges tokens, what it shows of a request, and its endpoints that stream."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import WSMsgType

from proxy.sandbox import SandboxSettings
from proxy.sandbox.settings import RejectStyle
from tests.support.sandbox import Platform, running


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with running() as platform:
        yield platform


def mark(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:8]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/adm/v1/accounts", 200),
        ("POST", "/adm/v1/devices", 201),
        ("PUT", "/adm/v1/accounts/preHashedPassword/7", 200),
        ("DELETE", "/adm/v1/devices/1", 200),
        ("POST", "/rmg/v1/operator/entitlements", 202),
        ("POST", "/crm-gateway/v1/rmg/v1/entitlements", 202),
        ("POST", "/cag/v1/cas/devices/1/entitlements", 202),
        ("PATCH", "/something/else", 200),
    ],
)
async def test_the_operator_api_answers_each_method_as_the_platform(
    platform: Platform, method: str, path: str, status: int
) -> None:
    token = (await platform.login())["access_token"]
    body = None if method == "GET" else b'{"a":1}'
    answer = await platform.call(token, path, method, data=body, headers={"x-correlation-id": "c-1"})
    assert answer.status == status
    if not path.startswith("/something"):
        assert (answer["requestId"], answer["result"]["bodyBytes"]) == ("c-1", len(body or b""))


async def test_a_token_serves_until_its_second_is_over(platform: Platform) -> None:
    token = (await platform.login())["access_token"]
    platform.clock.time += 300
    assert (await platform.call(token)).status == 200
    platform.clock.time += 1
    assert (await platform.call(token))["result"] == "Access token is expired"
    assert platform.state.counters["api_rejections_expired"] == 1


@pytest.mark.parametrize(
    ("style", "status"), [("401", 401), ("403", 403), ("200", 200)], ids=["as 401", "as 403", "as 200"]
)
async def test_a_bad_token_is_rejected_in_the_configured_style(style: RejectStyle, status: int) -> None:
    async with running(SandboxSettings(reject=style)) as platform:
        answer = await platform.call("not-a-token", headers={"x-correlation-id": "c-2"})
        assert answer.status == status
        if style == "401":
            assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
        else:
            assert answer.body == {
                "resultCode": "99999:403",
                "localeMessage": "none",
                "requestId": "c-2",
                "result": "Access token is invalid",
            }


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([], "missing"),
        (["Basic YTpi"], "scheme"),
        (["Bearer a.b.c"], "signature"),
        (["Bearer a", "Bearer b"], "repeated"),
    ],
)
async def test_a_request_without_one_bearer_token_is_rejected_and_counted(
    platform: Platform, values: list[str], why: str
) -> None:
    answer = await platform.ask("GET", "/adm/v1/devices", headers=[("Authorization", value) for value in values])
    assert (answer.status, platform.state.counters[f"api_rejections_{why}"]) == (403, 1)


async def test_an_unsigned_token_and_a_refresh_token_are_no_access_tokens(platform: Platform) -> None:
    pair = await platform.login()
    header, payload, _ = pair["access_token"].split(".")
    assert (await platform.call(f"{header}.{payload}.")).status == 403
    assert (await platform.call(f"eyJhbGciOiJub25lIn0.{payload}.")).status == 403
    assert (await platform.call(pair["refresh_token"])).status == 403
    assert platform.state.counters["api_rejections_signature"] == 3


async def test_a_token_without_the_operator_role_is_a_403_in_every_style_but_200(platform: Platform) -> None:
    platform.state.users["crm_client_user"].roles = ("offline_access",)
    platform.state.settings.reject = "401"
    token = (await platform.login())["access_token"]
    assert (await platform.call(token))["result"] == "Operation is not permitted"
    platform.state.settings.required_role = ""
    assert (await platform.call(token)).status == 200


async def test_an_api_that_checks_offline_takes_tokens_of_ended_sessions(platform: Platform) -> None:
    token = (await platform.login())["access_token"]
    platform.state.revoke_sessions()
    assert (await platform.call(token))["result"] == "Access token is not active"
    platform.state.settings.check_session = False
    assert (await platform.call(token)).status == 200


async def test_revoking_access_tokens_leaves_the_refresh_token_good(platform: Platform) -> None:
    pair = await platform.login()
    assert platform.state.revoke_access_tokens() == 1
    assert (await platform.call(pair["access_token"])).status == 403
    renewed = await platform.refresh(pair["refresh_token"])
    assert (await platform.call(renewed["access_token"])).status == 200


async def test_the_echo_shows_what_arrived_and_no_credential(platform: Platform) -> None:
    token = (await platform.login())["access_token"]
    headers = {"X-Odd-Case": "1", "X-Api-Key": "secret-key", "Content-Encoding": "gzip"}
    answer = await platform.call(token, "/echo/a%2Fb/?q=%41", "PUT", data=b"not really gzip", headers=headers)
    assert (answer.status, answer["method"], answer["target"]) == (200, "PUT", "/echo/a%2Fb/?q=%41")
    assert answer["body"] == {"bytes": 15, "sha256": hashlib.sha256(b"not really gzip").hexdigest()}
    assert ["Authorization", f"Bearer sha256:{mark(token)}"] in answer["headers"]
    assert ["X-Api-Key", f"sha256:{mark('secret-key')}"] in answer["headers"]
    assert ["X-Odd-Case", "1"] in answer["headers"]
    assert answer["verdict"] == "valid"


async def test_the_echo_answers_without_a_token(platform: Platform) -> None:
    answer = await platform.ask("GET", "/echo")
    assert (answer.status, answer["verdict"]) == (200, "missing")


async def test_state_keeps_the_last_requests_for_tests_to_read(platform: Platform) -> None:
    token = (await platform.login())["access_token"]
    await platform.call(token, "/adm/v1/x?y=1")
    seen = platform.state.received[-1]
    assert (seen.method, seen.target, seen.verdict, seen.fingerprint) == ("GET", "/adm/v1/x?y=1", "valid", mark(token))
    assert token not in repr(seen)


async def test_events_tick_as_they_are_due(platform: Platform) -> None:
    token = (await platform.login())["access_token"]
    url = f"{platform.sandbox.url}/events?count=3&interval_ms=250"
    async with platform.http.get(url, headers={"Authorization": f"Bearer {token}"}) as reply:
        assert reply.content_type == "text/event-stream"
        events = (await reply.text()).strip().split("\n\n")
    assert [event.split("\n")[0] for event in events] == ["id: 1", "id: 2", "id: 3"]
    assert platform.sleeps.asked == [0.25, 0.25]


async def test_a_websocket_echoes_text_and_bytes_to_a_valid_token_only(platform: Platform) -> None:
    token = (await platform.login())["access_token"]
    url = f"{platform.sandbox.url}/ws"
    async with platform.http.ws_connect(url, headers={"Authorization": f"Bearer {token}"}) as socket:
        await socket.send_str("hello")
        await socket.send_bytes(b"\x00\x01")
        assert [(await socket.receive()).data for _ in range(2)] == ["hello", b"\x00\x01"]
        await socket.close()
        assert (await socket.receive()).type is WSMsgType.CLOSED
    assert (await platform.call("bad", "/ws")).status == 403


@pytest.mark.parametrize("size", [0, 1, 65536, 1_000_003])
@pytest.mark.parametrize("chunked", [0, 1])
async def test_bytes_come_in_the_wanted_number(platform: Platform, size: int, chunked: int) -> None:
    token = (await platform.login())["access_token"]
    url = f"{platform.sandbox.url}/bytes/{size}?chunked={chunked}"
    async with platform.http.get(url, headers={"Authorization": f"Bearer {token}"}) as reply:
        assert len(await reply.read()) == size
        assert ("Content-Length" in reply.headers) is not bool(chunked)


async def test_a_slow_answer_takes_its_time(platform: Platform) -> None:
    token = (await platform.login())["access_token"]
    assert (await platform.call(token, "/slow?ms=1500")).status == 200
    assert platform.sleeps.asked == [1.5]


async def test_the_sink_takes_a_body_larger_than_any_buffer(platform: Platform) -> None:
    token = (await platform.login())["access_token"]

    async def body() -> AsyncIterator[bytes]:
        for _ in range(80):
            yield b"x" * 65536

    answer = await platform.call(token, "/sink", "POST", data=body())
    assert answer.body == {"bytes": 80 * 65536, "sha256": hashlib.sha256(b"x" * 80 * 65536).hexdigest()}


@pytest.mark.parametrize("good", [True, False], ids=["good token", "bad token"])
async def test_a_bad_token_is_refused_before_the_body_is_asked_for(platform: Platform, good: bool) -> None:
    token = (await platform.login())["access_token"] if good else "bad"
    reader, writer = await asyncio.open_connection(platform.sandbox.host, platform.sandbox.port)
    head = f"POST /adm/v1/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 5\r\n"
    writer.write(f"{head}Expect: 100-continue\r\n\r\n".encode())
    first = await reader.readline()
    assert first == (b"HTTP/1.1 100 Continue\r\n" if good else b"HTTP/1.1 403 Forbidden\r\n")
    if good:
        writer.write(b"hello")
        assert await reader.readline() == b"\r\n"
        assert await reader.readline() == b"HTTP/1.1 201 Created\r\n"
    writer.close()
    await writer.wait_closed()
