"""Pure: times, spans and numbers as people read them."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

NOTHING: Final = "—"
_: Final = "\N{NO-BREAK SPACE}"  # a number and its unit stay on one line
_UNITS: Final = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def printable(text: str) -> str:
    """One line without what steers a terminal or turns the reading direction: others' words are quoted, not obeyed."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def span(seconds: float) -> str:
    """A length of time in its two largest units: ``43 s``, ``2 min 5 s``, ``3 d 4 h``."""
    rest = int(abs(seconds) + 0.5)
    for (unit, size), (smaller, part) in pairwise(_UNITS):
        if rest >= size:
            minor = rest % size // part
            return f"{rest // size}{_}{unit} {minor}{_}{smaller}" if minor else f"{rest // size}{_}{unit}"
    return f"{rest}{_}s"


def away(at: float, now: float) -> str:
    """``in 43 s``, ``now``, ``2 min ago``. at, now: Unix seconds."""
    if abs(at - now) < 1:
        return "now"
    return f"in {span(at - now)}" if at > now else f"{span(at - now)} ago"


def clock(at: float, now: float) -> str:
    """``10:31:05``, with the date where that is another day than now's. UTC."""
    there, here = datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(now, UTC)
    return there.strftime("%H:%M:%S" if there.date() == here.date() else "%Y-%m-%d %H:%M:%S")


def iso(at: float) -> str:
    """RFC 3339, UTC, whole seconds."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def took(seconds: float) -> str:
    """How long an exchange or an answer took: ``0.4 ms``, ``12 ms``, ``1.2 s``."""
    if seconds >= 0.9995:
        return f"{seconds:.1f}{_}s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f}{_}ms" if milliseconds >= 1 or not milliseconds else f"{milliseconds:.1f}{_}ms"


def rate(count: float, seconds: float) -> str:
    """How often: ``12/s``, ``1.3/s``; what is rarer is counted: ``14 in 1 min``."""
    if count < seconds or seconds < 1:
        return f"{count:,.0f} in {span(seconds)}"
    per_second = count / seconds
    return f"{per_second:,.0f}/s" if per_second >= 10 else f"{per_second:.1f}/s"


def many(count: float, one: str, more: str = "") -> str:
    """``1 request``, ``1,280 requests``."""
    return f"{count:,.0f} {one if count == 1 else more or one + 's'}"


def share(part: float, whole: float) -> str:
    """``3 %``, ``0.02 %``; never 0 % of something, never 100 % of less than all."""
    percent = 100 * part / whole
    if percent < 1:
        return f"{max(percent, 0.01):.2g}{_}%"
    return f"{min(percent, 99) if part < whole else 100:.0f}{_}%"
