"""``opentv-proxy check`` from outside: how it ends, what it sends, and how little it asks of the provider."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from proxy.sandbox import Fault, Sandbox, SandboxSettings
from tests.support.arrangements import clock, identity
from tests.support.checks import Config, answering, checked, client_certificate, document, keycloak, reply, told
from tests.support.cli import command, written
from tests.support.gateway import ROOT, environment, until
from tests.support.httpproxy import http_proxy
from tests.support.stores import key_file


def configured(sandbox: Sandbox) -> Config:
    """One identity, one route; "opentv" and "route" are there to be edited."""
    route = {"path": "/", "upstream": sandbox.url, "identity": "opentv"}
    return {"identities": {"opentv": keycloak(sandbox)}, "routes": [route]}


async def found(config: Config, folder: Path, code: int = 0) -> list[str]:
    """The findings as ``severity subject: finding (evidence) -> advice``."""
    return [
        f"{one['severity']} {one['subject']}: {one['finding']} ({one['evidence']}) -> {one['advice']}"
        for one in (await document(config, folder, code))["findings"]
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
    assert "route /: the upstream takes the token (HTTP 200, HTTP 403 without a token)" in ended.out


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


async def test_an_upstream_is_asked_by_get_only_where_head_tells_too_little(tmp_path: Path) -> None:
    async with Sandbox(SandboxSettings(reject="200")) as sandbox:
        config = configured(sandbox)
        config["routes"][0] |= {"path": "/adm", "headers": {"set": {"nv-tenant-id": "nagra"}}}
        await checked(config, tmp_path)
        seen = list(sandbox.state.received)
    assert [(one.method, one.verdict) for one in seen] == [
        ("HEAD", "missing"),
        ("HEAD", "valid"),
        ("GET", "missing"),
        ("GET", "valid"),
    ]
    assert all((b"nv-tenant-id", b"nagra") in one.headers for one in seen)


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


async def test_a_page_that_repeats_the_password_is_not_repeated(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        page = f"<title>No route for {sandbox.password}</title>".encode()
        async with answering(reply("200 OK", page, content_type="text/html")) as port:
            config = configured(sandbox)
            config["identities"]["opentv"]["token_url"] = f"http://127.0.0.1:{port}/token"
            ended = await checked(config, tmp_path)  # which looks for the password
    assert "seen: HTTP 200, text/html\n" in ended.out


async def test_a_proxy_of_the_environment_is_asked_and_named_where_it_leads_nowhere(tmp_path: Path) -> None:
    nowhere = {"one": "http://one.invalid/token", "two": "https://two.invalid:1/token", "three": "http://127.0.0.3:1/x"}
    table = {name: identity(token_url=url) for name, url in nowhere.items()}
    environ = {
        "HTTP_PROXY": "http://crm:hunter2@127.0.0.1:1",
        "all_proxy": "socks5://proxy",
        "no_proxy": "x, 127.0.0.3",
    }
    seen = await told(table, tmp_path, env=environ)
    assert "no connection to the HTTP proxy 127.0.0.1:1" in seen["one"].lines[0]["finding"]
    advice = {name: one.lines[0]["advice"].partition("; ")[2] for name, one in seen.items()}
    words = "all_proxy is set, but the gateway goes by HTTPS_PROXY and HTTP_PROXY, or by proxy in its configuration"
    assert advice == {"one": "", "two": words, "three": ""}
    assert "hunter2" not in "".join(map(str, seen.values()))


async def test_by_the_proxy_that_is_configured_everything_is_asked(tmp_path: Path) -> None:
    async with Sandbox() as sandbox, http_proxy() as way:
        way.wants = "gate:word-of-the-gate"
        config = configured(sandbox)
        proxy = {"url": way.url, "username": "gate", "password": "word-of-the-gate"}
        config["identities"]["opentv"]["proxy"] = config["routes"][0]["proxy"] = proxy
        ended = await checked(config, tmp_path)
        assert ended.code == 0, ended.out
        assert "word-of-the-gate" not in ended.out + ended.err
    assert {line.split(" ")[0] for line in way.asked} >= {"POST", "HEAD"}
    assert all(line.split(" ")[1].startswith("http://127.0.0.1:") for line in way.asked)


async def test_offline_asks_nobody_and_passes_the_warnings_on(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        config = configured(sandbox)
        config["routes"][0] |= {"upstream": "http://upstream.example.com", "tls": {"verify": False}}
        ended = await checked(config, tmp_path, "--offline")
        assert ended.code == 0
        assert contacts(sandbox) == (0, 0, 0)
    assert "hint     configuration: routes.0.tls.verify is false" in ended.out
    assert "the token crosses the network in the clear over http://\n         do:   use https://\n" in ended.out


@pytest.mark.parametrize(
    ("begins", "ends", "code", "words"),
    [
        (-400, -3, 3, "problem  configuration: identities.opentv.tls.cert_file: the certificate has expired, "),
        (3, 365, 3, "problem  configuration: identities.opentv.tls.cert_file: the certificate is not valid before "),
        (-400, 3.5, 0, "hint     configuration: identities.opentv.tls.cert_file: the certificate expires in 3.5 days"),
    ],
)
async def test_a_certificate_of_our_own_is_looked_at_before_it_is_shown(
    tmp_path: Path, begins: float, ends: float, code: int, words: str
) -> None:
    async with Sandbox() as sandbox:
        config = configured(sandbox)
        files = client_certificate(tmp_path, "crm", days=ends, since=begins)
        config["identities"]["opentv"] |= {"tls": files, "client_auth": "tls", "token_url": "https://127.0.0.1/token"}
        ended = await checked(config, tmp_path, "--offline")
    assert ended.code == code, ended.out
    assert words in ended.out


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


@pytest.mark.parametrize("wrong", [{}, {"listn": "127.0.0.1:8080"}], ids=["only in use", "in shape too"])
async def test_every_command_refuses_what_run_refuses_with_the_same_listing(tmp_path: Path, wrong: Config) -> None:
    """Files and a URL that prove unusable when they are put to use, beside a key that there is not."""
    (tmp_path / "ca.pem").write_text("no certificate\n")
    files = client_certificate(tmp_path, "one") | {"key_file": client_certificate(tmp_path, "two")["key_file"]}
    store = {"redis": {"url": "redis://127.0.0.1:6379?no_such_option=1", "key_file": str(key_file(tmp_path))}}
    listen = {"address": "127.0.0.1:0", "tls": files}
    route = {"path": "/", "upstream": "https://127.0.0.1:1", "tls": {"ca_file": "ca.pem"}}
    file = written({"listen": listen, "admin": "127.0.0.1:0", "store": store, "routes": [route]} | wrong, tmp_path)
    listings = set()
    for words in (("run",), ("check",), ("check", "--offline"), ("config",)):
        ended = await command(*words, "-c", file)
        assert (ended.code, ended.out) == (2, ""), ended
        listings.add(ended.err)
    (listing,) = listings
    assert f"listen.tls.key_file: {tmp_path}/two.key is not the key of the certificate in {tmp_path}/one.pem" in listing
    assert "store.redis.url: " in listing
    assert ("listn" if wrong else "routes.0.tls.ca_file: ") in listing


class Terminal:
    """``check`` at a terminal of 100 columns. shown: what was written to it."""

    def __init__(self, config: Path, **environ: str) -> None:
        self.shown = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        os.set_blocking(self._ours, False)
        self._theirs = theirs
        self._words = (sys.executable, "-W", "error", "-m", "proxy", "check", "-c", str(config))
        self._environ = {**environment(), "TERM": "xterm", "NO_COLOR": "", **environ}
        self.process: asyncio.subprocess.Process

    async def __aenter__(self) -> "Terminal":
        self.process = await asyncio.create_subprocess_exec(
            *self._words, stdin=self._theirs, stdout=self._theirs, stderr=self._theirs, env=self._environ, cwd=ROOT
        )
        os.close(self._theirs)
        asyncio.get_running_loop().add_reader(self._ours, self._read)
        return self

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: the other side has gone
            self.shown += os.read(self._ours, 65536)

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)

    async def ended(self) -> int:
        async with asyncio.timeout(30):
            code = await self.process.wait()
        self._read()
        return code


async def test_a_terminal_shows_progress_colours_and_lines_that_fit(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        sandbox.state.add_fault("token", Fault("delay", delay_ms=1500))
        sandbox.state.clients["crm_client"].direct_access_grants = False
        async with Terminal(written(configured(sandbox), tmp_path)) as here:
            assert await here.ended() == 3
    shown = here.shown.decode()
    assert "\x1b[1;31mproblem \x1b[0m identity opentv: Direct Access Grants is off" in shown
    assert re.search(r"\r\x1b\[Kidentity opentv: asking http://\S* ?\S* ?\S* \.\.\. [12] s", shown)
    assert shown.endswith("\r\n1 problem, no hints\r\n")
    for line in re.split(r"\r\x1b\[K|\r\n", shown):
        assert len(re.sub(r"\x1b\[[0-9;]*m", "", line)) <= 100, line


async def test_no_color_is_heeded_at_a_terminal(tmp_path: Path) -> None:
    async with (
        Sandbox() as sandbox,
        Terminal(written(configured(sandbox), tmp_path), NO_COLOR="1") as here,
    ):
        assert await here.ended() == 0
    assert b"ok       identity opentv: logged in" in here.shown
    assert not re.search(rb"\x1b\[[0-9;]*m", here.shown)


async def test_ctrl_c_ends_it_with_1_and_leaves_no_session(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        sandbox.state.add_fault("api", Fault("delay", delay_ms=60_000, times=None))
        async with Terminal(written(configured(sandbox), tmp_path)) as here:
            await until(lambda: b"asking the upstreams" in here.shown, 15, "the routes are asked")
            here.process.send_signal(signal.SIGINT)
            assert await here.ended() == 1
        assert contacts(sandbox) == (1, 1, 1)
        assert sandbox.state.sessions == {}
    assert b"Traceback" not in here.shown


async def test_a_clock_that_is_off_shows_even_where_the_login_is_refused(tmp_path: Path) -> None:
    def refused(site: Any) -> None:
        clock(43)(site)
        identity(password="not the password")(site)

    lines = (await told({"both": refused}, tmp_path))["both"].lines
    assert json.dumps([line["finding"] for line in lines]).count("clock differs by") == 1
