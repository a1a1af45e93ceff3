"""The drawing: dark on light, legible at 800 pixels, nothing smoothed and nothing left out.

SVG, as it is sharp on every screen and small; the same measurement gives the same file.
"""

import time
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from tests.pictures.measure import Run

INK, BLUE, ORANGE, RED, GREEN, BAND = "#1f2328", "#0969da", "#bc4c00", "#cf222e", "#1a7f37", "#d8dee4"
SIZE: Final = (8.0, 4.6)


def style() -> AbstractContextManager[None]:
    """For as long as pictures are drawn."""
    return mpl.rc_context(
        {
            "font.family": "DejaVu Sans",
            "font.size": 9,
            "text.color": INK,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.color": INK,
            "ytick.color": INK,
            "legend.frameon": False,
            "svg.hashsalt": "opentv-auth-proxy",
        }
    )


def token_life(run: Run, file: Path) -> None:
    figure, (life, answers) = _two(run, (3, 1))
    life.plot(*_xy(run, "life"), color=BLUE, linewidth=1.8, label="life left of the token in use, s")
    _bands(life, run, "down")
    _bands(answers, run, "down")
    (begin, end), *_ = run.bands["down"]
    life.text((begin + end) / 2, 31, "provider down", ha="center", va="bottom")
    failed = _steps(run, "failures")
    left = dict(run.lines["life"])
    life.plot(failed, [left[at] for at in failed], "x", color=RED, label="a refresh that failed", markersize=7)
    life.set_ylim(0, 35)
    life.set_yticks(range(0, 31, 10))
    life.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0)
    answers.plot(*_xy(run, "good"), color=GREEN, label="answers 2xx, per s")
    answers.plot(*_xy(run, "bad"), color=RED, label="answers 5xx, per s")
    answers.set_ylim(-0.4, 8)
    answers.set_yticks([0, 5])
    answers.legend(loc="center left", bbox_to_anchor=(0, 0.35), ncols=2)
    _finish(figure, run, file, "demo --traffic, tokens of 30 s")


def latency(run: Run, file: Path) -> None:
    figure, (life, _) = _two(run, (1, 0))
    life.plot(*_xy(run, "p95"), color=ORANGE, linewidth=1.8, label="p95")
    life.plot(*_xy(run, "p50"), color=BLUE, linewidth=1.8, label="p50")
    _bands(life, run, "refresh")
    for begin, end in run.bands["refresh"]:
        refused = any(begin - 1 < at < end for at, _ in run.bands["refused"])
        words = "token refused:\nall wait for\nthe new one" if refused else "refresh ahead:\nnobody waits"
        life.text((begin + end) / 2, 6, words, ha="center", va="bottom")
    life.set_yscale("log")
    life.set_ylim(0.0004, 30)
    life.yaxis.set_major_formatter(FuncFormatter(_seconds))
    life.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, borderaxespad=0, title="latency of requests")
    _finish(figure, run, file, "demo, 50 requests a second, a token endpoint that takes 2 s")


def _two(run: Run, heights: tuple[int, int]) -> tuple[Figure, tuple[Axes, Axes]]:
    figure = Figure(figsize=SIZE, layout="constrained")
    if heights[1]:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    else:
        above = below = figure.subplots()
    below.set_xlabel("seconds")
    below.set_xlim(0, run.end - run.start)
    return figure, (above, below)


def _xy(run: Run, name: str) -> tuple[list[float], list[float]]:
    return [at for at, _ in run.lines[name]], [value for _, value in run.lines[name]]


def _steps(run: Run, name: str) -> list[float]:
    """When a counter had grown."""
    points = run.lines[name]
    return [at for (_, before), (at, value) in pairwise(points) if value > before]


def _bands(axes: Axes, run: Run, name: str) -> None:
    for begin, end in run.bands[name]:
        axes.axvspan(begin, end, color=BAND, linewidth=0, zorder=0)


def _seconds(value: float, _: object) -> str:
    return f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms"


def _finish(figure: Figure, run: Run, file: Path, what: str) -> None:
    answered, failed = run.requests
    day = time.strftime("%Y-%m-%d", time.gmtime(run.start))
    words = f"{what}: {answered} requests answered, {failed} of them with 5xx\n"
    figure.supxlabel(f"{words}as Prometheus saw it, scraping every second, on {day} (make images)", fontsize=7.5)
    figure.savefig(file, metadata={"Date": None, "Creator": None})
