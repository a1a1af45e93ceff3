"""Pure: one thing that ``check`` found, and the words that several findings share."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from typing import Literal, Protocol

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
    parted = (str(fault).partition("; ") for fault in error.faults)
    return [problem(subject, finding, advice=advice) for finding, _, advice in parted]


_TLS_KEY = re.compile(r"\b(?:tls\.)?(ca_file|cert_file|key_file|server_name)\b")


@dataclass(frozen=True, slots=True)
class Where:
    """Whom a finding is about, and where that is configured: ``identity opentv``, ``identities.opentv``, and there the
    key of its URL."""

    subject: str
    section: str
    key: str

    @property
    def url(self) -> str:
        return f"{self.section}.{self.key}"

    def written_out(self, words: str) -> str:
        """``words`` with each TLS setting that they name as it is found in the file."""
        return _TLS_KEY.sub(rf"{self.section}.tls.\1", words)


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


def plain(text: str, limit: int = 300) -> str:
    """A peer's words, fit for a terminal: one line, bounded, printable ASCII."""
    return "".join(character if " " <= character <= "~" else "?" for character in text[:limit])


def who_answered(headers: Mapping[str, str]) -> str:
    """What an answer's headers tell of the servers that it came from and through. headers: lower-case names."""
    told = [f"{name.title()}: {plain(headers[name], 60)}" for name in ("server", "via") if headers.get(name)]
    return "".join(f", {one}" for one in told)


_DRIFT_HINT, _DRIFT_PROBLEM = 3.0, 10.0


def clock_drift(subject: str, drift: float | None, whose: str) -> list[Finding]:
    """drift: their clock minus ours, seconds; None when nothing told."""
    if drift is None or abs(drift) < _DRIFT_HINT:
        return []
    finding = f"clock differs by {abs(drift):.0f} s"
    evidence = f"{whose} is {'ahead of' if drift > 0 else 'behind'} this machine"
    advice = "let both machines take their time from NTP; tokens may look expired, or issued in the future"
    return [Finding("problem" if abs(drift) >= _DRIFT_PROBLEM else "hint", subject, finding, evidence, advice)]


_RENEW_WITHIN = 14 * 86400.0


class Times(Protocol):
    """Of a certificate, Unix seconds; None where it is not known."""

    @property
    def begins(self) -> float | None: ...

    @property
    def ends(self) -> float | None: ...


def certificate_times(subject: str, whose: str, times: Times, now: float) -> list[Finding]:
    """whose: ``the provider's``. now: Unix seconds."""
    evidence, renew = f"this machine's clock says {_minute(now)}", "have it renewed"
    if times.begins is not None and times.begins > now:
        finding = f"{whose} certificate is not valid before {_minute(times.begins)}"
        return [problem(subject, finding, evidence, "wait until then, or mend the clock")]
    if times.ends is None or times.ends - now >= _RENEW_WITHIN:
        return []
    if times.ends <= now:
        return [problem(subject, f"{whose} certificate has expired, {_minute(times.ends)}", evidence, renew)]
    return [hint(subject, f"{whose} certificate expires in {duration(times.ends - now)}", advice=renew)]


def _minute(unix: float) -> str:
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%d %H:%M} UTC"
