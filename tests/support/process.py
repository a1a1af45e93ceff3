"""A command of ``opentv-proxy`` that runs until it is told to end: a process of its own, read line by line."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from tests.support.gateway import ROOT, environment, until


class Process:
    """out, err: the lines it has written so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.out: list[str] = []
        self.err: list[str] = []
        self._process = process
        assert process.stderr is not None
        self._readers = [asyncio.create_task(_collect(process.stderr, self.err))]
        if process.stdout is not None:
            self._readers.append(asyncio.create_task(_collect(process.stdout, self.out)))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        return self._process.returncode

    def words(self) -> str:
        return "\n".join([*self.out, *self.err[-40:]])

    def found(self, pattern: str) -> re.Match[str] | None:
        """The first line of stdout with this in it."""
        return next((match for line in self.out if (match := re.search(pattern, line))), None)

    async def says(self, pattern: str, seconds: float = 15.0) -> str:
        """Wait for a line of stdout; its first group."""

        def there() -> bool:
            assert self.code is None, f"it ended with {self.code}:\n{self.words()}"
            return self.found(pattern) is not None

        await until(there, seconds, f"a line like {pattern}; there is:\n{self.words()}")
        match = self.found(pattern)
        assert match is not None
        return match[1]

    def send(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def ended(self, seconds: float = 15.0) -> int:
        """Its exit code, once it has ended by itself and all its output is read."""
        try:
            async with asyncio.timeout(seconds):
                code = await self._process.wait()
                await asyncio.gather(*self._readers)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise AssertionError(f"it did not end within {seconds} s:\n{self.words()}") from None
        return code


async def _collect(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while raw := await stream.readline():
        lines.append(raw.decode().rstrip("\n"))


@contextlib.asynccontextmanager
async def running(
    *arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT, read: bool = True
) -> AsyncIterator[Process]:
    """``python -m proxy …``, killed at the end if it still runs. read: False gives it a stdout that nobody reads."""
    ours, theirs = os.pipe()
    os.close(ours)  # whoever writes into the other end gets EPIPE
    try:
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-m", "proxy", *map(str, arguments)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if read else theirs,
            stderr=asyncio.subprocess.PIPE,
            env={**environment(env), "PYTHONUNBUFFERED": ""},  # as people run it
            cwd=cwd,
            limit=1 << 20,
        )
    finally:
        os.close(theirs)
    process = Process(started)
    try:
        yield process
    finally:
        process.send(signal.SIGKILL)
        await process.ended()
