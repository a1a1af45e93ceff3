"""``make status-picture``: the README's picture of the status page, taken by Chromium of a gateway process at work."""

import asyncio
import re
import tempfile
from pathlib import Path
from typing import Final

from playwright.async_api import expect

from tests.support.browser import chromium, opened
from tests.support.gateway import ROOT
from tests.support.status_scene import status_scene

PICTURE: Final = ROOT / "docs/images/status-page.png"
SIZE: Final = (1000, 830)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            status_scene(Path(folder), words="Unknown error") as scene,
            chromium() as browser,
            opened(browser, scene.url, SIZE) as page,
        ):
            # By then some of each token's life is over, and there is something to see of it.
            await expect(page.locator("#asof")).to_contain_text(re.compile(r"up 5\d\ss"), timeout=60_000)
            await page.screenshot(path=PICTURE)


if __name__ == "__main__":
    asyncio.run(main())
