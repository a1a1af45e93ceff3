"""How ``check`` shows what it found: colour and progress for a person at a terminal, none of it elsewhere."""

import io
import json
import socket
import ssl

import pytest

from proxy.checks.closer import unreachable
from proxy.checks.finding import Finding, Where, ago, duration
from proxy.checks.probe import Peer, ProbeError, greeting, head
from proxy.checks.report import Report
from tests.e2e import test_keycloak_check
from tests.integration import test_check_store, test_check_table
from tests.support.checks import documented


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reported(
    out: io.StringIO, err: io.StringIO, environ: dict[str, str] | None = None, *, as_json: bool = False
) -> Report:
    report = Report(out, err, environ or {}, as_json=as_json, columns=lambda: 80)
    report.progress("identity opentv: asking")
    report.tell(Finding("problem", "identity opentv", "the clock differs", "seen", "mend it"))
    report.tell(Finding("hint", "route /", "it looks odd"))
    report.tell(Finding("ok", "route /", "it answers", "HTTP 200"))
    report.finish()
    return report


def test_off_a_terminal_there_is_neither_colour_nor_progress_and_each_part_is_one_line() -> None:
    out, err = io.StringIO(), io.StringIO()
    assert not reported(out, err).ok
    assert out.getvalue() == (
        "problem  identity opentv: the clock differs\n         seen: seen\n         do:   mend it\n"
        "hint     route /: it looks odd\nok       route /: it answers (HTTP 200)\n\n1 problem, 1 hint\n"
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


def test_a_dumb_terminal_gets_no_progress() -> None:
    err = Terminal()
    reported(Terminal(), err, {"TERM": "dumb"})
    assert err.getvalue() == ""


def test_on_a_terminal_long_parts_are_wrapped_under_themselves() -> None:
    out = Terminal()
    report = Report(out, io.StringIO(), {"NO_COLOR": "1"}, as_json=False, columns=lambda: 60)
    report.tell(Finding("problem", "identity opentv", "word " * 12, "seen " * 12, "done " * 12))
    lines = out.getvalue().splitlines()
    assert [line[:15] for line in lines] == [
        "problem  identi",
        "         word w",
        "         seen: ",
        " " * 15,
        "         do:   ",
        " " * 15,
    ]
    assert max(map(len, lines)) <= 60


def test_progress_tells_the_seconds_and_never_wraps() -> None:
    err, clock = Terminal(), Clock()
    report = Report(io.StringIO(), err, {}, as_json=True, columns=lambda: 40, mono=clock)
    report.progress("identity opentv: asking https://kc.example.com/realms/nagra")
    clock.now += 3.2
    report.tick()
    report.progress("")
    shown = err.getvalue().split("\r\x1b[K")
    assert shown == ["", "identity opentv: asking https://kc. ...", "identity opentv: asking https:/ ... 3 s", ""]
    assert max(map(len, shown)) <= 40


def test_json_is_one_document_and_nothing_else() -> None:
    out = io.StringIO()
    reported(out, io.StringIO(), as_json=True)
    document = json.loads(out.getvalue())
    assert (document["ok"], document["problems"], document["hints"]) == (False, 1, 1)
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


async def test_a_peer_that_hangs_in_the_tls_handshake_is_not_one_that_takes_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        peer = Peer(f"https://127.0.0.1:{mute.getsockname()[1]}", ssl.create_default_context(), None, 0.05)
        with pytest.raises(ProbeError) as caught:
            await greeting(peer)
        found = await unreachable(caught.value, peer, Where("route /", "routes.0", "upstream"), {})
    assert (
        found.finding == f"{peer.address} accepted the connection, but did not finish the TLS handshake within 0.05 s"
    )
    assert found.advice == "write http:// in routes.0.upstream, or name the port that speaks TLS"


def test_every_situation_that_is_documented_is_a_test_and_the_other_way_round() -> None:
    tested = {*test_check_table.SITUATIONS, *test_check_store.SITUATIONS, *test_keycloak_check.SITUATIONS}
    assert sorted(tested ^ documented().keys()) == []
