"""How findings reach a person, or a machine."""

import json
import os
import textwrap
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, TextIO

from proxy.checks.finding import Finding, Severity
from proxy.redact import scrub

_COLOURS: Final[Mapping[Severity, str]] = {"ok": "32", "hint": "33", "problem": "1;31"}
_FIELDS: Final = ("severity", "subject", "finding", "evidence", "advice")
_INDENT: Final = " " * 9


def coloured(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Only on a terminal, and not where NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def _columns() -> int:
    try:
        return os.get_terminal_size(2).columns
    except OSError:
        return 80


class Report:
    """Findings as they come: lines at once, or with as_json one document at the end. Progress only on a terminal.

    out, err: where they go. environ: for NO_COLOR. columns: of the terminal. mono: seconds of a steady clock.
    """

    def __init__(
        self,
        out: TextIO,
        err: TextIO,
        environ: Mapping[str, str],
        *,
        as_json: bool,
        columns: Callable[[], int] = _columns,
        mono: Callable[[], float] = monotonic,
    ) -> None:
        self._out, self._err = out, err
        self._as_json = as_json
        self._colour = coloured(out, environ)
        self._wrapped = out.isatty()
        self._terminal = err.isatty() and environ.get("TERM") != "dumb"
        self._columns, self._mono = columns, mono
        self._waiting, self._since = "", 0.0
        self._heard = True
        self.findings: list[Finding] = []

    @property
    def ok(self) -> bool:
        return self._count("problem") == 0

    def tell(self, finding: Finding) -> None:
        # A last look: whatever a finding quotes, nothing that looks like a token leaves.
        finding = Finding(finding.severity, *(_printable(scrub(str(getattr(finding, name)))) for name in _FIELDS[1:]))
        self.findings.append(finding)
        if not self._as_json:
            self._clear()
            self._say("".join(f"{line}\n" for line in self._lines(finding)))
            self.tick()

    def progress(self, words: str) -> None:
        """What is waited for now, "" for nothing; the next takes its place."""
        self._waiting, self._since = words, self._mono()
        if words:
            self.tick()
        else:
            self._clear()

    def tick(self) -> None:
        """Time has passed: shows how much."""
        if self._terminal and self._waiting:
            waited = self._mono() - self._since
            since = f" {waited:.0f} s" if waited >= 1 else ""
            # A line that wraps could not be taken back.
            room = max(self._columns() - len(since) - 5, 10)
            self._err.write(f"\r\x1b[K{_printable(self._waiting)[:room]} ...{since}")
            self._err.flush()

    def finish(self) -> None:
        self._waiting = ""
        self._clear()
        counts = {kind: self._count(kind) for kind in ("problem", "hint")}
        if self._as_json:
            found = [{name: getattr(finding, name) for name in _FIELDS} for finding in self.findings]
            head = {"ok": self.ok, "problems": counts["problem"], "hints": counts["hint"]}
            self._say(json.dumps({**head, "findings": found}, indent=2) + "\n")
        else:
            told = (f"{count or 'no'} {kind}{'s' if count != 1 else ''}" for kind, count in counts.items())
            self._say(f"\n{', '.join(told)}\n")

    def _say(self, text: str) -> None:
        """To nobody, once whoever reads has read enough: sessions are still to be ended, and a code to be returned."""
        if not self._heard:
            return
        try:
            self._out.write(text)
            self._out.flush()
        except BrokenPipeError:
            self._heard = False

    def _count(self, severity: str) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def _lines(self, finding: Finding) -> list[str]:
        mark = finding.severity.ljust(len(_INDENT) - 1)
        first, seen = f"{finding.subject}: {finding.finding}", finding.evidence
        if finding.severity == "ok" and seen:
            first, seen = f"{first} ({seen})", ""
        lines = self._fitted(first, f"{mark} ", _INDENT)
        if self._colour:
            lines[0] = f"\x1b[{_COLOURS[finding.severity]}m{mark}\x1b[0m{lines[0][len(mark) :]}"
        for label, text in (("seen: ", seen), ("do:   ", finding.advice)):
            if text:
                lines += self._fitted(text, _INDENT + label, _INDENT + " " * len(label))
        return lines

    def _fitted(self, text: str, first: str, later: str) -> list[str]:
        """Wrapped on a terminal only: elsewhere a finding's parts stay lines that can be searched."""
        if not self._wrapped:
            return [first + text]
        width = max(self._columns(), 60)
        return textwrap.wrap(
            text, width, initial_indent=first, subsequent_indent=later, break_long_words=False, break_on_hyphens=False
        )

    def _clear(self) -> None:
        if self._terminal:
            self._err.write("\r\x1b[K")
            self._err.flush()


def _printable(text: str) -> str:
    """No line break and no terminal's control sequence, wherever a text came from."""
    return "".join(character if character.isprintable() else " " for character in text)
