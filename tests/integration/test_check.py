"""``opentv-proxy check`` from outside: what it says, how it ends, and how little it asks of the provider."""

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from proxy.sandbox import Fault, Sandbox, SandboxSettings
from tests.support.cli import Ended, command, written

Config = dict[str, Any]


def configured(sandbox: Sandbox) -> Config:
    """One identity, one route; "opentv" and "route" are there to be edited."""
    opentv = {
        "system": "keycloak",
        "token_url": sandbox.token_url,
        "client_id": sandbox.client_id,
        "username": sandbox.username,
        "password": sandbox.password,
        "expect_roles": ["operatorRole"],
        "timeout": 3,
    }
    route = {"path": "/", "upstream": sandbox.url, "identity": "opentv"}
    return {"identities": {"opentv": opentv}, "routes": [route]}


async def checked(config: Config, folder: Path, *options: str) -> Ended:
    """What every run must keep to: no secret and no token in what it writes, and no word on stderr off a terminal."""
    ended = await command("check", "-c", written(config, folder), *options)
    secrets = [
        value
        for identity in config["identities"].values()
        for key in ("password", "client_secret", "refresh_token")
        if (value := identity.get(key))
    ]
    assert not [secret for secret in secrets if secret in ended.out + ended.err]
    assert "eyJ" not in ended.out + ended.err
    assert ended.err == ""
    assert "\x1b" not in ended.out
    return ended


async def found(config: Config, folder: Path, code: int = 0) -> list[str]:
    """The findings as ``severity subject: finding (evidence) -> advice``."""
    ended = await checked(config, folder, "--json")
    document = json.loads(ended.out)
    assert ended.code == code, ended.out
    assert document["ok"] == (code == 0)
    return [
        f"{one['severity']} {one['subject']}: {one['finding']} ({one['evidence']}) -> {one['advice']}"
        for one in document["findings"]
    ]


def contacts(sandbox: Sandbox) -> tuple[int, int, int]:
    """Requests for a login, for a refresh, for a logout."""
    counters = sandbox.state.counters
    refreshes = counters["token_requests_refresh_token"]
    return counters["token_requests"] - refreshes, refreshes, counters["logout_requests"]


async def test_where_nothing_is_wrong_it_logs_in_once_refreshes_once_and_logs_out(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        ended = await checked(configured(sandbox), tmp_path)
        assert ended.code == 0, ended.out
        assert contacts(sandbox) == (1, 1, 1)
        assert sandbox.state.sessions == {}
    assert ended.out.endswith("\nno problems, no hints\n")
    assert re.search(
        r"^ok +identity opentv: logged in as crm_client_user \(token [0-9a-f]{8} ", ended.out, re.MULTILINE
    )
    assert "the token lives 5 min, is renewed 60 s before its end" in ended.out
    assert "route /: the upstream takes the token (HTTP 200, 403 without a token)" in ended.out


async def test_the_upstream_sees_only_head_requests_and_the_configured_fields(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        config = configured(sandbox)
        config["routes"][0] |= {"path": "/adm", "headers": {"set": {"nv-tenant-id": "nagra"}}}
        await checked(config, tmp_path)
        seen = list(sandbox.state.received)
    assert [(one.method, one.target, one.verdict) for one in seen] == [
        ("HEAD", "/adm", "missing"),
        ("HEAD", "/adm", "valid"),
    ]
    assert all((b"nv-tenant-id", b"nagra") in one.headers for one in seen)


# The tables: what is arranged at a sandbox and in the identity that logs in there, and what check then says of it.
Identity = dict[str, Any]
Arrange = Callable[[Sandbox, Identity], object]


def fault(kind: Any, **fields: Any) -> Arrange:
    return lambda sandbox, _: sandbox.state.add_fault("token", Fault(kind, **fields))


def identity(**changes: Any) -> Arrange:
    return lambda _, identity: identity.update(changes)


def user(**changes: Any) -> Arrange:
    return lambda sandbox, _: vars(sandbox.state.users[sandbox.username]).update(changes)


def client(**changes: Any) -> Arrange:
    return lambda sandbox, _: vars(sandbox.state.clients["crm_client"]).update(changes)


def realm(**changes: Any) -> Arrange:
    return lambda sandbox, _: vars(sandbox.state.realms["nagra"]).update(changes)


def setting(**changes: Any) -> Arrange:
    return lambda sandbox, _: vars(sandbox.state.settings).update(changes)


def token_url(old: str, new: str) -> Arrange:
    return lambda sandbox, identity: identity.update(token_url=sandbox.token_url.replace(old, new))


def clock(seconds: float) -> Arrange:
    return lambda sandbox, _: vars(sandbox.state).update(clock_shift=seconds)


def both(*arrangements: Arrange) -> Arrange:
    return lambda sandbox, identity: [arrange(sandbox, identity) for arrange in arrangements]


def service_account(_: Sandbox, identity: Identity) -> None:
    for key in ("username", "password", "expect_roles"):
        del identity[key]
    identity.update(grant="client_credentials", client_auth="basic", client_secret="sandbox-secret")


LOGIN_FAILS: dict[str, tuple[Arrange, list[str]]] = {
    "Direct Access Grants off": (
        client(direct_access_grants=False),
        ["Direct Access Grants is off for client crm_client (", "-> turn it on in Keycloak"],
    ),
    "wrong password": (
        identity(password="not the password"),
        ["refused the user name or the password, or has locked the user", "user crm_client_user", "wait a minute"],
    ),
    "user disabled": (user(enabled=False), ["the user is disabled", "Account disabled"]),
    "not fully set up": (user(fully_set_up=False), ["required actions", "Account is not fully set up"]),
    "no such realm": (token_url("/nagra/", "/nosuch/"), ["there is no such realm", "check token_url"]),
    "realm disabled": (realm(enabled=False), ["the realm is disabled"]),
    "HTTPS required": (realm(require_https=True), ["the realm wants HTTPS", "use https in token_url"]),
    "wrong path prefix": (
        fault("html", status=404),
        ["there is no token endpoint at this address", "HTTP 404 with an HTML page", "/keycloak/auth"],
    ),
    "page of a proxy": (fault("html"), ["a web page answers instead of the token endpoint", "proxy, a load balancer"]),
    "redirect": (fault("redirect"), ["redirect", "HTTP 302 to https://login.example.com/", "as token_url"]),
    "no such client": (identity(client_id="nosuch"), ["client nosuch is unknown or disabled in this realm"]),
    "wrong secret": (
        both(client(secret="sandbox-secret"), identity(client_auth="post", client_secret="someone-elses-4711")),
        ["the secret of client crm_client is wrong or missing", "Credentials tab"],
    ),
    "no secret": (
        client(secret="sandbox-secret"),
        ["the secret of client crm_client is wrong or missing", "set client_auth"],
    ),
    "unknown scope": (
        identity(scope="nosuch"),
        ["the provider does not know the configured scope", "-> compare identities.unknown-scope with"],
    ),
    "rate limit": (fault("rate-limit"), ["the provider limits the rate of requests"]),
    "provider down": (fault("reply", status=503), ["the provider is not available now"]),
    "no answer": (fault("close"), ["broke before its answer was complete"]),
    "slow": (
        both(fault("delay", delay_ms=60000), identity(timeout=0.5)),
        ["no answer from the token endpoint within 0.5 s"],
    ),
    "half an answer": (fault("half-json"), ["broke before its answer was complete"]),
    "nobody there": (identity(token_url="http://127.0.0.1:1/token"), ["the connection was refused", "token_url"]),
    "plain HTTP": (token_url("http:", "https:"), ["does not speak TLS on this port"]),
}


@dataclass(frozen=True)
class Told:
    """lines: what was said of one situation's identity. contacts: see there."""

    lines: list[str]
    contacts: tuple[int, int, int]


async def told(table: Mapping[str, Arrange], folder: Path) -> dict[str, Told]:
    """Every situation in one run, each with a platform and an identity of its own."""
    config: Config = {"identities": {}, "routes": []}
    platforms = {}
    async with contextlib.AsyncExitStack() as stack:
        for situation, arrange in table.items():
            sandbox = platforms[situation] = await stack.enter_async_context(Sandbox())
            one = configured(sandbox)
            arrange(sandbox, one["identities"]["opentv"])
            name = situation.replace(" ", "-")
            config["identities"][name] = one["identities"]["opentv"]
            config["routes"].append({"path": f"/{name}", "upstream": sandbox.url, "identity": name})
        lines = await found(config, folder, code=3)
        return {
            situation: Told(
                [line for line in lines if f" identity {situation.replace(' ', '-')}: " in line], contacts(platform)
            )
            for situation, platform in platforms.items()
        }


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    table = {situation: arrange for situation, (arrange, _) in LOGIN_FAILS.items()}
    return asyncio.run(told(table, tmp_path_factory.mktemp("failed")))


@pytest.mark.parametrize("situation", LOGIN_FAILS)
def test_a_failed_login_is_told_in_words_to_act_on_and_never_tried_again(
    situation: str, failed: dict[str, Told]
) -> None:
    lines, (logins, refreshes, logouts) = failed[situation].lines, failed[situation].contacts
    assert [line.partition(" ")[0] for line in lines] == ["problem"], lines
    assert not [words for words in LOGIN_FAILS[situation][1] if words not in lines[0]], lines[0]
    assert (logins <= 1, refreshes, logouts) == (True, 0, 0)


AFTER_LOGIN: dict[str, tuple[Arrange, str, tuple[int, int, int]]] = {
    "role": (
        both(user(roles=("uma_authorization",)), setting(required_role="")),
        r"problem .*: role operatorRole is missing \(the token has .*uma_authorization",
        (1, 1, 1),
    ),
    "clock ahead": (clock(43), r"problem .*: clock differs by 4[234] s \(.*ahead of", (1, 1, 1)),
    "clock behind": (clock(-43), r"problem .*: clock differs by 4[234] s \(.*behind", (1, 1, 1)),
    "clock a little off": (clock(5), r"hint .*: clock differs by [456] s", (1, 1, 1)),
    "short life": (setting(access_life=4), r"hint .*too short to be renewed early", (1, 1, 1)),
    "narrow window": (setting(access_life=8), r"hint .*a slow renewal may outlast", (1, 1, 1)),
    "refresh token shorter": (
        fault("set-fields", values={"refresh_expires_in": 10}),
        r"hint .*the refresh token ends before the token is renewed",
        (1, 1, 1),
    ),
    "not before": (
        lambda sandbox, _: sandbox.state.push_not_before(int(sandbox.state.now()) + 60),
        r"problem .*the token is older than the provider's own not-before policy",
        (1, 1, 1),
    ),
    "no refresh token": (
        fault("set-fields", drop=("refresh_token",)),
        r"hint .*the provider gives no refresh token",
        (1, 0, 0),
    ),
    "opaque": (
        fault("set-fields", values={"access_token": "opaque-access-token"}),
        r"hint .*whether the expected roles are there cannot be seen",
        (1, 1, 1),
    ),
    "refresh refused": (
        fault("reject", grant="refresh_token"),
        r"problem .*the refresh failed: .*\(.*Token is not active.* -> the login worked",
        (1, 1, 1),
    ),
    "refresh lost": (
        fault("rotate-then-reset", grant="refresh_token"),
        r"problem .*the refresh failed: .*broke before",
        (1, 1, 1),
    ),
    "logout off": (identity(logout=False), r"hint .*stays open \(identities.logout-off.logout is false", (1, 1, 0)),
    "client credentials": (
        both(client(secret="sandbox-secret", service_account=True), service_account),
        r"ok .*no refresh token, as is usual with client_credentials",
        (1, 0, 0),
    ),
}


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    table = {situation: arrange for situation, (arrange, _, _) in AFTER_LOGIN.items()}
    return asyncio.run(told(table, tmp_path_factory.mktemp("worked")))


@pytest.mark.parametrize("situation", AFTER_LOGIN)
def test_what_a_working_login_shows_is_told_with_one_exchange_of_each_kind(
    situation: str, worked: dict[str, Told]
) -> None:
    _, pattern, exchanges = AFTER_LOGIN[situation]
    assert [line for line in worked[situation].lines if re.match(pattern, line)], worked[situation].lines
    assert worked[situation].contacts == exchanges


async def test_a_user_who_was_refused_is_not_tried_again_for_another_identity(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        config = configured(sandbox)
        config["identities"]["opentv"]["password"] = "not the password"
        config["identities"]["twin"] = dict(config["identities"]["opentv"])
        config["routes"].append({"path": "/twin", "upstream": sandbox.url, "identity": "twin"})
        lines = await found(config, tmp_path, code=3)
        assert contacts(sandbox) == (1, 0, 0)
        assert sandbox.state.counters["lockouts"] == 0
    assert [line for line in lines if line.startswith("problem identity twin: not tried")]


def seeded(sandbox: Sandbox, seed: str, **changes: Any) -> Config:
    config = configured(sandbox)
    config["identities"]["opentv"] = {
        "system": "keycloak",
        "token_url": sandbox.token_url,
        "client_id": "ua-grant",
        "grant": "refresh_token",
        "refresh_token": seed,
    } | changes
    return config


async def test_a_seed_refresh_token_is_read_and_never_presented(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        config = seeded(sandbox, sandbox.refresh_token(client_id="ua-grant", offline=True))
        lines = await found(config, tmp_path)
        assert contacts(sandbox) == (0, 0, 0)
    assert [line for line in lines if "not presented, only read" in line]
    assert [line for line in lines if "has not expired" in line and "without expiry" in line]
    assert [line for line in lines if "/token answers (HTTP 405 to HEAD)" in line]


async def test_a_seed_that_cannot_work_is_a_problem(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        expired = Sandbox(SandboxSettings(refresh_life=60))
        async with expired:
            expired.state.clock_shift = -3600
            old = expired.refresh_token(client_id="ua-grant")
        lines = await found(seeded(sandbox, old), tmp_path, code=3)
        assert [line for line in lines if line.startswith("problem") and "has expired" in line], lines
        assert [line for line in lines if line.startswith("hint") and "under another address" in line], lines
        lines = await found(seeded(sandbox, sandbox.refresh_token(client_id="crm_client")), tmp_path, code=3)
        assert [line for line in lines if "issued to client crm_client, not to ua-grant" in line], lines
        lines = await found(seeded(sandbox, "opaque-seed-4711"), tmp_path)
        assert [line for line in lines if line.startswith("hint") and "it is opaque" in line], lines
        assert contacts(sandbox) == (0, 0, 0)


@contextlib.asynccontextmanager
async def answering(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that says ``answer`` to every request, whatever it is; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def certified(ca: trustme.CA, *names: str, days: float = 365) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names, not_after=datetime.now(UTC) + timedelta(days=days)).configure_cert(context)
    return context


NO_CONTENT = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"


async def test_tls_failures_say_which_setting_mends_them(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    known, other = {"ca_file": str(tmp_path / "ca.pem")}, "other.example.com"
    async with (
        Sandbox() as sandbox,
        answering(NO_CONTENT, certified(ca, "localhost", days=3)) as right,
        answering(NO_CONTENT, certified(ca, other)) as wrong,
    ):
        config = configured(sandbox)
        config["identities"]["opentv"]["token_url"] = f"https://localhost:{right}/token"
        config["identities"]["named"] = config["identities"]["opentv"] | {
            "token_url": f"https://localhost:{wrong}/token",
            "tls": known,
        }
        config["routes"] = [
            {"path": "/unknown", "upstream": f"https://localhost:{right}"},
            {"path": "/name", "upstream": f"https://localhost:{wrong}", "tls": known},
            {"path": "/named", "upstream": f"https://localhost:{wrong}", "tls": known | {"server_name": other}},
            {"path": "/right", "upstream": f"https://localhost:{right}", "tls": known},
        ]
        lines = await found(config, tmp_path, code=3)
    said = "\n".join(lines)
    assert re.search(r"problem identity opentv: no TLS connection .*put that authority into ca_file", said)
    assert re.search(r"problem identity named: .*not for localhost.*set tls.server_name", said)
    assert re.search(r"problem route /unknown: .*put that authority into ca_file.* routes.0.tls", said)
    assert re.search(r"problem route /name: .*not for localhost.*set tls.server_name", said)
    assert re.search(r"ok route /named: .* \(HTTP 204, TLSv1.3\)", said)
    assert re.search(r"ok route /right: .* \(HTTP 204, TLSv1.3\)", said)
    assert re.search(r"hint route /right: the upstream's certificate expires in (3 days|2.9 days|72 h)", said)
    assert len([line for line in lines if line.startswith("problem")]) == 4


async def test_each_upstream_is_told_by_how_it_answers(tmp_path: Path) -> None:
    async with (
        Sandbox(SandboxSettings(reject="401")) as sandbox,
        answering(b"SSH-2.0-OpenSSH_9.2\r\n\r\n") as ssh,
        answering(b"HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n") as down,
        answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as tls_port,
        answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n") as forbids,
        answering(b"") as silent,
    ):
        config = configured(sandbox)
        named = {"identity": "opentv"}
        config["routes"] = [
            {"path": "/gone", "upstream": "http://127.0.0.1:1", **named},
            {"path": "/ssh", "upstream": f"http://127.0.0.1:{ssh}", **named},
            {"path": "/down", "upstream": f"http://127.0.0.1:{down}", **named},
            {"path": "/port", "upstream": f"http://127.0.0.1:{tls_port}", **named},
            {"path": "/silent", "upstream": f"http://127.0.0.1:{silent}", **named},
            {"path": "/forbids", "upstream": f"http://127.0.0.1:{forbids}", **named},
            {"path": "/codes", "upstream": sandbox.url, "rejected": {"statuses": [403]}, **named},
            {"path": "/unsigned", "upstream": sandbox.url, "identity": None},
        ]
        said = "\n".join(await found(config, tmp_path, code=3))
    assert re.search(r"problem route /gone: no connection to 127.0.0.1:1: the connection was refused", said)
    assert re.search(r"problem route /ssh: connected, but what answers is no HTTP", said)
    assert re.search(r"hint route /down: .* answers with an error \(HTTP 503\)", said)
    assert re.search(r"hint route /port: .*-> if this port speaks TLS, write https://", said)
    assert re.search(r"problem route /silent: connected, but no answer came: the peer broke the connection off", said)
    assert re.search(r"hint route /forbids: the upstream refuses HEAD /forbids with the fresh token", said)
    assert re.search(r"hint route /codes: the upstream answers 401 to HEAD /codes without a token .* add 401 to", said)
    assert re.search(r"ok route /unsigned: .* answers \(HTTP 401\)", said)


async def test_offline_asks_nobody_and_passes_the_warnings_on(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        config = configured(sandbox)
        config["routes"][0] |= {"upstream": "http://upstream.example.com", "tls": {"verify": False}}
        ended = await checked(config, tmp_path, "--offline")
        assert ended.code == 0
        assert contacts(sandbox) == (0, 0, 0)
    assert "hint     configuration: routes.0.tls.verify is false" in ended.out
    assert "the token crosses the network in the clear over http://\n         -> use https://\n" in ended.out


async def test_offline_finds_a_certificate_file_that_holds_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate\n")
    async with Sandbox() as sandbox:
        config = configured(sandbox)
        config["routes"][0]["tls"] = {"ca_file": str(tmp_path / "ca.pem")}
        ended = await checked(config, tmp_path, "--offline")
    assert ended.code == 3
    assert "problem  configuration: routes.0.tls.ca_file:" in ended.out


async def test_a_wrong_configuration_is_listed_whole_and_ends_with_2(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        config = configured(sandbox)
        config["routes"][0]["identity"] = "opentvv"
        config["identities"]["opentv"]["client"] = "crm_client"
        ended = await command("check", "-c", written(config, tmp_path))
        assert contacts(sandbox) == (0, 0, 0)
    assert (ended.code, ended.out) == (2, "")
    assert "did you mean opentv?" in ended.err
    assert "identities.opentv.client" in ended.err
