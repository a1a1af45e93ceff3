"""Pure: the page as HTML, in pieces: with many identities it is long, and requests go first."""

from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote

from proxy.admin.page.assets import EDITION, SCRIPT, STYLE
from proxy.admin.page.cards import card, icon, moment
from proxy.admin.page.facts import Facts, Route
from proxy.admin.page.markup import Child, Markup, join, tag
from proxy.admin.page.verdict import Finding, Level, findings, summary
from proxy.admin.page.words import NOTHING, many, rate, span, took

NAME: Final = "opentv-auth-proxy"
_COLOURS: Final = {"bad": "#c62828", "warn": "#b26a00", "busy": "#0b5cad", "ok": "#1a7f37"}


def pieces(facts: Facts) -> Iterator[str]:
    """The status page."""
    found = findings(facts)
    grade: Level = found[0].level if found else "ok"
    yield _opening(f"{summary(found)} · {NAME}", grade)
    yield _header(facts)
    yield Markup('<main id="main" data-live>')
    yield _verdict(facts, found, grade)
    yield Markup('<section aria-labelledby="identities"><h2 id="identities">Identities</h2><div class="cards">')
    for identity in facts.identities:
        yield card(identity, facts.now)
    yield Markup("</div></section>")
    yield _routes(facts)
    yield _gateway(facts)
    yield join(Markup("</main>"), tag("script", SCRIPT), Markup("</body></html>\n"))


def notice(title: str, words: str, grade: Level, more: Iterable[str] = ()) -> str:
    """A page that says one thing: what became of a refresh, or why a request was refused."""
    return join(
        _opening(f"{title} · {NAME}", grade),
        Markup('<main class="notice">'),
        tag(
            "section",
            tag("h1", icon(grade), title),
            tag("p", words, id="result"),
            (tag("p", line) for line in more),
            tag("p", tag("a", "Back to the status page", href="/")),
            class_=f"verdict {grade}",
        ),
        Markup("</main></body></html>\n"),
    )


def _opening(title: str, grade: Level) -> Markup:
    dot = tag("circle", cx=4, cy=4, r=4, fill=_COLOURS[grade])
    picture = tag("svg", dot, xmlns="http://www.w3.org/2000/svg", viewBox="0 0 8 8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", id="icon", href=f"data:image/svg+xml,{quote(picture)}"),
        tag("style", STYLE),
    )
    return Markup(f'<!doctype html><html lang="en" data-edition="{EDITION}">{head}<body>')


def _header(facts: Facts) -> Markup:
    up = f"up {span(facts.now - facts.started)}" if facts.started is not None else None
    return tag(
        "header",
        tag("h1", NAME),
        tag(
            "p",
            _row(facts.version, up, join("as of ", moment(facts.now, facts.now), " UTC")),
            id="asof",
            class_="dots",
            data_live=True,
        ),
        tag("p", "Reload the page for newer facts.", id="still"),
        tag("p", tag("button", "Pause updates", type="button", id="pause"), id="live", hidden=True),
        tag("p", id="lost", class_="verdict bad", role="alert", hidden=True),
    )


def _row(*parts: str | None) -> Markup:
    """Side by side; the style puts dots between."""
    return Markup(" ".join(tag("span", part) for part in parts if part))


def _verdict(facts: Facts, found: list[Finding], grade: Level) -> Markup:
    usable = sum(identity.usable for identity in facts.identities)
    asked = sum(route.lately.requests for route in facts.routes)
    failed = sum(route.lately.server_errors + route.lately.broken_off for route in facts.routes)
    at_a_glance = (
        f"{usable} of {many(len(facts.identities), 'token')} usable",
        f"requests: {rate(asked, facts.seconds)}",
        f"{failed:,.0f} failed in the last minute",
    )
    spoken = ". ".join([summary(found), *(f"{finding.about}: {finding.what}" for finding in found)])
    return tag(
        "section",
        tag("h2", icon(grade), summary(found), id="verdict"),
        tag("ul", (_found(finding) for finding in found), class_="findings", role="list") if found else None,
        tag("p", _row(*at_a_glance), class_="dots"),
        tag("p", spoken, class_="unseen", role="status", id="spoken"),
        aria_labelledby="verdict",
        class_=f"verdict {grade}",
    )


def _found(finding: Finding) -> Markup:
    return tag(
        "li",
        icon(finding.level),
        tag(
            "div",
            tag(
                "p",
                tag("a", finding.about, href=f"#{finding.anchor}"),
                ": ",
                tag("b", f"{finding.what}."),
                f" {finding.details}",
            ),
            tag("p", tag("bdi", finding.cause), class_="cause") if finding.cause else None,
            tag("p", finding.todo) if finding.todo else None,
        ),
        class_=finding.level,
        data_key=finding.about,
    )


_COLUMNS: Final = (
    "Route",
    "Requests",
    "Failed (5xx)",
    "Other errors (4xx)",
    "Token refused",
    "Upstream's mean",
    "Connections",
)


def _routes(facts: Facts) -> Markup:
    heads = (tag("th", column, role="columnheader", scope="col") for column in _COLUMNS)
    table = tag(
        "table",
        tag("thead", tag("tr", heads, role="row"), role="rowgroup"),
        tag("tbody", (_route(route) for route in facts.routes), role="rowgroup"),
        role="table",
        aria_labelledby="routes",
    )
    return tag(
        "section",
        tag("h2", "Routes", id="routes"),
        tag("p", "Of the last minute; in all: since the start.", class_="quiet"),
        table,
        tag("p", f"{many(facts.unrouted, 'request')} of the last minute matched no route.") if facts.unrouted else None,
        aria_labelledby="routes",
    )


def _route(route: Route) -> Markup:
    """Roles are spelt out: on a phone the style makes a card of each row, and it would be no table any more."""
    lately, total = route.lately, route.total
    signed = f"signed as {route.identity}" if route.identity else "unsigned"
    name = (
        tag("span", route.path, class_="name"),
        tag("span", tag("bdi", route.upstream), class_="quiet"),
        tag("span", signed, class_="quiet"),
    )
    refused, ever = sum(lately.rejections.values()), sum(total.rejections.values())
    broken = [f"{lately.broken_off:,.0f} broken off"] if lately.broken_off else []
    reasons = [*broken, *(f"{reason} {count:,.0f}" for reason, count in lately.upstream_errors.items())]
    cells: tuple[tuple[Child, ...], ...] = (
        (rate(lately.requests, route.seconds), _in_all(total.requests)),
        (_count(lately.server_errors, "bad"), _in_all(total.server_errors), *reasons),
        (_count(lately.client_errors), _in_all(total.client_errors)),
        (_count(refused, "warn"), _in_all(ever)),
        (took(lately.mean) if lately.mean is not None else NOTHING,),
        (f"{route.active} active", f"{route.idle} idle"),
    )
    return tag(
        "tr",
        tag("th", name, role="rowheader", scope="row"),
        (
            tag(
                "td",
                tag("span", first),
                (tag("span", one, class_="quiet") for one in more if one),
                role="cell",
                data_head=head,
            )
            for head, (first, *more) in zip(_COLUMNS[1:], cells, strict=True)
        ),
        role="row",
    )


def _count(count: float, grade: str = "") -> Child:
    words = f"{count:,.0f}"
    return tag("strong", icon("bad" if grade == "bad" else "warn"), words, class_=grade) if count and grade else words


def _in_all(count: float) -> str | None:
    return f"{count:,.0f} in all" if count else None


def _gateway(facts: Facts) -> Markup:
    now = facts.now
    read = [moment(facts.read_at, now), f" UTC, {span(now - facts.read_at)} ago"] if facts.read_at else NOTHING
    reload = None if facts.reload_ok else tag("strong", icon("warn"), "the last reload was refused", class_="warn")
    denied = ", ".join(f"{reason} {count:,.0f}" for reason, count in facts.denied.items())
    rows: tuple[tuple[str, Child], ...] = (
        ("Started", [moment(facts.started, now), " UTC"] if facts.started is not None else NOTHING),
        ("Configuration read", [*read, " " if reload else None, reload]),
        ("Token store", facts.store),
        ("Requests refused since the start", denied or "none"),
    )
    links = (("/status", "this as JSON"), ("/metrics", "metrics"), ("/readyz?verbose", "readiness"))
    return tag(
        "section",
        tag("h2", "Gateway", id="gateway"),
        tag("dl", (tag("div", tag("dt", term), tag("dd", words)) for term, words in rows)),
        tag("p", _row(*(tag("a", words, href=href) for href, words in links)), class_="dots"),
        aria_labelledby="gateway",
        class_="gateway",
    )
