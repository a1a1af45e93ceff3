"""The status page's parts: words, what is wrong, the bar, the files it is made of."""

import re
import tomllib
from datetime import UTC, datetime
from fnmatch import fnmatch
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from proxy.admin.page import pieces, read, text
from proxy.admin.page.assets import SCRIPT, STYLE
from proxy.admin.page.bar import bar
from proxy.admin.page.facts import Identity
from proxy.admin.page.markup import join, tag
from proxy.admin.page.verdict import Finding, findings, level, summary
from proxy.admin.page.words import away, clock, many, printable, rate, share, span, took

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 21, 22, 13, 20, tzinfo=UTC).timestamp()


def at(seconds: float) -> str:
    """RFC 3339 of so many seconds from now."""
    return datetime.fromtimestamp(NOW + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def identity(state: str = "fresh", *, usable: bool = True, **more: Any) -> dict[str, Any]:
    """One identity of ``/status``, 60 s into a token of 300 s."""
    success = {
        "at": at(-60),
        "trigger": "ahead",
        "grant": "refresh",
        "result": "success",
        "duration_s": 0.1,
        "detail": "",
    }
    token = {"fingerprint": "0a1b2c3d", "issued_at": at(-60), "expires_at": at(240), "next_refresh_at": at(180)}
    return {"state": state, "usable": usable, "history": [success], **token, **more}


def failed(result: str, detail: str) -> dict[str, Any]:
    """What to lay over an identity whose last exchange failed."""
    attempt = {
        "at": at(-5),
        "trigger": "ahead",
        "grant": "login",
        "result": result,
        "duration_s": 1.5,
        "detail": detail,
    }
    return {"consecutive_failures": 2, "history": [attempt], "next_refresh_at": at(30)}


def route(path: str = "/", name: str = "opentv", **lately: Any) -> dict[str, Any]:
    counted = {"requests": 100, "server_errors": 0, "seconds": 60, **lately}
    return {"path": path, "upstream": "https://up.example.com", "identity": name, "last_minute": counted}


def status(of: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A document with the identity ``opentv``."""
    return {"version": "1.2.3", "at": at(0), "identities": {"opentv": of or identity()}, "routes": [route()], **more}


def found(of: dict[str, Any] | None = None, **more: Any) -> list[Finding]:
    return findings(read(status(of, **more)))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (3599.7, "1 h"),
        (7265, "2 h 1 min"),
        (86400, "1 d"),
        (273600, "3 d 4 h"),
        (-43, "43 s"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert span(seconds).replace("\xa0", " ") == words


def test_times_are_told_from_now() -> None:
    assert [away(NOW + s, NOW).replace("\xa0", " ") for s in (43, 0.4, -0.9, -125)] == [
        "in 43 s",
        "now",
        "now",
        "2 min 5 s ago",
    ]
    assert clock(NOW + 5, NOW) == "22:13:25"
    assert clock(NOW + 7200, NOW) == "2026-11-22 00:13:20"


@pytest.mark.parametrize(
    ("count", "seconds", "words"),
    [
        (0, 60, "0 in 1 min"),
        (14, 60, "14 in 1 min"),
        (60, 60, "1.0/s"),
        (599, 60, "10.0/s"),
        (600, 60, "10/s"),
        (180000, 60, "3,000/s"),
        (1, 0.2, "1 in 0 s"),
    ],
)
def test_what_is_rare_is_counted_and_what_is_frequent_has_a_rate(count: float, seconds: float, words: str) -> None:
    assert rate(count, seconds).replace("\xa0", " ") == words


def test_numbers_say_neither_nothing_of_something_nor_all_of_less() -> None:
    assert [share(*of).replace("\xa0", " ") for of in ((1, 10**7), (1, 1000), (50, 1000), (9999, 10000), (7, 7))] == [
        "0.01 %",
        "0.1 %",
        "5 %",
        "99 %",
        "100 %",
    ]
    assert [took(s).replace("\xa0", " ") for s in (0, 0.0004, 0.012, 0.9994, 0.9996, 12.34)] == [
        "0 ms",
        "0.4 ms",
        "12 ms",
        "999 ms",
        "1.0 s",
        "12.3 s",
    ]
    assert [many(1, "try", "tries"), many(1280, "request")] == ["1 try", "1,280 requests"]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("a\r\nb\tc", "a b c"),
        ("\x1b[2Jgone\x07", "[2Jgone"),
        ("abc\u202edef\u2066g", "abc def g"),
        ("\x9b31m \x00", "31m"),
        ("Zürich → 東京", "Zürich → 東京"),
    ],
)
def test_words_of_others_are_one_line_that_steers_nothing(words: str, shown: str) -> None:
    assert printable(words) == shown


def test_markup_escapes_everything_that_is_not_markup() -> None:
    inner = tag("b", "<&>'\"")
    assert inner == "<b>&lt;&amp;&gt;&#x27;&quot;</b>"
    assert tag("p", "a<", inner, None, ["<", inner]) == f"<p>a&lt;{inner}&lt;{inner}</p>"
    assert tag("a", href='"><script>') == '<a href="&quot;&gt;&lt;script&gt;"></a>'
    assert tag("input", class_="x", aria_label="y", hidden=True, open=False, id=None) == (
        '<input class="x" aria-label="y" hidden>'
    )
    assert join("<", inner) == f"&lt;{inner}"


def test_a_fresh_token_and_answered_requests_are_all_well() -> None:
    assert found() == []
    assert found(identity("stale")) == []
    assert summary([]) == "All is well"


REFUSED = failed("invalid_credentials", "refused")
UNPLUGGED = failed("network", "unplugged")


@pytest.mark.parametrize(
    ("of", "what", "details", "cause"),
    [
        (
            identity("suspended", usable=False, suspended_until=at(43), **REFUSED),
            "bad | opentv | login suspended, no usable token",
            "Requests get 503. Next try in 43 s.",
            "refused",
        ),
        (
            identity("suspended", suspended_until=at(600), **REFUSED),
            "bad | opentv | login suspended",
            "The token at hand serves for another 4 min. Next try in 10 min, at 22:23:20 UTC.",
            "refused",
        ),
        (
            identity("fresh", suspended_until=at(43)),
            "warn | opentv | login suspended",
            "The token at hand serves for another 4 min. Next try in 43 s.",
            "",
        ),
        (
            identity("stale", **UNPLUGGED),
            "warn | opentv | the token cannot be renewed",
            "2 tries failed. The token at hand serves for another 4 min. Next try in 30 s.",
            "unplugged",
        ),
        (
            identity("expired", usable=False, **UNPLUGGED),
            "bad | opentv | no usable token",
            "Requests get 503. Next try in 30 s.",
            "unplugged",
        ),
        (
            identity("expired", usable=False, history=[]),
            "warn | opentv | no token yet",
            "Requests wait for the first one.",
            "",
        ),
    ],
)
def test_what_is_wrong_with_a_token_is_said_in_words(of: dict[str, Any], what: str, details: str, cause: str) -> None:
    (finding,) = found(of)
    assert " | ".join((finding.level, finding.about, finding.what)) == what
    assert (finding.details.replace("\xa0", " "), finding.cause) == (details, cause)
    assert finding.anchor == "identity-opentv"


def test_a_token_that_no_route_needs_is_no_problem_of_anybodys() -> None:
    dead = identity("expired", usable=False, **UNPLUGGED)
    (finding,) = found(dead, routes=[route(name="other")])
    assert (finding.level, finding.what) == ("warn", "no usable token, and no route that needs it")


@pytest.mark.parametrize(
    ("lately", "what", "details"),
    [
        ({"server_errors": 4}, "warn | requests failed with 5xx", "4 answers of the last minute (4 %)."),
        ({"server_errors": 5}, "bad | requests failed with 5xx", "5 answers of the last minute (5 %)."),
        (
            {"rejections": {"replayed": 3, "passed_on": 1}},
            "warn | the platform refuses the token, and a new one does not help",
            "1 time in the last minute.",
        ),
    ],
)
def test_what_is_wrong_with_a_route_is_said_in_words(lately: dict[str, Any], what: str, details: str) -> None:
    (finding,) = found(routes=[route(**lately)])
    assert (finding.about, finding.anchor) == ("route /", "routes")
    assert (f"{finding.level} | {finding.what}", finding.details.replace("\xa0", " ")) == (what, details)


def test_why_the_upstream_failed_is_said_and_what_is_none_of_its_faults_is_not() -> None:
    errors = {"connect": 4, "tls": 0, "reset": 1}
    (finding,) = found(routes=[route(server_errors=5, upstream_errors=errors)])
    assert finding.cause == "Upstream errors: connect 4, reset 1"
    assert found(routes=[route(client_errors=100, rejections={"replayed": 3})]) == []


def test_answers_that_were_broken_off_are_told_though_none_of_them_was_a_5xx() -> None:
    """Their status was a good one; the upstream's errors say why, once."""
    broken: dict[str, Any] = {"broken_off": 2, "upstream_errors": {"reset": 1, "timeout": 1}}
    (finding,) = found(routes=[route(**broken)])
    assert (finding.level, finding.about, finding.anchor) == ("warn", "route /", "routes")
    assert finding.what == "answers were broken off in the middle"
    assert finding.details.replace("\xa0", " ") == "2 answers of the last minute (2 %)."
    assert finding.cause == "Upstream errors: reset 1, timeout 1"
    both = found(routes=[route(server_errors=1, **broken)])
    assert [one.what for one in both] == ["requests failed with 5xx", "answers were broken off in the middle"]
    assert [one.cause for one in both] == [finding.cause, ""]
    dead = identity("expired", usable=False, **UNPLUGGED)
    told = found(dead, routes=[route(server_errors=9, **broken)])
    assert [(one.about, one.cause) for one in told] == [("opentv", "unplugged"), ("route /", finding.cause)]


def test_answers_that_were_broken_off_count_as_failed() -> None:
    facts = read(status(routes=[route(server_errors=1, broken_off=2)]))
    assert "3 failed in the last minute" in "".join(pieces(facts))
    assert "  /  1.7/s, 1 failed (5xx), 2 broken off, 0 others (4xx)" in text(facts)


def test_connections_that_were_turned_away_are_told_with_what_helps() -> None:
    (finding,) = found(unrouted={"requests": 9, "last_minute": {"requests": 3, "connections_refused": 3}})
    assert (finding.level, finding.about, finding.what) == ("warn", "limits", "there are too many connections")
    assert finding.details == "3 connections refused in the last minute, with 503."
    assert "limits.connections_per_address" in finding.todo


def test_a_route_without_a_token_is_told_of_once() -> None:
    dead = identity("expired", usable=False, **UNPLUGGED)
    assert [finding.about for finding in found(dead, routes=[route(server_errors=100)])] == ["opentv"]


def test_what_is_wrong_with_the_gateway_comes_after_what_is_worse() -> None:
    faults = [{"path": "listen", "words": "expected host:port"}, {"path": "", "words": "an error inside"}]
    lines = found(
        identity("expired", usable=False, **UNPLUGGED),
        config={"reload_ok": False, "faults": faults},
        store={
            "kind": "redis",
            "last_minute": {"errors": {"load": 0, "save": 3}},
            "last_error_at": at(-35),
            "last_error": "Redis at r:6379 cannot be used: refused",
        },
        warnings=["clients.open is true: whoever reaches it uses it", "a word"],
    )
    assert [finding.what for finding in lines] == [
        "no usable token",
        "the last reload was refused, the former configuration is in force",
        "operations failed",
        "clients.open is true: whoever reaches it uses it",
        "a word",
    ]
    assert lines[1].cause == "listen: expected host:port; an error inside"
    details = "In the last minute: save 3, the last 35 s ago, at 22:12:45 UTC."
    assert lines[2].details.replace("\xa0", " ") == details  # not that tokens serve on: there is none
    assert lines[2].cause == "Redis at r:6379 cannot be used: refused"
    assert lines[2].todo
    assert lines[0].level == "bad"
    assert summary(lines) == "1 problem, 4 warnings"


def test_a_store_that_failed_lately_leaves_tokens_that_serve_on() -> None:
    (line,) = found(identity(), store={"kind": "file", "last_minute": {"errors": {"save": 1}}})
    assert line.details == "In the last minute: save 1. Tokens serve on; a restart may have to log in."


@pytest.mark.parametrize(
    ("words", "about", "what", "todo"),
    [
        ("identities.crm: in the clear over http://; use https://", "identities.crm", "in the clear over http://", "U"),
        ("routes.0.tls.verify is false: whoever answers", "configuration", "routes.0.tls.verify is false: who", ""),
        (
            "the key file /a: b; c/k is open: x; chmod 600 it",
            "configuration",
            "the key file /a: b; c/k is open: x",
            "C",
        ),
    ],
)
def test_a_warning_is_taken_apart_at_its_place_and_its_advice_alone(
    words: str, about: str, what: str, todo: str
) -> None:
    """Values in it may hold a colon or a semicolon."""
    (line,) = found(warnings=[words])
    assert line.about == about
    assert line.what.startswith(what)
    assert (line.details, line.todo[:1]) == ("", todo)


def test_what_a_screen_reader_is_told_changes_only_with_what_is_wrong() -> None:
    """Its live region counts no seconds: it would be read out every other one."""
    broken = identity("suspended", usable=False, suspended_until=at(43), **REFUSED)

    def spoken(now: str) -> str:
        page = "".join(pieces(read({**status(broken), "at": now})))
        (words,) = re.findall(r'<p class="unseen" role="status" id="spoken">(.*?)</p>', page)
        return str(words)

    assert spoken(at(0)) == spoken(at(7)) == "1 problem. opentv: login suspended, no usable token"


def test_every_state_has_a_level_of_its_own() -> None:
    states = {
        "ok": identity("fresh"),
        "busy": identity("stale"),
        "warn": identity("stale", **UNPLUGGED),
        "bad": identity("expired", usable=False, **UNPLUGGED),
    }
    assert {grade: level(read(status(of)).identities[0]) for grade, of in states.items()} == {g: g for g in states}


def only(of: dict[str, Any]) -> Identity:
    return read(status(of)).identities[0]


def test_the_bar_shows_now_the_next_refresh_and_the_end_where_they_are() -> None:
    svg = str(bar(only(identity(session_ends_at=at(90))), NOW))
    assert re.findall(r'<svg x="([\d.]+%)"[^>]*><path[^>]* class="(\w+)"', svg) == [
        ("50.00%", "session"),
        ("80.00%", "due"),
        ("100.00%", "end"),
        ("20.00%", "now"),
    ]
    assert re.findall(r'<rect x="([\d.]+%)" width="([\d.]+%)"[^>]* class="(\w+)"', svg) == [
        ("0.00%", "100.00%", "left"),
        ("80.00%", "20.00%", "window"),
        ("0.00%", "20.00%", "spent"),
    ]
    assert "20 % of 5 min are over, it ends in 4 min; next refresh in 3 min" in svg.replace("\xa0", " ")


def test_the_bar_of_a_dead_token_goes_on_to_now_and_to_the_next_try_if_that_is_near() -> None:
    dead = identity("expired", usable=False, issued_at=at(-150), expires_at=at(-50), next_refresh_at=at(50))
    svg = str(bar(only(dead), NOW))
    assert '<line x1="50.00%" x2="100.00%"' in svg
    assert re.findall(r'<svg x="([\d.]+%)"[^>]*><path[^>]* class="(\w+)"', svg) == [
        ("100.00%", "due"),
        ("50.00%", "end"),
        ("75.00%", "now"),
    ]
    assert "of 1 min 40 s ended 50 s ago" in svg.replace("\xa0", " ")
    svg = str(bar(only({**dead, "next_refresh_at": at(900)}), NOW))
    assert '<line x1="66.67%" x2="100.00%"' in svg
    assert 'class="due"' not in svg


@pytest.mark.parametrize(
    "life",
    [
        {"expires_at": None},
        {"issued_at": None, "expires_at": None},
        {"issued_at": at(-10), "expires_at": at(-10)},
        {"issued_at": at(20), "expires_at": at(10)},
    ],
)
def test_without_a_known_life_there_is_no_bar(life: dict[str, Any]) -> None:
    assert bar(only(identity(**life)), NOW) is None


def test_a_token_issued_by_a_clock_that_is_ahead_has_a_bar_all_the_same() -> None:
    svg = str(bar(only(identity(issued_at=at(20), expires_at=at(320))), NOW))
    assert "-" not in "".join(re.findall(r'(?:x|width|x1|x2)="([^"]*)"', svg))


def test_the_page_and_the_text_can_do_without_anything_that_a_document_may_lack() -> None:
    """A field that is gone or null is no reason to show nothing to somebody who was woken."""
    full = status(identity(suspended_until=at(5), **failed("network", "x")), routes=[route()], denied={"address": 1})
    assert isinstance(full["identities"], dict)
    keys = [*full, *full["identities"]["opentv"]]
    for key, lack in product(keys, ("gone", None)):
        opentv = {name: value for name, value in full["identities"]["opentv"].items() if name != key}
        document = {name: value for name, value in {**full, "identities": {"opentv": opentv}}.items() if name != key}
        if lack is None:
            (document if key in full else opentv)[key] = None
        assert "".join(pieces(read(document))).endswith("</html>\n")
        assert "GET  /livez" in text(read(document))


def test_the_text_says_the_same_on_one_line_each() -> None:
    broken = identity("suspended", usable=False, suspended_until=at(43), **REFUSED)
    document = {**status(broken), "started_at": at(-90061)}
    assert text(read(document)).splitlines()[:11] == [
        "opentv-auth-proxy 1.2.3, up 1 d 1 h: 1 problem",
        "  PROBLEM  opentv: login suspended, no usable token",
        "           Requests get 503. Next try in 43 s.",
        "           refused",
        f"           {found(broken)[0].todo}",
        "",
        "identities",
        "  opentv  suspended, login refused; no usable token; ends in 4 min; next refresh in 30 s; 0a1b2c3d",
        "",
        "routes, of the last minute",
        "  /  1.7/s, 0 failed (5xx), 0 others (4xx)",
    ]


def test_style_and_script_can_stand_inside_the_page() -> None:
    """Nothing in them ends their element, and nothing names another host."""
    for asset, name in ((STYLE, "style"), (SCRIPT, "script")):
        assert f"</{name}" not in asset.lower()
        assert "<!--" not in asset
        assert "//" not in re.sub(r"^\s*//.*$|/\*.*?\*/| // [^\n]*", "", asset, flags=re.MULTILINE | re.DOTALL)
        assert "@import" not in asset
        assert "url(" not in asset


def test_an_installed_package_has_every_file_that_is_no_module() -> None:
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    patterns = [f"{package.replace('.', '/')}/{name}" for package, names in packaged.items() for name in names]
    others = [
        str(file.relative_to(ROOT))
        for file in (ROOT / "proxy").rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    ]
    assert sorted(others) == ["proxy/admin/page/page.css", "proxy/admin/page/page.js"]
    assert [name for name in others if not any(fnmatch(name, pattern) for pattern in patterns)] == []
