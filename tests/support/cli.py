"""A command of ``opentv-proxy`` as a person runs it: a process of its own, until it ends."""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.gateway import ROOT, environment


@dataclass(frozen=True)
class Ended:
    """code: its exit code. out, err: what it wrote."""

    code: int
    out: str
    err: str


async def command(*arguments: str | Path, env: Mapping[str, str] | None = None, seconds: float = 30) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "proxy", *map(str, arguments)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(env),
        cwd=ROOT,
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ended(process.returncode or 0, out.decode(), err.decode())


def written(config: Mapping[str, Any], folder: Path) -> Path:
    """``config`` as a file for ``-c``."""
    file = folder / "proxy.yaml"
    file.write_text(yaml.safe_dump(dict(config), sort_keys=False))
    return file
