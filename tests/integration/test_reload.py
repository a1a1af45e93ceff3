"""SIGHUP and files that change: what a running gateway takes over, what it refuses, and what it never loses."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
import yaml
from prometheus_client.parser import text_string_to_metric_families

from proxy.sandbox import Sandbox, SandboxSettings
from tests.support.gateway import Gateway, running_gateway, start_gateway, until
from tests.support.rawclient import dial

PORTS = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"}
Samples = dict[str, float]


class Site:
    """A sandbox and a gateway in front of it. config: what stands in the gateway's file."""

    def __init__(self, sandbox: Sandbox, gateway: Gateway, http: aiohttp.ClientSession, config: dict[str, Any]) -> None:
        self.sandbox, self.gateway, self.http, self.config = sandbox, gateway, http, config

    async def reload(self, config: dict[str, Any] | str) -> list[dict[str, Any]]:
        """Write it, send SIGHUP, wait until the gateway has said what came of it; what it said."""
        begun = len(self.gateway.log)
        if isinstance(config, dict):
            self.config, config = config, yaml.safe_dump(PORTS | config)
        self.gateway.config_file.write_text(config)
        self.gateway.hup()

        def said() -> bool:
            events = self.gateway.records[begun:]
            return any(each["event"] == "reloaded" or each.get("words", "").endswith("send SIGHUP") for each in events)

        await until(said, 10, f"the end of a reload, but:\n{self.gateway.words()}")
        return [each for each in self.gateway.records[begun:] if each["logger"] == "proxy.server"]

    async def get(self, path: str = "/adm/v1/x", **how: Any) -> int:
        async with self.http.get(self.gateway.url + path, **how) as answer:
            await answer.read()
            return answer.status

    async def status(self) -> Any:
        async with self.http.get(f"{self.gateway.admin_url}/status") as answer:
            return await answer.json()

    async def samples(self) -> Samples:
        async with self.http.get(f"{self.gateway.admin_url}/metrics") as answer:
            families = text_string_to_metric_families(await answer.text())
        return {_key(each.name, each.labels): each.value for family in families for each in family.samples}

    async def sample(self, name: str, **labels: str) -> float | None:
        return (await self.samples()).get(_key(f"opentv_proxy_{name}", labels))


def _key(name: str, labels: dict[str, str]) -> str:
    return f"{name}{sorted(labels.items())}"


def identity(sandbox: Sandbox, **changes: Any) -> dict[str, Any]:
    return {
        "system": "keycloak",
        "token_url": sandbox.token_url,
        "client_id": sandbox.client_id,
        "username": sandbox.username,
        "password": sandbox.password,
    } | changes


def signed(sandbox: Sandbox, path: str = "/", name: str = "opentv") -> dict[str, Any]:
    return {"path": path, "upstream": sandbox.url, "identity": name}


def one(sandbox: Sandbox, **changes: Any) -> dict[str, Any]:
    return {"identities": {"opentv": identity(sandbox, **changes)}, "routes": [signed(sandbox)]}


def two(sandbox: Sandbox) -> dict[str, Any]:
    second = identity(sandbox, client_id="ua-grant")
    routes = [signed(sandbox), signed(sandbox, "/rmg", "second")]
    return {"identities": {"opentv": identity(sandbox), "second": second}, "routes": routes}


OpenSite = Callable[[Callable[[Sandbox], dict[str, Any]]], Awaitable[Site]]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[OpenSite]:
    async with contextlib.AsyncExitStack() as stack:

        async def opened(make: Callable[[Sandbox], dict[str, Any]]) -> Site:
            sandbox = await stack.enter_async_context(Sandbox(SandboxSettings(access_life=60)))
            config = make(sandbox)
            http = await stack.enter_async_context(aiohttp.ClientSession())
            gateway = await stack.enter_async_context(running_gateway(config, tmp_path))
            return Site(sandbox, gateway, http, config)

        yield opened


async def test_a_new_configuration_takes_over_and_the_session_stays(site: OpenSite) -> None:
    here = await site(one)
    assert await here.get() == 200
    fingerprint = (await here.status())["identities"]["opentv"]["fingerprint"]
    read_at = await here.sample("config_last_reload_timestamp_seconds") or 0
    kept_alive = await dial(here.gateway.url)
    kept_alive.send(b"GET /adm/v1/x HTTP/1.1\r\nHost: g\r\n\r\n")
    assert (await kept_alive.response()).status == 200

    config = one(here.sandbox) | {"clients": {"api_keys": {"keys": ["the-new-key"]}}, "log": {"level": "debug"}}
    config["routes"] = [signed(here.sandbox, "/adm"), signed(here.sandbox, "/rmg")]
    await here.reload(config)

    kept_alive.send(b"GET /adm/v1/x HTTP/1.1\r\nHost: g\r\n\r\n")
    assert (await kept_alive.response()).status == 401
    kept_alive.close()
    key = {"X-Api-Key": "the-new-key"}
    assert [await here.get(path, headers=key) for path in ("/adm/x", "/rmg/x", "/cag/x")] == [200, 200, 404]
    assert (await here.status())["identities"]["opentv"]["fingerprint"] == fingerprint
    assert here.sandbox.state.counters["token_requests"] == 1
    assert await here.sample("config_last_reload_successful") == 1
    assert (await here.sample("config_last_reload_timestamp_seconds") or 0) > read_at
    assert await here.sample("upstream_connections", route="/", state="idle") is None


async def test_a_refused_configuration_changes_nothing_and_every_fault_is_said(site: OpenSite, tmp_path: Path) -> None:
    here = await site(one)
    assert await here.get() == 200
    (tmp_path / "no.pem").write_text("no certificate")
    read_at = await here.sample("config_last_reload_timestamp_seconds")
    series = set(await here.samples())
    halfway = two(here.sandbox)
    halfway["identities"]["opentv"]["timeout"] = "9s"
    halfway["routes"] += [{"path": "/tls", "upstream": "https://localhost", "tls": {"ca_file": "no.pem"}}]
    wrong: dict[str, dict[str, Any] | str] = {
        "limit": two(here.sandbox) | {"limit": {}},
        "routes.0.upstream": two(here.sandbox) | {"routes": [{"path": "/", "upstream": "nowhere"}]},
        "identities.opentv.password_file": one(here.sandbox, password=None, password_file="missing"),
        "": "routes: [",
        "routes.2.tls.ca_file": halfway,
    }
    for path, config in wrong.items():
        said = await here.reload(config)
        assert path in [each.get("path") for each in said], (path, said)
        assert {each["level"] for each in said} == {"error"}
        assert await here.sample("config_last_reload_successful") == 0
        assert await here.sample("token_usable", identity="opentv") == 1
        assert await here.get() == 200
    assert set(await here.samples()) == series | {
        name for name in await here.samples() if name.startswith("opentv_proxy_requests_total")
    }
    assert await here.sample("config_last_reload_timestamp_seconds") == read_at
    assert here.sandbox.state.counters["token_requests"] == 1

    await here.reload(two(here.sandbox))
    assert await here.sample("config_last_reload_successful") == 1
    assert await here.get("/rmg/x") == 200


async def test_no_request_fails_and_no_counter_falls_while_identity_and_route_change(site: OpenSite) -> None:
    here = await site(one)
    answers: list[int] = []

    async def crm() -> None:
        while True:
            answers.append(await here.get())

    traffic = asyncio.gather(*(crm() for _ in range(4)))
    before = await here.samples()
    for turn in range(4):
        changed = one(here.sandbox, timeout=f"{5 + turn}s")
        changed["routes"][0]["max_connections"] = 20 + turn
        await here.reload(changed)
        after = await here.samples()
        fallen = [
            name
            for name, value in before.items()
            if name.partition("[")[0].endswith(("_total", "_count", "_bucket", "_sum")) and after.get(name, -1) < value
        ]
        assert fallen == []
        before = after
    traffic.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await traffic
    assert len(answers) > 20
    assert set(answers) == {200}
    assert here.sandbox.state.counters["logins"] == 1
    assert here.sandbox.state.counters["reused_refresh_tokens"] == 0

    async def settled() -> bool:
        return await here.sample("requests_in_flight") == 0

    await until(settled, 5, "no request in flight")
    connections = [await here.sample("upstream_connections", route="/", state=each) for each in ("active", "idle")]
    assert connections[0] == 0
    assert 0 < (connections[1] or 0) <= 4  # those of the pools before are gone, and were taken off


async def test_an_identity_that_comes_back_goes_on_with_its_session(site: OpenSite) -> None:
    here = await site(two)
    assert await here.get("/rmg/x") == 200
    served = {"route": "/rmg", "method": "GET", "code": "200"}
    assert await here.sample("requests_total", **served) == 1
    await here.reload(one(here.sandbox))
    assert await here.sample("requests_total", **served) == 1  # a counter never goes, as it may come back
    assert await here.get("/rmg/x") == 200  # by the route that is left
    assert await here.sample("token_usable", identity="second") is None
    await here.reload(two(here.sandbox))
    assert await here.get("/rmg/x") == 200
    assert await here.sample("requests_total", **served) == 2
    assert here.sandbox.state.counters["logins"] == 2
    await here.gateway.stop()
    assert here.sandbox.state.sessions == {}
    assert here.sandbox.state.counters["logouts"] == 2


async def test_a_session_whose_identity_was_just_taken_away_ends_with_the_process(site: OpenSite) -> None:
    here = await site(two)
    await until(lambda: here.sandbox.state.counters["logins"] == 2, 5, "both logins")
    await here.reload(one(here.sandbox))
    assert await here.gateway.stop() == 0
    assert here.sandbox.state.sessions == {}


async def test_a_reload_ends_a_suspension(site: OpenSite) -> None:
    here = await site(lambda sandbox: one(sandbox, password="wrong"))
    await until(lambda: here.sandbox.state.counters["token_refusals"] == 1, 5, "the refused login")
    assert await here.get() == 503
    assert await here.sample("token_login_suspended", identity="opentv") == 1
    await here.reload(one(here.sandbox))
    assert await here.get() == 200
    assert await here.sample("token_login_suspended", identity="opentv") == 0


async def test_hangups_in_a_hurry_are_served_one_by_one_and_the_last_file_counts(site: OpenSite) -> None:
    here = await site(one)
    last = two(here.sandbox)
    here.gateway.config_file.write_text(yaml.safe_dump(PORTS | last))
    for _ in range(5):
        here.gateway.hup()
    await until(lambda: here.sandbox.state.counters["logins"] == 2, 5, "the second identity's login")
    assert await here.get("/rmg/x") == 200
    assert await here.gateway.stop() == 0
    assert here.sandbox.state.sessions == {}


async def test_what_a_reload_cannot_change_is_said_and_stays(site: OpenSite) -> None:
    here = await site(one)
    config = one(here.sandbox) | {"listen": "127.0.0.1:1", "admin": "127.0.0.1:2", "uvloop": False}
    said = await here.reload(config)
    words = [each["words"] for each in said if each["event"] == "reload"]
    assert words == [f"a change of {name} takes effect at the next start" for name in ("listen", "admin", "uvloop")]
    assert await here.get() == 200


async def test_a_hangup_while_it_ends_does_not_disturb_the_end(site: OpenSite) -> None:
    here = await site(one)
    await until(lambda: here.sandbox.state.counters["logins"] == 1, 5, "the login")
    here.gateway.config_file.write_text(yaml.safe_dump(PORTS | two(here.sandbox)))
    ending = asyncio.create_task(here.gateway.stop())
    await asyncio.sleep(0)
    here.gateway.hup()
    assert await ending == 0
    assert here.sandbox.state.sessions == {}


# -- certificates -------------------------------------------------------------------------------------------------


class Authority:
    def __init__(self, folder: Path, name: str) -> None:
        self.ca = trustme.CA()
        self.file = folder / f"{name}.pem"
        self.ca.cert_pem.write_to_path(str(self.file))

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert("127.0.0.1").configure_cert(context)
        return context


@contextlib.asynccontextmanager
async def secure_upstream(context: ssl.SSLContext, port: int) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.parametrize("how", ["by itself", "on SIGHUP"])
async def test_an_upstreams_new_authority_is_trusted_and_the_old_one_no_longer(how: str, tmp_path: Path) -> None:
    old, new, trusted = Authority(tmp_path, "old"), Authority(tmp_path, "new"), tmp_path / "trusted.pem"
    trusted.write_bytes(old.file.read_bytes())
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        port = await stack.enter_async_context(secure_upstream(old.server(), 0))
        route = {"path": "/", "upstream": f"https://127.0.0.1:{port}", "tls": {"ca_file": str(trusted)}}
        gateway = await stack.enter_async_context(running_gateway({"routes": [route]}, tmp_path))
        newer = await stack.enter_async_context(secure_upstream(new.server(), 0))
        both = [route, route | {"path": "/new", "upstream": f"https://127.0.0.1:{newer}"}]

        async def answers(*wanted: int) -> bool:
            found = []
            for path in ("/x", "/new/x"):
                async with http.get(gateway.url + path) as answer:
                    found.append(answer.status)
            return found == [*wanted]

        gateway.config_file.write_text(yaml.safe_dump(PORTS | {"routes": both}))
        gateway.hup()
        await until(lambda: answers(200, 502), 5, "the old authority's upstream alone being trusted")
        trusted.write_bytes(new.file.read_bytes())
        if how == "on SIGHUP":
            gateway.hup()
        await until(lambda: answers(502, 200), 5, "the new authority's upstream alone being trusted")


async def test_a_listener_asks_for_certificates_as_long_as_it_runs(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    leaf = ours.ca.issue_cert("gateway")
    leaf.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    tls = {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}
    asking = {"address": "127.0.0.1:0", "tls": tls | {"client_ca_file": str(ours.file)}}
    stranger, friend = (ssl.create_default_context(cafile=str(ours.file)) for _ in range(2))
    ours.ca.issue_cert("crm").configure_cert(friend)
    async with Sandbox() as sandbox, aiohttp.ClientSession() as http:
        gateway = await start_gateway(one(sandbox) | {"listen": asking}, tmp_path)
        here = Site(sandbox, gateway, http, {})

        async def admitted(context: ssl.SSLContext, **headers: str) -> int:
            headers["Connection"] = "close"
            return await here.get(ssl=context, server_hostname="gateway", headers=headers)

        try:
            assert [await admitted(friend), await admitted(stranger)] == [200, 401]
            clients = {"basic": {"crm": {"password": "a-password"}}}
            said = await here.reload(one(sandbox) | {"clients": clients, "listen": asking | {"tls": tls}})
            assert "a change of listen takes effect at the next start" in [each.get("words") for each in said]
            assert [await admitted(friend), await admitted(stranger)] == [200, 401]
            assert await admitted(stranger, Authorization=aiohttp.encode_basic_auth("crm", "a-password")) == 200
        finally:
            await gateway.stop()
