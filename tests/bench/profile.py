"""Where a Python proxy's CPU goes: py-spy samples it under the usual load, C functions of its extensions included."""

import time
from collections import Counter
from pathlib import Path

from tests.bench import requests
from tests.bench.peers import Peer
from tests.bench.proc import LOAD_CORE, spawn
from tests.bench.report import number
from tests.bench.tools import find
from tests.bench.upstream import rig

_SECONDS = 10
_RATE = 400  # samples a second
_ROWS = 45
_POOL_THREAD = "Thread._bootstrap"  # threads of the default executor: they wait, which py-spy takes for work


def profile(peer: Peer, shape: requests.Shape) -> str:
    """A Markdown table of frames: share of samples in the frame itself, and in it or below it."""
    with rig() as made:
        running = peer.start(made, access_log=shape.access_log)
        try:
            running.ready()
            requests.load(made, running, shape, 1.0)
            output = made.folder / "profile"
            flags = ["--native", "-f", "raw", "-d", str(_SECONDS), "-r", str(_RATE), "-o", str(output)]
            spy = spawn(
                [find("py-spy"), "record", *flags, "-p", str(running.proc.tree()[-1])],
                core=LOAD_CORE,
                output=made.folder / "py-spy.out",
            )
            requests.load(made, running, shape, _SECONDS + 1.0)
            deadline = time.monotonic() + 30
            while spy.alive() and time.monotonic() < deadline:
                time.sleep(0.1)
            spy.stop()
            if not output.exists():
                return spy.last_words()
            return frames(output.read_text(), peer.name, shape.title)
        finally:
            running.proc.stop()


def frames(raw: str, name: str, title: str) -> str:
    """py-spy's raw stacks (``outer;inner;innermost count`` a line) added up by frame."""
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    total = 0
    for line in raw.splitlines():
        if _POOL_THREAD in line:
            continue
        stack, _, word = line.rpartition(" ")
        names = [_short(frame) for frame in stack.split(";")]
        count = int(word)
        total += count
        own[names[-1]] += count
        for frame in set(names):
            below[frame] += count
    lines = [
        f"### {name}: {title}, {total} samples",
        "",
        "| frame | itself | with what it calls |",
        "| --- | --- | --- |",
    ]
    inner = [frame for frame in below if below[frame] * 100 < total * 99]  # what stands above all says nothing
    order = sorted(inner, key=lambda frame: (-below[frame], frame))
    shown = [frame for frame in order if below[frame] * 200 >= total][:_ROWS]
    shown += [frame for frame, count in own.most_common(_ROWS) if frame not in shown and count * 200 >= total]
    for frame in shown:
        shares = (f"{number(100 * counted[frame] / total)} %" for counted in (own, below))
        lines.append(f"| `{frame}` | {' | '.join(shares)} |")
    return "\n".join(lines) + "\n"


def _short(frame: str) -> str:
    """``function (file:line)`` without the line and the folders, so that a function is one row."""
    function, _, place = frame.partition(" (")
    file = Path(place.rstrip(")").rsplit(":", 1)[0]).name if place else ""
    return f"{function} ({file})" if file else function
