"""What more routes and identities cost: the same request on the last of 1, 10 and 100."""

from tests.bench.peers import Peer, Running
from tests.bench.proc import Faults
from tests.bench.report import Figure
from tests.bench.requests import UNIT, Shape, load, sample
from tests.bench.upstream import Rig

COUNTS = (1, 10, 100)
SERIES = "routes"


def measure(rig: Rig, gateways: list[Peer], rounds: int, seconds: float, faults: Faults) -> list[Figure]:
    """CPU microseconds a request, with as many routes as identities."""
    figures = [
        Figure(f"routes{count}", f"GET with {count} routes", UNIT, series=SERIES, step=str(count)) for count in COUNTS
    ]
    instances: dict[tuple[str, int], Running] = {}
    try:
        for peer in gateways:
            for count in COUNTS:
                with faults.noting(SERIES, peer.name):
                    running = instances[peer.name, count] = peer.start(rig, routes=count)
                    running.ready(_path(count))
                    load(rig, running, _shape(count), 1.0)
        for _ in range(rounds):
            for figure, count in zip(figures, COUNTS, strict=True):
                for peer in gateways:
                    if not faults.out(SERIES, peer.name):
                        with faults.noting(SERIES, peer.name):
                            figure.add(peer.name, *sample(rig, instances[peer.name, count], _shape(count), seconds))
    finally:
        for running in instances.values():
            running.proc.stop()
    return figures


def _path(count: int) -> str:
    prefix = "" if count == 1 else f"/r{count - 1}"
    return f"{prefix}/accounts/4711?fields=name,status"


def _shape(count: int) -> Shape:
    return Shape(f"routes{count}", f"GET with {count} routes", path=_path(count))
