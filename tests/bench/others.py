"""Latency while the token is refreshed, memory of idle connections, time from exec to the first answer."""

import re
import sys
import time
from statistics import median

from tests.bench.peers import Peer
from tests.bench.proc import LOAD_CORE, BenchError, Faults, Proc, fetch, run, spawn
from tests.bench.report import Figure, number
from tests.bench.upstream import REPOSITORY, Rig, rig

IDLE_CONNECTIONS = 5000
REFRESH_DELAY = 0.3  # seconds that the token endpoint takes
TOKEN_LIFE = 3.0
_RATE = 1000.0  # requests a second, far below what any subject can do
_WAITS = re.compile(r"^opentv_proxy_token_wait_seconds_count\{[^}]*\} ([0-9.e+]+)$", re.MULTILINE)
_MARGIN = 0.005  # seconds around an exchange that still count as it: the gateway's work before and after


def latency(gateways: list[Peer], rounds: int, seconds: float, faults: Faults) -> list[Figure]:
    """p99 in refresh windows divided by p99 otherwise; the percentiles themselves in its note."""
    figure = Figure("latency", "p99 while a refresh is under way / p99 otherwise", "ratio")
    times: dict[str, list[list[float]]] = {}
    for _ in range(rounds):
        for peer in gateways:
            if faults.out(figure.key, peer.name):
                continue
            with faults.noting(figure.key, peer.name):
                during, otherwise, refreshes, waits = _latency(peer, seconds)
                row = [percentile(part, share) * 1000 for part in (during, otherwise) for share in (0.50, 0.99)]
                times.setdefault(peer.name, []).append([*row, refreshes, waits])
                figure.add(peer.name, row[1] / row[3])
    figure.note = _latency_note(times, seconds)
    return [figure]


def _latency_note(times: dict[str, list[list[float]]], seconds: float) -> str:
    """Percentiles in ms, medians over the rounds. times: peer -> rows of p50, p99, p50, p99, refreshes and waits."""
    lines = [
        f"{_RATE:g} requests/s at fixed moments on 32 connections, {seconds:g} s a round. No request failed.",
        f"Tokens live {TOKEN_LIFE:g} s, and the token endpoint takes {REFRESH_DELAY * 1000:g} ms.",
        "",
        "| proxy | refreshes | waited for one | p50 during, ms | p99 during | p50 otherwise | p99 otherwise |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, rows in times.items():
        cells = [number(median(column)) for column in zip(*(row[:4] for row in rows), strict=True)]
        refreshes, waits = (sum(column) for column in zip(*(row[4:] for row in rows), strict=True))
        lines.append(f"| {name} | {refreshes:.0f} | {waits:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _latency(peer: Peer, seconds: float) -> tuple[list[float], list[float], int, float]:
    """Latencies in seconds during refreshes and otherwise; how many refreshes there were, and waits for a token."""
    refresh: dict[str, object] = {"ahead": 0.3, "jitter": 0.1, "min_interval": "100ms"}
    with rig(lifetime=TOKEN_LIFE, delay=REFRESH_DELAY) as made:
        running = peer.start(made, refresh=refresh)
        try:
            running.ready()
            paced(running.port, _RATE, 1.0, made)
            waits = _waits(running.admin)
            rows = paced(running.port, _RATE, seconds, made)
            waits = _waits(running.admin) - waits
        finally:
            running.proc.stop()
        windows = [tuple(map(float, line.split())) for line in made.refresh_record.read_text().splitlines()]
    bad = [row for row in rows if row[2] != 200]
    if bad:
        raise BenchError(f"{peer.name}: {len(bad)} of {len(rows)} requests failed during refreshes, first {bad[0]}")
    inside, outside = split(rows, [(window[0] - _MARGIN, window[1] + _MARGIN) for window in windows])
    if len(inside) < 200 or len(outside) < 200:
        raise BenchError(
            f"{peer.name}: {len(inside)} requests during refreshes and {len(outside)} otherwise are too few"
        )
    return inside, outside, sum(rows[0][0] <= start <= rows[-1][0] for start, _ in windows), waits


def _waits(admin: int) -> float:
    """How many requests have waited for a token so far, by the gateway's own count."""
    found = _WAITS.findall(fetch(admin, "/metrics"))
    if not found:
        raise BenchError("the gateway shows no token_wait_seconds")
    return sum(map(float, found))


def paced(port: int, rate: float, seconds: float, made: Rig) -> list[tuple[float, float, int]]:
    """Requests at fixed moments: when each was due, its latency, its status (see ``tests.bench.paced``)."""
    output = made.folder / "paced"
    words = [str(port), str(rate), str(seconds), "32", str(output)]
    run([sys.executable, "-m", "tests.bench.paced", *words], timeout=seconds + 30, cwd=REPOSITORY)
    rows = (line.split() for line in output.read_text().splitlines())
    return [(float(due), float(took), int(status)) for due, took, status in rows]


def split(rows: list[tuple[float, float, int]], windows: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Latencies of the rows that overlap any window, and of the others. A row is (due, latency, status)."""
    inside: list[float] = []
    outside: list[float] = []
    for due, took, _ in rows:
        during = any(due <= end and due + took >= start for start, end in windows)
        (inside if during else outside).append(took)
    return inside, outside


def percentile(values: list[float], share: float) -> float:
    """Nearest-rank percentile of a list that is not empty."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def idle(made: Rig, peers: list[Peer], rounds: int, faults: Faults) -> list[Figure]:
    """KiB of memory that a keep-alive connection holds after its one request."""
    figure = Figure("idle", f"Memory of an idle keep-alive connection ({IDLE_CONNECTIONS:,} of them)", "KiB")
    whole = Figure("resident", "Memory of the process without connections", "MiB")
    whole.note = "Resident set; the figure above is of anonymous memory, as a connection brings no libraries."
    for _ in range(rounds):
        for peer in peers:
            if faults.out(figure.key, peer.name):
                continue
            with faults.noting(figure.key, peer.name):
                resident, grown = _idle(made, peer)
                figure.add(peer.name, grown / IDLE_CONNECTIONS / 1024)
                whole.add(peer.name, resident / (1 << 20))
    return [figure, whole]


def _idle(made: Rig, peer: Peer) -> tuple[int, int]:
    """Bytes resident before the connections, and anonymous bytes that came with them."""
    running = peer.start(made)
    try:
        running.ready()
        _hold(made, running.port, 200).stop()
        time.sleep(1.0)
        resident, before = running.proc.memory()
        holder = _hold(made, running.port, IDLE_CONNECTIONS)
        time.sleep(1.0)
        held = running.proc.memory()[1]
        holder.stop()
    finally:
        running.proc.stop()
    return resident, held - before


def _hold(made: Rig, port: int, connections: int) -> Proc:
    output = made.folder / f"idle-{time.monotonic_ns()}"
    words = [sys.executable, "-m", "tests.bench.idle", str(port), str(connections)]
    holder = spawn(words, core=LOAD_CORE, output=output, cwd=REPOSITORY)
    deadline = time.monotonic() + 60
    while holder.alive() and time.monotonic() < deadline:
        if b"ready" in output.read_bytes():
            return holder
        time.sleep(0.02)
    holder.stop()
    raise BenchError(f"{connections} connections could not be opened: {holder.last_words()}")


def start(made: Rig, peers: list[Peer], rounds: int, faults: Faults) -> list[Figure]:
    """Seconds from exec to the first good answer through the proxy; the gateway's login included."""
    figure = Figure("start", "From exec to the first proxied request", "s")
    spent = Figure("start-cpu", "CPU from exec to the first proxied request", "s")
    for number_of_round in range(rounds + 1):
        for peer in peers:
            if faults.out(figure.key, peer.name):
                continue
            with faults.noting(figure.key, peer.name):
                took, cpu = _start(made, peer)
                if number_of_round:  # the first start fills caches: compiled modules, pages
                    figure.add(peer.name, took)
                    spent.add(peer.name, cpu)
    return [figure, spent]


def _start(made: Rig, peer: Peer) -> tuple[float, float]:
    """Seconds that passed, and seconds of CPU."""
    began = time.monotonic()
    running = peer.start(made)
    try:
        running.ready()
        return time.monotonic() - began, running.proc.cpu_ns() / 1e9
    finally:
        running.proc.stop()
