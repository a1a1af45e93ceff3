"""CPU per request: short exchanges on keep-alive connections, every variant and every peer in each round."""

import json
import time
from dataclasses import dataclass

from tests.bench.peers import Peer, Running
from tests.bench.proc import LOAD_CORE, BenchError, Faults, run
from tests.bench.report import Figure
from tests.bench.tools import find
from tests.bench.upstream import ANSWERS, Rig

CONNECTIONS = 32
UNIT = "CPU µs a request"

_DONE = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"requests": %d, "seconds": %.6f, "refused": %d, "broken": %d}\\n',
    summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write + e.timeout))
end
"""

# with Host, and as wrk sends nothing else, twelve
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "gzip, deflate, br",
    "Accept-Language": "en-GB,en;q=0.8,fr;q=0.5",
    "Authorization": "Bearer replaced",
    "Cache-Control": "no-cache",
    "Content-Language": "en",
    "Cookie": "JSESSIONID=0123456789ABCDEF0123456789ABCDEF; ROUTE=node-3",
    "Origin": "https://crm.example.com",
    "Referer": "https://crm.example.com/accounts/4711",
    "User-Agent": "LegacyCRM/7.2 (Java/1.8.0_392)",
    "X-Requested-With": "XMLHttpRequest",
}


@dataclass(frozen=True)
class Shape:
    """One kind of request. script: Lua for wrk beyond the result line. series, step: as in ``Figure``."""

    key: str
    title: str
    path: str = "/accounts/4711?fields=name,status"
    script: str = ""
    access_log: bool = False
    connections: int = CONNECTIONS
    series: str = ""
    step: str = ""


SHAPES = (
    Shape("get", "GET, 700-byte JSON answer"),
    Shape(
        "headers",
        "GET with 12 request and 13 response headers",
        path="/headers/accounts/4711?fields=name,status",
        script="".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}\n" for name, value in _HEADERS.items()),
    ),
    Shape("access", "GET with the access log written to a file", access_log=True),
    Shape(
        "post",
        "POST of 1 KiB, 700-byte JSON answer",
        script='wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n'
        'wrk.body = \'{"pad": "\' .. string.rep("z", 1013) .. \'"}\'\n',
    ),
)

GROWTH = (
    *(
        Shape(
            f"connections{count}",
            f"GET on {count} connections",
            connections=count,
            series="connections",
            step=f"{count:,}",
        )
        for count in (1, 8, 64, 512)
    ),
    *(
        Shape(f"answer{size}", f"GET of {size} bytes", path=f"/sizes/{size}", series="answers", step=step)
        for step, size in ANSWERS.items()
    ),
)


def measure(
    rig: Rig, peers: list[Peer], shapes: list[Shape], rounds: int, seconds: float, faults: Faults
) -> list[Figure]:
    """CPU microseconds of the proxy per request, for each shape and peer, in rounds that interleave them all."""
    figures = [
        Figure(shape.key, shape.title, UNIT, rate_unit="requests/s", series=shape.series, step=shape.step)
        for shape in shapes
    ]
    instances: dict[tuple[str, bool], Running] = {}
    try:
        for peer in peers:
            for log in sorted({shape.access_log for shape in shapes}):
                with faults.noting(_log_words(log), peer.name):
                    running = instances[peer.name, log] = peer.start(rig, access_log=log)
                    running.ready()
                    load(rig, running, shapes[0], min(seconds, 1.0))
        for _ in range(rounds):
            for shape, figure in zip(shapes, figures, strict=True):
                for peer in peers:
                    if faults.out(_log_words(shape.access_log), peer.name) or faults.out(shape.key, peer.name):
                        continue
                    with faults.noting(shape.key, peer.name):
                        figure.add(peer.name, *sample(rig, instances[peer.name, shape.access_log], shape, seconds))
    finally:
        for running in instances.values():
            running.proc.stop()
    return figures


def _log_words(access_log: bool) -> str:
    return "start with access log" if access_log else "start"


def sample(rig: Rig, running: Running, shape: Shape, seconds: float) -> tuple[float, float]:
    """CPU microseconds a request, and requests a second."""
    if running.access_log:
        running.access_log.write_bytes(b"")  # it lies in memory; all peers append
    before = running.proc.cpu_ns()
    result = load(rig, running, shape, seconds)
    spent = running.proc.cpu_ns() - before
    if running.access_log:
        _check_logged(running, result["requests"])
    return spent / 1000 / result["requests"], result["requests"] / result["seconds"]


def _check_logged(running: Running, requests: float) -> None:
    """An access log that is not written would look cheap; buffered last lines may come a little later."""
    if running.access_log is None:
        return
    time.sleep(0.1)
    lines = running.access_log.read_bytes().count(b"\n")
    if lines < requests * 0.9 and running.peer.name != "envoy":
        raise BenchError(f"{running.peer.name} wrote {lines} lines of access log for {requests:.0f} requests")


def load(rig: Rig, running: Running, shape: Shape, seconds: float, core: int = LOAD_CORE) -> dict[str, float]:
    """What wrk counts: ``requests``, and the ``seconds`` it took. BenchError when one of them failed."""
    script = rig.folder / f"{shape.key}.lua"
    script.write_text(shape.script + _DONE)
    url = f"http://127.0.0.1:{running.port}{shape.path}"
    flags = ["-t1", f"-c{shape.connections}", f"-d{max(1, round(seconds))}s", "-s", str(script)]
    line = run([find("wrk"), *flags, url], core=core, timeout=seconds + 30).strip().splitlines()[-1]
    result: dict[str, float] = json.loads(line)
    if result["refused"] or result["broken"] or not result["requests"]:
        raise BenchError(f"{running.peer.name} with {shape.title}: {line}; {running.proc.last_words()}")
    return result
