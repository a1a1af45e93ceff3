"""A process of its own that works on a file store until it is killed: ``python -m tests.support.storework FOLDER …``.

``hold``: takes the lock, says so, and stays. ``saves N``: N times, a child that saves without pause is killed at some
moment, and what it left is looked at; prints a JSON object with what was found.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.stores import PAIR, Workshop


def section(folder: Path, place: str) -> dict[str, Any]:
    return {"file": {"path": f"{folder}/{place}", "key_file": str(folder / "keys")}}


async def hold(workshop: Workshop) -> None:
    async with workshop.store().lock("opentv"):
        sys.stdout.write("held\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


async def save_for_ever(workshop: Workshop, begin: int, done: int) -> None:
    """Writes each number into ``done`` once its pair is safe."""
    store = workshop.store()
    number = begin
    while True:
        async with store.lock("opentv"):
            await store.save("opentv", replace(PAIR, access=f"{number}"))
            await store.save("other", replace(PAIR, access=f"{number}"))
        os.write(done, f"{number}\n".encode())
        number += 1


def killed_while_saving(workshop: Workshop, begin: int) -> int:
    """One child, killed after some milliseconds. The last number that it said was safe."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reads)
        try:
            asyncio.run(save_for_ever(workshop, begin, writes))
        finally:
            os._exit(1)
    os.close(writes)
    time.sleep(random.uniform(0.005, 0.06))  # noqa: S311 - moments, not secrets
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reads, "rb") as stream:
        said = [int(line) for line in stream.read().splitlines()]
    return said[-1] if said else begin - 1


async def look(workshop: Workshop) -> tuple[list[int], bool]:
    """The numbers stored, and whether the lock was left by a dead holder."""
    store = workshop.store()
    found = [await store.load(name) for name in ("opentv", "other")]
    async with asyncio.timeout(5), store.lock("opentv") as lease:
        return [int(pair.access) if pair else 0 for pair in found], lease.orphaned


def saves(workshop: Workshop, times: int) -> dict[str, Any]:
    report: dict[str, Any] = {"kills": times, "wrong": 0, "orphaned": 0}
    seen = [0, 0]
    for _ in range(times):
        said = killed_while_saving(workshop, max(seen) + 1)
        numbers, orphaned = asyncio.run(look(workshop))
        # What was said to be safe or found before; or one more, when it was killed between the rename and the word.
        allowed = [(said, said + 1) if said > max(seen) else (before, max(seen) + 1) for before in seen]
        report["wrong"] += any(number not in some for number, some in zip(numbers, allowed, strict=True))
        report["orphaned"] += orphaned
        seen = numbers
    return report | {"saved": max(seen), "told": workshop.told.words}


def main() -> None:
    folder, place, what, *more = sys.argv[1:]
    workshop = Workshop(section(Path(folder), place))
    if what == "hold":
        asyncio.run(hold(workshop))
    else:
        sys.stdout.write(json.dumps(saves(workshop, int(more[0]))))


if __name__ == "__main__":
    main()
