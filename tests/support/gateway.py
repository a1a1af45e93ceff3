"""The gateway as users run it: a process of its own, its lines on stdout and its log on stderr."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
_LISTENING = re.compile(r"opentv-proxy: (proxy|admin) listening on (https?://\S+)")


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]], seconds: float, what: str) -> float:
    """Poll ``condition`` until it holds; the seconds it took. AssertionError naming ``what`` when time is up."""
    begun = time.monotonic()
    while True:
        held = condition()
        if await held if isinstance(held, Awaitable) else held:
            return time.monotonic() - begun
        assert time.monotonic() - begun < seconds, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)


class Gateway:
    """A running ``opentv-proxy run``. url/admin_url: where it listens, no trailing slash. log: its stderr, by line."""

    def __init__(self, process: asyncio.subprocess.Process, config_file: Path) -> None:
        self.config_file = config_file
        self.url = ""
        self.admin_url = ""
        self.out: list[str] = []
        self.log: list[str] = []
        self._process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.create_task(self._collect(process.stdout, self.out)),
            asyncio.create_task(self._collect(process.stderr, self.log)),
        ]

    async def _collect(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        async for raw in stream:
            line = raw.decode().rstrip("\n")
            lines.append(line)
            if found := _LISTENING.match(line):
                if found[1] == "proxy":
                    self.url = found[2].rstrip("/")
                else:
                    self.admin_url = found[2].rstrip("/")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    @property
    def records(self) -> list[dict[str, Any]]:
        """The log as the JSON objects it consists of; a line that is none fails the test."""
        return [json.loads(line) for line in self.log]

    def words(self) -> str:
        """Everything it has said, for the message of a failed test."""
        return "\n".join([*self.out, *self.log[-40:]])

    async def listening(self, seconds: float = 15.0) -> None:
        """Wait for both "listening" lines."""

        def there() -> bool:
            assert self.exit_code is None, f"the gateway ended with {self.exit_code}:\n{self.words()}"
            return bool(self.url and self.admin_url)

        await until(there, seconds, f"both listening lines, got:\n{self.words()}")

    def hup(self) -> None:
        """Ask for a reload."""
        self._process.send_signal(signal.SIGHUP)

    async def stop(self, seconds: float = 30.0) -> int:
        """SIGTERM, and the exit code; its log is complete afterwards."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        return await self._ended(seconds)

    async def kill(self) -> int:
        """SIGKILL: no farewell."""
        if self._process.returncode is None:
            self._process.kill()
        return await self._ended(10.0)

    async def _ended(self, seconds: float) -> int:
        try:
            async with asyncio.timeout(seconds):
                code = await self._process.wait()
                await asyncio.gather(*self._readers)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise AssertionError(f"the gateway did not end within {seconds} s:\n{self.words()}") from None
        return code


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without any of the gateway's own variables, plus ``extra``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OPENTV_PROXY")}
    return {**inherited, **(extra or {})}


async def start_gateway(
    config: Mapping[str, Any], folder: Path, env: Mapping[str, str] | None = None, *, wait: bool = True
) -> Gateway:
    """Write ``config`` as ``folder/proxy.yaml`` (ports 0 where it names none) and run the gateway with it."""
    file = folder / "proxy.yaml"
    file.write_text(yaml.safe_dump({"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", **config}, sort_keys=False))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "run", "-c", str(file)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(env),
        cwd=ROOT,
        limit=1 << 20,
    )
    gateway = Gateway(process, file)
    if wait:
        try:
            await gateway.listening()
        except BaseException:
            await gateway.kill()
            raise
    return gateway


@contextlib.asynccontextmanager
async def running_gateway(
    config: Mapping[str, Any], folder: Path, env: Mapping[str, str] | None = None
) -> AsyncIterator[Gateway]:
    """``start_gateway`` for a ``with`` block; stopped at its end when the test has not done so."""
    gateway = await start_gateway(config, folder, env)
    try:
        yield gateway
    finally:
        if gateway.exit_code is None:
            await gateway.stop()
