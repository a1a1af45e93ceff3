"""How findings reach a person, or a machine."""

import json
from collections.abc import Mapping
from typing import Final, TextIO

from proxy.checks.finding import Finding, Severity
from proxy.redact import scrub

_COLOURS: Final[Mapping[Severity, str]] = {"ok": "32", "hint": "33", "problem": "1;31"}
_FIELDS: Final = ("severity", "subject", "finding", "evidence", "advice")
_INDENT: Final = " " * 9


def coloured(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Only on a terminal, and not where NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


class Report:
    """Findings as they come: lines at once, or with as_json one document at the end. Progress only on a terminal.

    out, err: where they go. environ: for NO_COLOR.
    """

    def __init__(self, out: TextIO, err: TextIO, environ: Mapping[str, str], *, as_json: bool) -> None:
        self._out, self._err = out, err
        self._as_json = as_json
        self._colour = coloured(out, environ)
        self._terminal = err.isatty() and environ.get("TERM") != "dumb"
        self.findings: list[Finding] = []

    @property
    def ok(self) -> bool:
        return all(finding.severity != "problem" for finding in self.findings)

    def tell(self, finding: Finding) -> None:
        # A last look: whatever a finding quotes, nothing that looks like a token leaves.
        finding = Finding(finding.severity, *(_printable(scrub(str(getattr(finding, name)))) for name in _FIELDS[1:]))
        self.findings.append(finding)
        if not self._as_json:
            self._clear()
            self._out.write(self._lines(finding))
            self._out.flush()

    def progress(self, words: str) -> None:
        """What is waited for now; the next line takes its place."""
        if self._terminal:
            self._err.write(f"\r\x1b[K{_printable(words)} ...")
            self._err.flush()

    def finish(self) -> None:
        self._clear()
        if self._as_json:
            found = [{name: getattr(finding, name) for name in _FIELDS} for finding in self.findings]
            self._out.write(json.dumps({"ok": self.ok, "findings": found}, indent=2) + "\n")
        else:
            counts = [(sum(f.severity == kind for f in self.findings), kind) for kind in ("problem", "hint")]
            told = ", ".join(f"{count or 'no'} {kind}{'s' if count != 1 else ''}" for count, kind in counts)
            self._out.write(f"\n{told}\n")
        self._out.flush()

    def _lines(self, finding: Finding) -> str:
        mark = finding.severity.ljust(len(_INDENT) - 1)
        if self._colour:
            mark = f"\x1b[{_COLOURS[finding.severity]}m{mark}\x1b[0m"
        seen = f" ({finding.evidence})" if finding.evidence else ""
        advice = f"{_INDENT}-> {finding.advice}\n" if finding.advice else ""
        return f"{mark} {finding.subject}: {finding.finding}{seen}\n{advice}"

    def _clear(self) -> None:
        if self._terminal:
            self._err.write("\r\x1b[K")
            self._err.flush()


def _printable(text: str) -> str:
    """No line break and no terminal's control sequence, wherever a text came from."""
    return "".join(character if character.isprintable() else " " for character in text)
