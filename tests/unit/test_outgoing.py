"""What a request awaits, and what becomes of it when the request ends meanwhile."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any, cast

from proxy.gateway.http1 import RequestHead
from proxy.gateway.outgoing import NOBODY, Outgoing


def outgoing() -> Outgoing:
    loop = asyncio.get_running_loop()
    inbound: Any = SimpleNamespace(gateway=SimpleNamespace(clock=loop.time, spawn=loop.create_task), deadline=0.0)
    return Outgoing(NOBODY, inbound, RequestHead(b"GET", b"/", 1, []), cast("Any", None), b"")


async def test_work_that_is_dropped_before_it_began_ends_without_a_warning() -> None:
    begun: list[str] = []

    async def work() -> None:
        begun.append("work")

    request = outgoing()
    request.spawn(work())
    request.drop()
    await asyncio.sleep(0.01)
    gc.collect()  # pytest makes an error of a coroutine that was never awaited
    assert begun == []


async def test_work_that_is_dropped_while_it_waits_is_cancelled() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    request = outgoing()
    request.spawn(work())
    await asyncio.sleep(0)
    request.drop()
    await asyncio.wait_for(ended.wait(), 1)
