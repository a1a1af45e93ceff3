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
    """values: peer -> one value a round. rates: peer -> what went through a second, beside it, in rate_unit.

    series: key of ``SERIES``; its figures are the columns of one table, each headed by its step. unmeasured: why there
    is no value although it was asked for.
    """

    key: str
    title: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)
    rates: dict[str, list[float]] = field(default_factory=dict)
    rate_unit: str = ""
    note: str = ""
    series: str = ""
    step: str = ""
    unmeasured: str = ""

    def add(self, peer: str, value: float, rate: float | None = None) -> None:
        self.values.setdefault(peer, []).append(value)
        if rate is not None:
            self.rates.setdefault(peer, []).append(rate)


@dataclass(frozen=True)
class Target:
    """A limit for a gateway's figure: against another peer's, or against the gateway's own figure of another key.

    least: the figure has to be at least that, not at most.
    """

    key: str
    against: str
    must: float | None
    goal: float | None
    least: bool = False

    def misses(self, measured: float, limit: float | None) -> bool:
        return limit is not None and (measured < limit if self.least else measured > limit)


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
    Target("pair", "", 1.7, 1.9, least=True),
    Target("start", "", 0.7, 0.35),
    Target("lag", "", 5.0, 2.0),
)
SERIES = {
    "connections": ("More connections: CPU µs a GET", "connections"),
    "answers": ("Longer answers: CPU µs a GET", "KiB"),
    "routes": ("More routes, each with an identity of its own: CPU µs a GET on the last of them", "routes"),
}


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Round by round; rounds that only one side has are left out."""
    return [mine / other for mine, other in zip(ours, theirs, strict=False) if other]


def spread(values: list[float]) -> str:
    """``median (min to max)``, to three significant digits; the one value where there is but one."""
    if len(values) == 1:
        return number(values[0])
    return f"{number(median(values))} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """Three significant digits without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def table(figure: Figure) -> str:
    """One figure as a Markdown table, cheapest peer first. Ratios with their own spread, as values have theirs."""
    others = [other for other in ("caddy", "envoy") if other in figure.values]
    heads = ["proxy", f"{figure.unit}: median (min to max)", *(f"{TIMES} {other.title()}" for other in others)]
    heads += [figure.rate_unit] if figure.rate_unit else []
    lines = [f"### {figure.title}", "", f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for peer in sorted(figure.values, key=lambda name: median(figure.values[name])):
        name = f"**{peer}**" if peer.startswith("gateway") else peer
        cells = [name, spread(figure.values[peer]), *(_ratio(figure, peer, other) for other in others)]
        if figure.rate_unit:
            cells.append(number(median(figure.rates[peer])) if peer in figure.rates else "")
        lines.append(f"| {' | '.join(cells)} |")
    if figure.note:
        lines += ["", figure.note]
    return "\n".join(lines)


def _ratio(figure: Figure, peer: str, other: str) -> str:
    if other not in figure.values:
        return "-"
    if other == peer:
        return "1"
    found = ratios(figure.values[peer], figure.values[other])
    return spread(found) if found else "-"


def series_table(figures: list[Figure]) -> str:
    """Figures of one series as one Markdown table, and below the peers each gateway's ratio to them."""
    title, unit = SERIES[figures[0].series]
    lines = [f"### {title}", "", f"| {unit} | {' | '.join(figure.step for figure in figures)} |"]
    lines.append("| --- |" + " --- |" * len(figures))
    peers = sorted({peer for figure in figures for peer in figure.values})
    ours = [peer for peer in peers if peer.startswith("gateway")]
    for peer in peers:
        cells = [spread(figure.values[peer]) if peer in figure.values else "-" for figure in figures]
        lines.append(f"| {f'**{peer}**' if peer in ours else peer} | {' | '.join(cells)} |")
    for peer in ours:
        for other in (other for other in peers if other not in ours):
            cells = [_ratio(figure, peer, other) if peer in figure.values else "-" for figure in figures]
            lines.append(f"| {peer} {TIMES} {other} | {' | '.join(cells)} |")
    return "\n".join(lines)


def verdicts(figures: list[Figure]) -> str:
    """The scoreboard: the targets that this run asked for, one row each for every gateway measured."""
    by_key = {figure.key: figure for figure in figures}
    ours = {peer for figure in figures for peer in figure.values if peer.startswith("gateway")}
    lines = ["| figure | must | goal | measured | verdict |", "| --- | --- | --- | --- | --- |"]
    for target in TARGETS:
        figure = by_key.get(target.key)
        if figure is None:
            continue
        if figure.unmeasured:
            limits = (_limit(target, limit) for limit in (target.must, target.goal))
            lines.append(f"| {figure.title} | {' | '.join(limits)} | {figure.unmeasured} | not measured |")
        for peer in sorted(ours & figure.values.keys()):
            found = _measured(by_key, target, peer)
            if found:
                lines.append(_verdict(figure, target, peer if len(ours) > 1 else "", found))
    return "\n".join(lines) if len(lines) > 2 else ""


def missed(figures: list[Figure]) -> list[str]:
    """Titles of the figures in which a gateway misses a must."""
    return [line.split(" | ")[0].strip("| ") for line in verdicts(figures).splitlines() if "**missed**" in line]


def _measured(by_key: dict[str, Figure], target: Target, peer: str) -> list[float]:
    """What the target is about, one value a round; none where the other side is missing."""
    ours = by_key[target.key].values[peer]
    if not target.against:
        return ours
    if target.against.startswith("="):
        other = by_key.get(target.against[1:])
        theirs = other.values.get(peer) if other else None
    else:
        theirs = by_key[target.key].values.get(target.against)
    return ratios(ours, theirs) if theirs else []


def _verdict(figure: Figure, target: Target, peer: str, found: list[float]) -> str:
    unit = f" {TIMES} {target.against.removeprefix('=')}" if target.against else f" {figure.unit}"
    words = "met"
    if target.misses(median(found), target.must):
        words = "**missed**"
    elif target.misses(median(found), target.goal):
        words = "goal missed"
    limits = [_limit(target, limit) for limit in (target.must, target.goal)]
    title = f"{figure.title}, {peer}" if peer else figure.title
    return f"| {title} | {limits[0]} | {limits[1]} | {spread(found)}{unit} | {words} |"


def _limit(target: Target, limit: float | None) -> str:
    return "" if limit is None else f"{'≥' if target.least else '≤'} {number(limit)}"


def document(figures: list[Figure], facts: list[tuple[str, str]], absent: list[str]) -> str:
    """The whole result of one run."""
    parts = ["\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in facts)])]
    if absent:
        parts.append("Not measured:\n\n" + "\n".join(f"- {reason}" for reason in absent))
    judged = verdicts(figures)
    if judged:
        parts.append("### Against the targets\n\n" + judged)
    parts.extend(table(figure) for figure in figures if figure.values and not figure.series)
    grown = ([figure for figure in figures if figure.series == key and figure.values] for key in SERIES)
    parts.extend(series_table(columns) for columns in grown if columns)
    return "\n\n".join(parts) + "\n"


def replace_block(text: str, content: str) -> str:
    """text with what stands between the markers replaced; the markers are added at the end where there are none."""
    block = f"{BEGIN}\n\n{content}\n{END}"
    before, begin, rest = text.partition(BEGIN)
    if not begin:
        return f"{text.rstrip()}\n\n{block}\n".lstrip()
    _, end, after = rest.partition(END)
    return f"{before}{block}{after if end else ''}"
