"""Two processes on one port (``listen.reuse_port``) with one file store, against one process set up the same way.

What a second process adds in throughput can only be seen where it has a core of its own, and the load another one:
four cores. On fewer, both share the proxy's core, and what is measured is whether two cost more than one.
"""

import base64
import os
import secrets
from pathlib import Path

from tests.bench.peers import Peer, Running
from tests.bench.proc import LOAD_CORE, PROXY_CORE, Faults, free_port, wait_for
from tests.bench.report import Figure
from tests.bench.requests import Shape, load
from tests.bench.upstream import Rig

CORES_NEEDED = 4
_SECOND_CORE = 2
_WRK_CORE = 3
_SHAPE = Shape("pair", "GET", connections=64)  # the kernel spreads connections by their hash: the more, the evener


def measure(rig: Rig, gateways: list[Peer], rounds: int, seconds: float, faults: Faults) -> list[Figure]:
    """Throughput of two divided by that of one, where there are the cores; and CPU a request, the same way."""
    wide = (os.cpu_count() or 1) >= CORES_NEEDED
    rate = Figure("pair", "Two processes on one port: throughput against one", "ratio")
    cost = Figure("pair-cpu", "Two processes on one port: CPU a request against one", "ratio")
    if not wide:
        rate.unmeasured = f"{os.cpu_count()} cores: no core for the second process, {CORES_NEEDED} are needed"
    shares: list[float] = []
    for peer in gateways:
        with faults.noting("pair", peer.name):
            _compare(rig, peer, (rate if wide else None, cost), rounds, seconds, shares)
    if shares:
        cost.note = (
            f"64 connections; the busier of the two had {min(shares):.0%} to {max(shares):.0%} of the work. "
            + ("Each has a core of its own." if wide else "Both share the one core that proxies have here.")
        )
    return [rate, cost]


def _compare(
    rig: Rig, peer: Peer, figures: tuple[Figure | None, Figure], rounds: int, seconds: float, shares: list[float]
) -> None:
    groups: list[list[Running]] = []
    wrk = _WRK_CORE if figures[0] is not None else LOAD_CORE
    try:
        for cores in ((PROXY_CORE,), (PROXY_CORE, _SECOND_CORE if figures[0] is not None else PROXY_CORE)):
            groups.append([])
            _start(rig, peer, cores, groups[-1])
            load(rig, groups[-1][0], _SHAPE, 1.0, wrk)
        for _ in range(rounds):
            (one, _), (two, spent) = (_sample(rig, group, seconds, wrk) for group in groups)
            if figures[0] is not None:
                figures[0].add(peer.name, two[1] / one[1])
            figures[1].add(peer.name, two[0] / one[0])
            shares.append(max(spent) / sum(spent))
    finally:
        for running in (running for group in groups for running in group):
            running.proc.stop()


def _start(rig: Rig, peer: Peer, cores: tuple[int, ...], group: list[Running]) -> None:
    """One process a core, on one port and one store."""
    shared = rig.folder / f"shared-{peer.name}-{len(cores)}"
    shared.mkdir(mode=0o700)
    _write_key(shared / "key")
    port = free_port()
    for core in cores:
        running = peer.start(rig, port=port, shared=shared, core=core)
        group.append(running)
        wait_for(running.proc, running.admin, "/readyz", frozenset({200}))


def _write_key(path: Path) -> None:
    path.touch(mode=0o600)
    path.write_bytes(base64.b64encode(secrets.token_bytes(32)) + b"\n")


def _sample(rig: Rig, group: list[Running], seconds: float, wrk: int) -> tuple[tuple[float, float], list[int]]:
    """CPU nanoseconds a request and requests a second; CPU nanoseconds of each process."""
    before = [running.proc.cpu_ns() for running in group]
    result = load(rig, group[0], _SHAPE, seconds, wrk)
    spent = [running.proc.cpu_ns() - old for running, old in zip(group, before, strict=True)]
    return (sum(spent) / result["requests"], result["requests"] / result["seconds"]), spent
