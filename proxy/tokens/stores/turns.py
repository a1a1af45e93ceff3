"""Waiting for a lock that cannot wake anybody, and work that a caller may leave and that must not be left half done."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

FIRST_PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 0.1
"""Seconds between two looks. Most exchanges take less than the longest pause, and a look costs next to nothing."""

_AT_WORK: Final[set[asyncio.Task[Any]]] = set()  # asyncio itself keeps no reference to a task; each leaves at its end


async def turn(
    attempt: Callable[[], Coroutine[Any, Any, T | None]],
    undo: Callable[[T], Coroutine[Any, Any, None]],
    sleep: Callable[[float], Awaitable[None]],
) -> T:
    """What ``attempt`` gives once that is something. A caller that is cancelled leaves nothing taken behind: an attempt
    on its way ends, and ``undo`` gives back what it took."""
    pause = FIRST_PAUSE
    while True:
        attempting = _begun(attempt())
        try:
            taken = await asyncio.shield(attempting)
        except asyncio.CancelledError:
            # As the caller's own: whoever awaits its end knows that nothing is left behind.
            await whole(_given_back(attempting, undo))
            raise
        if taken is not None:
            return taken
        await sleep(pause)
        pause = min(pause * 1.5, LONGEST_PAUSE)


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """The work's result. A cancelled caller goes only when the work is done, which is short: what comes after it
    counts on that. One that is cancelled again goes at once, and the work is done all the same."""
    task = _begun(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


async def _given_back(attempting: asyncio.Task[T | None], undo: Callable[[T], Coroutine[Any, Any, None]]) -> None:
    await asyncio.wait((attempting,))
    if not attempting.cancelled() and attempting.exception() is None:
        taken = attempting.result()
        if taken is not None:
            await undo(taken)


def _begun(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    task = asyncio.ensure_future(work)
    _AT_WORK.add(task)
    task.add_done_callback(_over)
    return task


def _over(task: asyncio.Task[Any]) -> None:
    _AT_WORK.discard(task)
    if not task.cancelled():
        task.exception()  # its caller may be gone: then nobody is left to tell
