"""Pure: one thing that ``check`` found, and the words that several findings share."""

from dataclasses import dataclass
from math import inf
from typing import Literal
from urllib.parse import urlsplit

from proxy.errors import ConfigError

Severity = Literal["ok", "hint", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """severity: only a ``problem`` makes ``check`` fail. evidence: what was seen. advice: what to do, if anything."""

    severity: Severity
    subject: str
    finding: str
    evidence: str = ""
    advice: str = ""


def ok(subject: str, finding: str, evidence: str = "") -> Finding:
    return Finding("ok", subject, finding, evidence)


def hint(subject: str, finding: str, evidence: str = "", advice: str = "") -> Finding:
    return Finding("hint", subject, finding, evidence, advice)


def problem(subject: str, finding: str, evidence: str = "", advice: str = "") -> Finding:
    return Finding("problem", subject, finding, evidence, advice)


def faults(subject: str, error: ConfigError) -> list[Finding]:
    """Each fault as a problem."""
    return [problem(subject, str(fault)) for fault in error.faults]


_UNITS = ((2 * 86400, 86400, "days"), (2 * 3600, 3600, "h"), (120, 60, "min"))


def duration(seconds: float) -> str:
    """``43 s``, ``30 min``, ``12 days``; ``no known end`` for ``inf``."""
    if seconds == inf:
        return "no known end"
    for least, unit, name in _UNITS:
        if seconds >= least:
            return f"{seconds / unit:.1f}".removesuffix(".0") + f" {name}"
    return f"{seconds:.0f} s"


def ago(seconds: float) -> str:
    """A difference to now: ``in 5 min``, ``3 s ago``."""
    return f"in {duration(seconds)}" if seconds >= 0 else f"{duration(-seconds)} ago"


def shown(url: str) -> str:
    """A URL without its query, which may hold what is nobody's business."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def plain(text: str, limit: int = 300) -> str:
    """A peer's words, fit for a terminal: one line, bounded, printable ASCII."""
    return "".join(character if " " <= character <= "~" else "?" for character in text[:limit])


_DRIFT_HINT, _DRIFT_PROBLEM = 3.0, 10.0


def clock_drift(subject: str, drift: float | None, whose: str) -> list[Finding]:
    """drift: their clock minus ours, seconds; None when nothing told."""
    if drift is None or abs(drift) < _DRIFT_HINT:
        return []
    finding = f"clock differs by {abs(drift):.0f} s"
    evidence = f"{whose} is {'ahead of' if drift > 0 else 'behind'} this machine"
    advice = "let both machines take their time from NTP; tokens may look expired, or issued in the future"
    return [Finding("problem" if abs(drift) >= _DRIFT_PROBLEM else "hint", subject, finding, evidence, advice)]
