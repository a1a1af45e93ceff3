"""File descriptors: raised, found too few, found gone; each in words, and not too often."""

import asyncio
import errno
import io
import json
import logging
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from proxy import logs
from proxy.config import Config, parse_config
from proxy.descriptors import Descriptors, shortage


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level, config = root.handlers, root.level, structlog.get_config()
    stream = io.StringIO()
    logs.setup("info", "json", "all", stream)
    yield stream
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**config)


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def configured(connections: int) -> Config:
    limits = {"connections": connections, "connections_per_address": connections}
    return parse_config({"routes": [{"path": "/", "upstream": "http://127.0.0.1:1"}], "limits": limits})


def none_left() -> None:
    raise OSError(errno.EMFILE, "Too many open files")


def test_the_soft_limit_becomes_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 512), hard))
    try:
        assert Descriptors().provide(configured(1)) == []
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_connections_than_descriptors_are_told_with_both_figures() -> None:
    """Those to upstreams count, as many as there may be."""
    assert shortage(configured(500), 956) is None
    assert "may take 956 file" in (shortage(configured(500), 955) or "")
    assert "may take 400 file" in (shortage(configured(100), 399) or "")
    words = shortage(configured(10_000), 4096)
    assert words is not None
    assert "limits.connections is 10000" in words
    assert "10456 file descriptors" in words
    assert "may open 4096" in words


@pytest.mark.parametrize("looking", [True, False])
async def test_that_none_is_left_is_one_line_in_ten_seconds(log: io.StringIO, looking: bool) -> None:
    """Found by itself, or told by asyncio, a line a second and a connection."""
    clock = Clock()
    descriptors = Descriptors(clock, none_left)
    context = {"message": "any", "exception": OSError(errno.EMFILE, "Too many open files"), "socket": object()}
    for clock.now in (0.0, 1.0, 9.9, 10.0, 11.0):
        if looking:
            descriptors.look()
        else:
            descriptors.loop_exception(asyncio.get_running_loop(), context)
    first, second = records(log)
    assert first["event"] == second["event"] == "no file descriptor left"
    assert (first["level"], first["reason"]) == ("error", "Too many open files")
    assert "limits.connections" in first["words"]
    assert "exception" not in first


async def test_every_other_exception_of_the_loop_is_told_as_before(log: io.StringIO) -> None:
    handle = Descriptors(Clock()).loop_exception
    for context in ({"message": "m", "exception": OSError(errno.EMFILE, "x")}, {"message": "m", "socket": object()}):
        handle(asyncio.get_running_loop(), context)
    assert [record["logger"] for record in records(log)] == ["asyncio", "asyncio"]


def test_while_there_are_some_nothing_is_said(log: io.StringIO) -> None:
    Descriptors().look()
    assert log.getvalue() == ""


async def test_asyncio_itself_tells_of_a_connection_it_cannot_accept(log: io.StringIO) -> None:
    """The shape of its context is no promise, so it is looked at here."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    descriptors = Descriptors()

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        descriptors.loop_exception(loop, context)
        told.set()

    loop.set_exception_handler(handler)
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    client = socket.socket()
    client.setblocking(False)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno(), hard))
    try:
        client.connect_ex(server.sockets[0].getsockname())
        async with asyncio.timeout(10):
            await told.wait()
        descriptors.look()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        client.close()
        server.close()
        await server.wait_closed()
    assert [record["event"] for record in records(log)] == ["no file descriptor left"]
