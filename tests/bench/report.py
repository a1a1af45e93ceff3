"""Pure: figures in, Markdown out.

A figure holds one value a round for each peer. Ratios are taken round by round between values that were measured one
after another, and only then is their median taken: what the machine does meanwhile moves both sides.
"""

from dataclasses import dataclass, field
from statistics import median

TIMES = "\N{MULTIPLICATION SIGN}"
BEGIN = "<!-- bench:begin, written by python -m tests.bench --write -->"
END = "<!-- bench:end -->"


@dataclass
class Figure:
    """values: peer -> one value a round. rates: peer -> what went through a second, beside it, in rate_unit."""

    key: str
    title: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)
    rate_unit: str = ""
    note: str = ""

    def add(self, peer: str, value: float, rate: float | None = None) -> None:
        self.values.setdefault(peer, []).append(value)
        if rate is not None:
            self.rates.setdefault(peer, []).append(rate)


@dataclass(frozen=True)
class Target:
    """A limit for a gateway's figure: against another peer's, or against the gateway's own figure of another key."""

    key: str
    against: str
    must: float | None
    goal: float | None


TARGETS = (
    Target("get", "caddy", 0.75, None),
    Target("get", "envoy", None, 0.85),
    Target("headers", "caddy", 0.6, None),
    Target("headers", "envoy", None, 0.9),
    Target("access", "=get", 1.4, 1.2),
    Target("post", "=get", 1.25, 1.1),
    Target("down1", "envoy", 1.2, 1.0),
    Target("down8", "envoy", 1.2, 1.0),
    Target("up1", "envoy", 1.2, 1.0),
    Target("up8", "envoy", 1.2, 1.0),
    Target("latency", "", 1.3, 1.1),
    Target("idle", "", 8.0, 4.0),
    Target("start", "", 0.7, 0.35),
)


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Round by round; rounds that only one side has are left out."""
    return [mine / other for mine, other in zip(ours, theirs, strict=False) if other]


def spread(values: list[float]) -> str:
    """``median (min to max)``, to three significant digits."""
    return f"{number(median(values))} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """Three significant digits without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def table(figure: Figure) -> str:
    """One figure as a Markdown table, cheapest peer first."""
    rate = f" {figure.rate_unit} |" if figure.rate_unit else ""
    lines = [
        f"### {figure.title}",
        "",
        f"| proxy | {figure.unit}: median (min to max) | {TIMES} Caddy | {TIMES} Envoy |{rate}",
        "| --- | --- | --- | --- |" + (" --- |" if rate else ""),
    ]
    for peer in sorted(figure.values, key=lambda name: median(figure.values[name])):
        name = f"**{peer}**" if peer.startswith("gateway") else peer
        cells = [name, spread(figure.values[peer]), *(_ratio(figure, peer, other) for other in ("caddy", "envoy"))]
        if rate:
            cells.append(number(median(figure.rates[peer])) if peer in figure.rates else "")
        lines.append(f"| {' | '.join(cells)} |")
    if figure.note:
        lines += ["", figure.note]
    return "\n".join(lines)


def _ratio(figure: Figure, peer: str, other: str) -> str:
    if other not in figure.values:
        return "-"
    found = ratios(figure.values[peer], figure.values[other])
    return number(median(found)) if found else "-"


def verdicts(figures: list[Figure]) -> str:
    """The targets that this run can judge, one row each for every gateway measured."""
    by_key = {figure.key: figure for figure in figures}
    lines = ["| figure | proxy | measured | must | goal | |", "| --- | --- | --- | --- | --- | --- |"]
    for target in TARGETS:
        figure = by_key.get(target.key)
        for peer in sorted(figure.values) if figure else ():
            measured = _measured(by_key, target, peer)
            if figure and measured is not None and peer.startswith("gateway"):
                lines.append(_verdict(figure, target, peer, measured))
    return "\n".join(lines) if len(lines) > 2 else ""


def missed(figures: list[Figure]) -> list[str]:
    """Titles of the figures in which a gateway misses a must."""
    return [line.split(" | ")[0].strip("| ") for line in verdicts(figures).splitlines() if "**missed**" in line]


def _measured(by_key: dict[str, Figure], target: Target, peer: str) -> float | None:
    ours = by_key[target.key].values[peer]
    if not target.against:
        return median(ours)
    if target.against.startswith("="):
        other = by_key.get(target.against[1:])
        theirs = other.values.get(peer) if other else None
    else:
        theirs = by_key[target.key].values.get(target.against)
    found = ratios(ours, theirs) if theirs else []
    return median(found) if found else None


def _verdict(figure: Figure, target: Target, peer: str, measured: float) -> str:
    against = f" {TIMES} {target.against.removeprefix('=')}" if target.against else f" {figure.unit}"
    words = "met"
    if target.must is not None and measured > target.must:
        words = "**missed**"
    elif target.goal is not None and measured > target.goal:
        words = "goal missed"
    limits = ["" if limit is None else f"≤ {number(limit)}" for limit in (target.must, target.goal)]
    return f"| {figure.title} | {peer} | {number(measured)}{against} | {limits[0]} | {limits[1]} | {words} |"


def document(figures: list[Figure], facts: list[tuple[str, str]], absent: list[str]) -> str:
    """The whole result of one run."""
    parts = ["\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts)])]
    if absent:
        parts.append("Not measured:\n\n" + "\n".join(f"- {reason}" for reason in absent))
    judged = verdicts(figures)
    if judged:
        parts.append("### Against the targets\n\n" + judged)
    parts.extend(table(figure) for figure in figures if figure.values)
    return "\n\n".join(parts) + "\n"


def replace_block(text: str, content: str) -> str:
    """text with what stands between the markers replaced; the markers are added at the end where there are none."""
    block = f"{BEGIN}\n\n{content}\n{END}"
    before, begin, rest = text.partition(BEGIN)
    if not begin:
        return f"{text.rstrip()}\n\n{block}\n".lstrip()
    _, end, after = rest.partition(END)
    return f"{before}{block}{after if end else ''}"
