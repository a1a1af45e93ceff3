"""What a run ran on: without it a figure means nothing."""

import os
import platform
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import interpreters, tools
from tests.bench.proc import LOAD_CORE, PROXY_CORE, BenchError, run
from tests.bench.upstream import REPOSITORY


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    try:
        commit = run(["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY).strip()
        dirty = run(["git", "status", "--porcelain", "--untracked-files=no", "proxy"], cwd=REPOSITORY).strip()
    except BenchError:
        return "?"
    return f"{commit}{' with uncommitted changes' if dirty else ''}"


def facts(
    pythons: dict[str, str], peers: list[tuple[str, str]], rounds: int, seconds: float, used: float
) -> list[tuple[str, str]]:
    """Rows (name, value) for the head of the report. peers: (name, version). used: what ``busy`` said before."""
    cores = f"{os.cpu_count()} cores; proxy on core {PROXY_CORE}, load and upstream on core {LOAD_CORE}"
    return [
        ("when", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, commit {_commit()}"),
        ("machine", f"{_cpu()}, {cores}"),
        ("kernel", f"{platform.system()} {platform.release().split('-')[0]}"),
        ("others' use of the CPU before the run", f"{used:.0%} of all cores"),
        *((f"Python ({label})", interpreters.describe(python)) for label, python in pythons.items()),
        ("proxies", ", ".join(f"{name} {version}" for name, version in peers)),
        ("load", f"wrk {tools.version('wrk')}; {rounds} interleaved rounds of {seconds:g} s each"),
    ]


def busy() -> float:
    """Share (0 to 1) of the whole machine's CPU that others use, watched for a second before the run."""
    before = _ticks()
    time.sleep(1.0)
    idle, total = (after - old for after, old in zip(_ticks(), before, strict=True))
    return 1 - idle / total if total else 0.0


def _ticks() -> tuple[int, int]:
    """Idle and total ticks since boot."""
    numbers = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return numbers[3] + numbers[4], sum(numbers)
