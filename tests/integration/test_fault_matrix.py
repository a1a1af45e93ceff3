"""Each fault, on each way out of the gateway, while it does each thing, with a token in each state; docs/reliability.md
says the same. A long run (``make soak``) writes its tables, any other compares.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from itertools import count, groupby
from pathlib import Path

import pytest

from tests.support.fleet import LONG
from tests.support.gateway import ROOT
from tests.support.matrix import Cell, Row, Way, cells, run
from tests.support.redis import RedisServer, need_redis
from tests.support.stores import key_file

DOCUMENT = ROOT / "docs" / "reliability.md"
HEAD = (
    "| fault | doing | token | requests meanwhile | slowest | the provider sees | calls | well again after |\n"
    "| --- | --- | --- | --- | --: | --- | --: | --: |\n"
)
AGAIN = 8.0
"""Seconds within which all is well again: 5 promised, and some for a machine with other work."""


def table(rows: list[Row]) -> str:
    return HEAD + "".join(f"| {' | '.join((*shown(row), *figures(row)))} |\n" for row in rows)


def shown(row: Row) -> tuple[str, ...]:
    _, fault, doing, token = row.cell
    return fault, doing, token


def figures(row: Row) -> tuple[str, ...]:
    client, provider = row.outcome
    return client, f"{row.slowest:.1f} s", provider, str(row.grants.total()), f"{row.well:.1f} s"


def outcomes(text: str) -> dict[tuple[str, ...], tuple[str, str]]:
    """Of a table's rows what does not depend on time."""
    found = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines()[2:]]
    return {row[:3]: (row[3], row[5]) for row in found}


def written(way: Way) -> re.Match[str]:
    text = DOCUMENT.read_text()
    found = re.search(rf"<!-- {way}: begin -->\n(.*?)<!-- {way}: end -->", text, re.DOTALL)
    assert found is not None
    return found


Run = Callable[[Sequence[Cell]], Awaitable[list[Row]]]


async def compared(way: Way, run_cells: Run) -> None:
    """All of its cells. A cell that comes out otherwise has a second chance: the machine may have stood still."""
    chosen = list(cells(way))
    rows = {row.cell: row for row in await run_cells(chosen)}
    assert list(rows) == chosen
    if LONG:
        text, place = DOCUMENT.read_text(), written(way)
        DOCUMENT.write_text(text[: place.start(1)] + table(list(rows.values())) + text[place.end(1) :])
    told = outcomes(written(way)[1])
    assert list(told) == [cell[1:] for cell in chosen]
    differing = [cell for cell, row in rows.items() if row.outcome != told[cell[1:]] or not bounded(row)]
    if differing:
        rows = {row.cell: row for row in await run_cells(differing)}
    for cell in differing:
        assert bounded(rows[cell]), rows[cell]
        assert rows[cell].outcome == told[cell[1:]], rows[cell]


def bounded(row: Row) -> bool:
    return row.presented <= 2 and (row.by_chance or row.well < AGAIN)


@pytest.mark.parametrize("way", ["provider", "platform"])
async def test_a_fault_between_gateway_and_a_server_costs_what_the_document_says(way: Way, tmp_path: Path) -> None:
    numbers = count()

    async def run_cells(chosen: Sequence[Cell]) -> list[Row]:
        return await run(chosen, tmp_path / f"gateway{next(numbers)}")

    await compared(way, run_cells)


async def test_a_fault_between_gateway_and_redis_costs_what_the_document_says(tmp_path: Path) -> None:
    need_redis()
    server = RedisServer(tmp_path / "redis")
    await asyncio.to_thread(server.start)
    key, numbers = key_file(tmp_path), count()

    async def run_cells(chosen: Sequence[Cell]) -> list[Row]:
        """Who shares a gateway shares its Redis, and so the fault."""
        groups = [list(group) for _, group in groupby(chosen, lambda cell: cell[1])]
        runs = (run(group, tmp_path / f"gateway{next(numbers)}", server.port, key) for group in groups)
        return [row for rows in await asyncio.gather(*runs) for row in rows]

    try:
        await compared("Redis", run_cells)
    finally:
        await asyncio.to_thread(server.stop)
