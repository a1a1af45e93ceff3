"""How late the gateway's event loop runs a timer while its core is half busy, from the gateway's own metric."""

import re
from math import inf

from tests.bench.peers import Peer
from tests.bench.proc import BenchError, Faults, fetch
from tests.bench.report import Figure
from tests.bench.requests import SHAPES, Shape, load, sample
from tests.bench.upstream import Rig

_CONNECTIONS = 64
_BUCKET = re.compile(r'^opentv_proxy_event_loop_lag_seconds_bucket\{le="([^"]+)"\} ([0-9.e+]+)$', re.MULTILINE)


def measure(rig: Rig, gateways: list[Peer], seconds: float, faults: Faults) -> list[Figure]:
    """p99 of the lag in milliseconds, over the whole time: the gateway takes only four readings a second."""
    figure = Figure("lag", "Event loop lag at half load, p99", "ms")
    lines: list[str] = []
    for peer in gateways:
        with faults.noting(figure.key, peer.name):
            lines.append(_measure(rig, peer, seconds, figure))
    if lines:
        figure.note = (
            f"{_CONNECTIONS} connections, each with pauses of random length between its requests, {seconds:g} s. "
            f"Interpolated in its bucket, as Prometheus does it. {' '.join(lines)}"
        )
    return [figure]


def _measure(rig: Rig, peer: Peer, seconds: float, figure: Figure) -> str:
    running = peer.start(rig)
    try:
        running.ready()
        sample(rig, running, SHAPES[0], 1.0)  # the first requests warm it up
        cost, _ = sample(rig, running, SHAPES[0], 1.0)
        spent = running.proc.cpu_ns()
        load(rig, running, _half(cost), 2.0)
        cost *= (running.proc.cpu_ns() - spent) / 2e9 / 0.5  # pauses are in whole milliseconds, and answers take time
        before, spent = _buckets(running.admin), running.proc.cpu_ns()
        result = load(rig, running, _half(cost), seconds)
        spent, after = running.proc.cpu_ns() - spent, _buckets(running.admin)
    finally:
        running.proc.stop()
    counts = [(bound, count - old) for (bound, count), (_, old) in zip(after, before, strict=True)]
    share = spent / 1e9 / result["seconds"]
    figure.add(peer.name, quantile(counts, 0.99) * 1000)
    rate = result["requests"] / result["seconds"]
    return f"{peer.name}: {counts[-1][1]:.0f} readings; {rate:,.0f} requests/s kept it {share:.0%} busy."


def _half(cost: float) -> Shape:
    """As many requests as keep a core half busy when one takes cost microseconds of it."""
    pause = 2 * cost * _CONNECTIONS / 1000  # milliseconds, on average
    script = f"function delay() return math.random(0, {max(1, round(2 * pause))}) end\n"
    return Shape("lag", "GET at half load", script=script, connections=_CONNECTIONS)


def _buckets(admin: int) -> list[tuple[float, float]]:
    """Upper bounds in seconds, and how many observations so far were at most that."""
    found = [(float(bound), float(count)) for bound, count in _BUCKET.findall(fetch(admin, "/metrics"))]
    if not found:
        raise BenchError("the gateway shows no event_loop_lag_seconds")
    return found


def quantile(buckets: list[tuple[float, float]], share: float) -> float:
    """Of a cumulative histogram, linear inside a bucket; the last finite bound where it lies above that."""
    rank = share * buckets[-1][1]
    below, low = 0.0, 0.0
    for bound, count in buckets:
        if count >= rank and count > below:
            return low if bound == inf else low + (bound - low) * (rank - below) / (count - below)
        below, low = count, (low if bound == inf else bound)
    raise BenchError("there are no observations")
