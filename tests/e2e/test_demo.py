"""``opentv-proxy demo`` as somebody meets it who has just cloned the project."""

import asyncio
import contextlib
import json
import re
import shlex
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.cli import command
from tests.support.gateway import until
from tests.support.process import Process, running

CURL = r"^    (curl -i http\S+)$"
STATUS = r"^Watch the token: +(curl -s http\S+/status)$"
METRICS = r"^Metrics: +(curl -s http\S+/metrics)$"
REVOKE = r"^Refuse the token: +(curl -s -X POST http\S+)$"


@contextlib.asynccontextmanager
async def demo(*options: str, **how: Any) -> AsyncIterator[Process]:
    async with running("demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", *options, **how) as process:
        yield process


async def pasted(line: str) -> str:
    """What the line prints in a person's shell."""
    shell = await asyncio.create_subprocess_exec(
        *shlex.split(line), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await shell.communicate()
    assert shell.returncode == 0, line
    return out.decode()


async def samples(process: Process, name: str) -> dict[str, float]:
    """What the printed line shows of one metric: labels → value."""
    page = await pasted(await process.says(METRICS))
    found = re.findall(rf"^opentv_proxy_{name}\{{(.*)\}} (\S+)$", page, re.MULTILINE)
    return {labels: float(value) for labels, value in found}


async def test_every_line_it_prints_works_when_pasted_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    env = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    async with demo(cwd=tmp_path, env=env) as process:
        answer = await pasted(await process.says(CURL))
        assert answer.startswith("HTTP/1.1 200 OK\r\n")
        assert json.loads(answer.partition("\r\n\r\n")[2])["resultCode"] == "0"
        status = json.loads(await pasted(await process.says(STATUS)))
        assert status["identities"]["opentv"]["state"] == "fresh"
        assert status["warnings"] == []
        await pasted(await process.says(REVOKE))
        assert (await pasted(await process.says(CURL))).startswith("HTTP/1.1 200 OK\r\n")
        assert (await samples(process, "rejections_total"))['outcome="replayed",route="/"'] == 1
        times = [await samples(process, f"access_token_{what}_timestamp_seconds") for what in ("issued", "expiry")]
        issued, expiry = (time['identity="opentv"'] for time in times)
        assert 29 <= expiry - issued <= 31
        assert any("lives 30 s" in line for line in process.out)
        process.send(signal.SIGINT)
        assert await process.ended() == 0
    assert list(tmp_path.iterdir()) == []
    said = "\n".join(process.err)
    assert "logged out" in said
    assert "stopped" in said
    assert "Traceback" not in said


async def test_traffic_sends_requests_that_are_all_answered_and_ends_with_the_demo() -> None:
    async with demo("--traffic") as process:
        answered: dict[str, float] = {}

        async def enough() -> bool:
            answered.update(await samples(process, "requests_total"))
            return sum(answered.values()) >= 8

        await until(enough, 15, "eight requests of the demo's own")
        assert {re.sub('.*code="(.*?)".*', r"\1", labels) for labels in answered} <= {"200", "201"}
        process.send(signal.SIGTERM)
        assert await process.ended() == 0
    said = "\n".join(process.err)
    assert "Traceback" not in said
    assert "Unclosed" not in said


async def test_ctrl_c_does_not_wait_for_a_stream_that_never_ends() -> None:
    async with demo() as process, aiohttp.ClientSession() as http:
        url = (await process.says(CURL)).split()[-1].replace("/adm/v1/accounts/4711", "/events?interval_ms=100")
        async with http.get(url) as stream:
            assert (await stream.content.readline()).startswith(b"id: 1")
            process.send(signal.SIGINT)
            assert await process.ended(6) == 0


async def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = f"127.0.0.1:{listener.getsockname()[1]}"
        ended = await command("demo", "--listen", taken, "--admin", "127.0.0.1:0")
    assert (ended.code, ended.out) == (1, "")
    words = f"listen: cannot listen on {taken}: something else listens there; end it, or choose another address"
    assert ended.err.splitlines() == [f"opentv-proxy: {words}"]


async def test_a_closed_terminal_ends_it() -> None:
    async with demo() as process:
        await process.says(CURL)
        process.send(signal.SIGHUP)
        await process.ended(6)
    async with demo(read=False) as process:
        assert await process.ended(15) == 0
    assert "Traceback" not in "\n".join(process.err)
