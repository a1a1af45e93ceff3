"""How ``check`` shows what it found: colour and progress for a person at a terminal, none of it elsewhere."""

import io
import json
import socket

import pytest

from proxy.checks.finding import Finding, ago, duration
from proxy.checks.probe import Peer, ProbeError, head
from proxy.checks.report import Report


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def reported(
    out: io.StringIO, err: io.StringIO, environ: dict[str, str] | None = None, *, as_json: bool = False
) -> Report:
    report = Report(out, err, environ or {}, as_json=as_json)
    report.progress("identity opentv: asking")
    report.tell(Finding("problem", "identity opentv", "the clock differs", "seen", "mend it"))
    report.tell(Finding("hint", "route /", "it looks odd"))
    report.finish()
    return report


def test_off_a_terminal_there_is_neither_colour_nor_progress() -> None:
    out, err = io.StringIO(), io.StringIO()
    assert not reported(out, err).ok
    assert out.getvalue() == (
        "problem  identity opentv: the clock differs (seen)\n         -> mend it\nhint     route /: it looks odd\n"
        "\n1 problem, 1 hint\n"
    )
    assert err.getvalue() == ""


def test_on_a_terminal_severities_have_colours_and_progress_gives_way_to_findings() -> None:
    out, err = Terminal(), Terminal()
    reported(out, err)
    assert "\x1b[1;31mproblem \x1b[0m identity opentv" in out.getvalue()
    assert err.getvalue().startswith("\r\x1b[Kidentity opentv: asking ...\r\x1b[K")
    assert err.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize("environ", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_color_and_a_dumb_terminal_are_heeded(environ: dict[str, str]) -> None:
    out = Terminal()
    reported(out, Terminal(), environ)
    assert "\x1b" not in out.getvalue()


def test_json_is_one_document_and_nothing_else() -> None:
    out = io.StringIO()
    reported(out, io.StringIO(), as_json=True)
    document = json.loads(out.getvalue())
    assert document["ok"] is False
    assert document["findings"][0] == {
        "severity": "problem",
        "subject": "identity opentv",
        "finding": "the clock differs",
        "evidence": "seen",
        "advice": "mend it",
    }


def test_neither_a_token_nor_a_terminal_sequence_gets_through() -> None:
    out = io.StringIO()
    report = Report(out, io.StringIO(), {}, as_json=False)
    report.tell(Finding("ok", "route /", "said \x1b]0;title\x07 Bearer abcdef0123456789", "eyJhbGciOiJub25lIn0.e30.x"))
    assert "\x1b" not in out.getvalue()
    assert "abcdef0123456789" not in out.getvalue()
    assert "eyJ" not in out.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (43, "43 s"), (300, "5 min"), (1799, "30 min"), (9000, "2.5 h"), (1.1e6, "12.7 days")],
)
def test_durations_have_the_unit_people_use(seconds: float, words: str) -> None:
    assert duration(seconds) == words
    assert ago(seconds) == f"in {words}"


async def test_an_upstream_that_says_nothing_is_waited_for_only_so_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody answers
        port = silent.getsockname()[1]
        with pytest.raises(ProbeError, match=r"no answer came within 0\.05 s"):
            await head(Peer(f"http://127.0.0.1:{port}", None, None, 1.0, answer=0.05), "/", {})
