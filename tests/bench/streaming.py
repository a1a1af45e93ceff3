"""CPU per gigabyte streamed, down and up, over one connection and over eight."""

import json
import sys
import time

from tests.bench.peers import Peer, Running
from tests.bench.proc import BenchError, Faults, run
from tests.bench.report import Figure
from tests.bench.upstream import BIG, REPOSITORY, Rig

KEYS = {f"{direction}{count}": (direction, count) for direction in ("down", "up") for count in (1, 8)}


def measure(rig: Rig, peers: list[Peer], keys: list[str], rounds: int, seconds: float, faults: Faults) -> list[Figure]:
    """CPU seconds of the proxy per 10^9 body bytes."""
    figures = []
    for key in keys:
        direction, count = KEYS[key]
        title = f"Streaming {direction}, bodies of {BIG >> 20} MiB, {count} connection{'s' if count > 1 else ''}"
        figures.append(Figure(key, title, "CPU s a GB", rate_unit="MB/s"))
    instances: dict[tuple[str, str], Running] = {}
    try:
        for peer in (peer for peer in peers if peer.streams):
            for direction in sorted({KEYS[key][0] for key in keys}):
                down = direction == "down"
                with faults.noting(direction, peer.name):
                    running = peer.start(rig, upstream=rig.upstream if down else rig.sink)
                    instances[peer.name, direction] = running
                    running.ready("/", frozenset({200 if down else 204}))
        for _ in range(rounds):
            for figure in figures:
                direction, count = KEYS[figure.key]
                for (name, way), running in instances.items():
                    if way != direction or faults.out(direction, name):
                        continue
                    with faults.noting(direction, name):
                        figure.add(name, *_sample(running, direction, count, seconds))
    finally:
        for running in instances.values():
            running.proc.stop()
    return figures


def _sample(running: Running, direction: str, connections: int, seconds: float) -> tuple[float, float]:
    words = [direction, str(running.port), str(connections), str(seconds), str(BIG)]
    before, began = running.proc.cpu_ns(), time.monotonic()
    result = json.loads(
        run([sys.executable, "-m", "tests.bench.streams", *words], timeout=seconds + 60, cwd=REPOSITORY)
    )
    spent, took = running.proc.cpu_ns() - before, time.monotonic() - began
    if result["faults"] or not result["bytes"]:
        faults = ", ".join(result["faults"])
        raise BenchError(f"{running.peer.name} streaming {direction}: {faults}; {running.proc.last_words()}")
    return spent / result["bytes"], result["bytes"] / took / 1e6
