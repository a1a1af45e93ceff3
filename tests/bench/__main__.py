"""``python -m tests.bench``: measures, prints a Markdown report, and with ``--write`` puts it into a document."""

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import growth, interpreters, lag, machine, others, pair, profile, report, requests, streaming, tools
from tests.bench.peers import Peer, available
from tests.bench.proc import LOAD_CORE, BenchError, Faults
from tests.bench.upstream import rig

SCENARIOS = (
    *(shape.key for shape in requests.SHAPES),
    *streaming.KEYS,
    *("start", "idle", "latency", "lag", "pair", "growth"),
)
_GROWTH_PEERS = ("caddy", "envoy", "gateway")  # a growth series takes long: only those that figures are judged by
_FEW = 3  # rounds, at most, of what takes long or varies little


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of one measurement (3)")
    parser.add_argument("--quick", action="store_true", help="one round of one second, to see that everything runs")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only this one (repeatable)")
    parser.add_argument("--peer", action="append", help="only proxies whose name begins so (repeatable)")
    parser.add_argument(
        "--python",
        action="append",
        metavar="[LABEL=]PATH",
        help="interpreter of the gateway and the naive proxy (default: this one's), used through the lock; repeatable",
    )
    parser.add_argument("--install", action="store_true", help="install missing peers first (apt-get, pip)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the report into FILE's marked block")
    parser.add_argument("--check", action="store_true", help="exit 1 when the gateway misses a must")
    parser.add_argument("--profile", action="store_true", help="instead: where the gateway's CPU goes (py-spy)")
    return parser.parse_args()


def _pythons(given: list[str] | None) -> dict[str, str]:
    """label -> interpreter; a name made of the version and its place where no label is given."""
    if not given:
        return {"default": sys.executable}
    named = (word.partition("=") for word in given)
    return {(left if mark else str(Path(left).parent)): (right if mark else left) for left, mark, right in named}


def _measure(peers: list[Peer], wanted: set[str], rounds: int, seconds: float, faults: Faults) -> list[report.Figure]:
    """Every wanted figure; a peer that fails in a scenario is left out of it and the others go on."""
    gateways = [peer for peer in peers if peer.name.startswith("gateway")]
    grown = [peer for peer in peers if peer.name.startswith(_GROWTH_PEERS)]
    shapes = [shape for shape in requests.SHAPES if shape.key in wanted]
    keys = [key for key in streaming.KEYS if key in wanted]
    few = min(rounds, _FEW)
    figures: list[report.Figure] = []
    with rig() as made:
        scenarios: dict[str, Callable[[], list[report.Figure]]] = {
            "requests": lambda: requests.measure(made, peers, shapes, rounds, seconds, faults),
            "streaming": lambda: streaming.measure(made, peers, keys, few, seconds, faults),
            "start": lambda: others.start(made, peers, rounds, faults),
            "idle": lambda: others.idle(made, peers, min(rounds, 2), faults),
            "latency": lambda: others.latency(gateways, few, max(6.0, seconds * 6), faults),
            "lag": lambda: lag.measure(made, gateways, few * seconds * 6, faults),
            "pair": lambda: pair.measure(made, gateways, few, seconds, faults),
            "growth": lambda: [
                *requests.measure(made, grown, list(requests.GROWTH), few, 1.0, faults),
                *growth.measure(made, gateways, few, 1.0, faults),
            ],
        }
        asked = wanted | ({"requests"} if shapes else set()) | ({"streaming"} if keys else set())
        for name, measure in scenarios.items():
            if name in asked:
                began = time.monotonic()
                with faults.surviving(name):
                    figures += measure()
                print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return figures


def _prepare() -> None:
    """This process and the load keep to their own core, and may open as many connections as the system allows."""
    os.sched_setaffinity(0, {LOAD_CORE})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    arguments = _arguments()
    rounds, seconds = (1, 1.0) if arguments.quick else (arguments.rounds, arguments.seconds)
    _prepare()
    if arguments.install:
        tools.install()
    for needed in ("nginx", "wrk"):
        tools.find(needed)
    pythons = {label: interpreters.prepare(python) for label, python in _pythons(arguments.python).items()}
    peers, absent = available(pythons)
    if arguments.peer:
        peers = [peer for peer in peers if any(peer.name.startswith(name) for name in arguments.peer)]
    for reason in absent:
        print(f"goes on without: {reason}", file=sys.stderr)
    if arguments.profile:
        for peer in (peer for peer in peers if peer.name.startswith("gateway")):
            for shape in requests.SHAPES:
                if shape.key in (arguments.scenario or ["get"]):
                    print(profile.profile(peer, shape))
        return 0
    busy = machine.busy()
    faults = Faults()
    figures = _measure(peers, set(arguments.scenario or SCENARIOS), rounds, seconds, faults)
    named = [(peer.name, peer.version) for peer in peers]
    facts = machine.facts(pythons, named, rounds, seconds, busy)
    text = report.document(figures, facts, absent + faults.words)
    print(text)
    if arguments.write:
        before = arguments.write.read_text() if arguments.write.exists() else ""
        arguments.write.write_text(report.replace_block(before, text))
    missed = report.missed(figures) if arguments.check else []
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as exc:
        print(exc, file=sys.stderr)
        sys.exit(2)
