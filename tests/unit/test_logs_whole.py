"""No line is lost or cut, however stderr was opened (a container's PYTHONUNBUFFERED) and whatever interrupts."""

import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

LINES = 200
_PROGRAM = f"""
import asyncio, signal
from proxy import logs

async def main():
    signal.signal(signal.SIGUSR1, lambda *_: None)
    access = logs.setup("info", "json", "all")
    for number in range({LINES}):
        access.write(
            route="/", method="GET", path="/" + "a/" * 250, status=200, duration_s=0.1, upstream_s=0.1,
            token_wait_s=0.0, correlation_id="c", replayed=False, client="127.0.0.1", bytes_in=0, bytes_out=number,
        )
    access.flush()
    logs.get("proxy").info("the end")

asyncio.run(main())
"""


def _unread(descriptor: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0])


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_signal_while_nobody_reads_costs_no_line(unbuffered: str) -> None:
    """The kernel takes part of a write when a signal comes at a full pipe: the rest is written after it."""
    command = [sys.executable, "-c", _PROGRAM]
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=env) as process:  # noqa: S603 - our own
        assert process.stderr is not None
        before, deadline = -1, time.monotonic() + 20
        while (now := _unread(process.stderr.fileno())) == 0 or now != before:  # until the pipe is full
            assert time.monotonic() < deadline
            before = now
            time.sleep(0.1)
        process.send_signal(signal.SIGUSR1)
        lines = process.stderr.read().decode().splitlines()
    assert process.returncode == 0
    assert [json.loads(line).get("bytes_out") for line in lines] == [*range(LINES), None]
