"""``python -m tests.pictures [NAME…]``: measures and draws, all or the named ones, into docs/images."""

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.pictures import draw, measure
from tests.support.gateway import ROOT

FOLDER = ROOT / "docs/images"
PICTURES = {
    "token-life": (measure.token_life, draw.token_life),
    "latency-around-a-refresh": (measure.latency, draw.latency),
}


def main() -> None:
    for name in sys.argv[1:] or PICTURES:
        measured, drawn = PICTURES[name]
        with tempfile.TemporaryDirectory() as folder:
            run = asyncio.run(measured(Path(folder)))
        FOLDER.mkdir(exist_ok=True)
        with draw.style():
            drawn(run, FOLDER / f"{name}.svg")


if __name__ == "__main__":
    main()
