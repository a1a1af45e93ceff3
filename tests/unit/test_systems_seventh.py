"""docs/adding-a-system.md as it stands: its adapter runs, its table holds, and a keeper keeps its token."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs/adding-a-system.md"


def page() -> dict[str, Any]:
    """What the page's two files define, in one namespace."""
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE):
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 - our own document: that it runs is the test
    return names


def rows() -> Iterator[tuple[Any, ...]]:
    (mark,) = page()["test_what_comes_in"].pytestmark
    yield from mark.args[1]


def test_the_pages_adapter_sends_what_the_page_says() -> None:
    page()["test_what_goes_out"]()


@pytest.mark.parametrize(("step", "status", "body", "result"), list(rows()))
def test_the_pages_table_holds(step: str, status: int, body: bytes, result: str) -> None:
    page()["test_what_comes_in"](step, status, body, result)


def test_the_page_names_places_that_exist() -> None:
    for name in re.findall(r"`(proxy/[a-z_/.]+)`", PAGE.read_text()):
        assert (PAGE.parents[1] / name).exists(), name
