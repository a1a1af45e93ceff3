"""A real browser for tests: Debian's ``chromium``, driven over its own protocol. Nothing is ever downloaded."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from axe_playwright_python.async_playwright import Axe  # type: ignore[import-untyped]  # it has none
from playwright.async_api import Browser, Page, async_playwright, expect

PROGRAM: Final = "chromium"
# In a container there is no GPU, no user namespace for its sandbox, and nobody it should call home to.
_ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE: Final = (360, 740)
DESKTOP: Final = (1280, 900)
_PATIENCE: Final = 15_000  # milliseconds that a page may take for anything
expect.set_options(timeout=_PATIENCE)


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """One browser; each ``page`` in it is a stranger to the others."""
    program = shutil.which(PROGRAM)
    assert program is not None, f"{PROGRAM} is not installed"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def stranger(
    browser: Browser, size: tuple[int, int] = DESKTOP, *, dark: bool = False, script: bool = True
) -> AsyncIterator[Page]:
    """An empty page of somebody who was never here. size: CSS pixels."""
    width, height = size
    context = await browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        java_script_enabled=script,
        locale="en-GB",
    )
    try:
        page = await context.new_page()
        page.set_default_timeout(_PATIENCE)
        yield page
    finally:
        await context.close()


@contextlib.asynccontextmanager
async def opened(
    browser: Browser,
    url: str,
    size: tuple[int, int] = DESKTOP,
    *,
    dark: bool = False,
    script: bool = True,
    objections: str = "",
) -> AsyncIterator[Page]:
    """A page at ``url``. A failure at its end when it asked anybody else for anything, or when the browser warned of
    it, as it does of all that a Content-Security-Policy refuses. objections: a word of the warnings that are meant."""
    said: list[str] = []
    async with stranger(browser, size, dark=dark, script=script) as page:
        page.on("console", lambda message: said.append(message.text) if message.type in ("warning", "error") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith((url, "data:")) else said.append(request.url))
        await page.goto(url)
        yield page
    assert [words for words in said if not objections or objections not in words] == []


async def accessibility(page: Page) -> list[str]:
    """What axe-core finds wrong, all its rules (WCAG A, AA, AAA apart from contrast, and its best practices)."""
    options = {"resultTypes": ["violations"]}
    found: dict[str, Any] = (await Axe().run(page, options=options)).response
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found["violations"]
        for node in violation["nodes"]
    ]


def need_chromium() -> None:
    """A skip with what to install; in CI, and with REQUIRE_CHROMIUM, a failure."""
    if shutil.which(PROGRAM) is None:
        words = f"{PROGRAM} is not installed (Debian: apt-get install chromium)"
        if os.environ.get("CI") or os.environ.get("REQUIRE_CHROMIUM"):
            pytest.fail(words)
        pytest.skip(words)
