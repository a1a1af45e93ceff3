"""Pure: one identity on the page, and the small parts that others need too."""

from typing import Final
from urllib.parse import quote

from proxy.admin.page.bar import bar
from proxy.admin.page.facts import Attempt, Identity
from proxy.admin.page.markup import Child, Markup, tag
from proxy.admin.page.verdict import Level, anchor, level, standing
from proxy.admin.page.words import away, clock, iso, took

_SHOWN: Final = 3  # refreshes that are seen without asking for more
# A tick, a clock hand, an exclamation mark, a cross, each on a form of its own: to be told apart without colours.
_ICONS: Final = {
    "ok": ("M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1z", "M4.7 8.3l2.2 2.2 4.4-4.6"),
    "busy": ("M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1z", "M8 4.2V8l2.6 1.6"),
    "warn": ("M8 1.2L15.4 14.5H.6z", "M8 6v4M8 12.2v.6"),
    "bad": ("M5 .8h6L15.2 5v6L11 15.2H5L.8 11V5z", "M5.3 5.3l5.4 5.4M10.7 5.3l-5.4 5.4"),
}


def icon(grade: Level) -> Markup:
    """For the eye only: words stand beside it."""
    form, sign = _ICONS[grade]
    paths = tag("path", d=form, class_="form"), tag("path", d=sign, class_="sign")
    return tag("svg", paths, class_=f"icon {grade}", viewBox="0 0 16 16", width=16, height=16, aria_hidden="true")


def moment(at: float, now: float) -> Markup:
    return tag("time", clock(at, now), datetime=iso(at))


def card(identity: Identity, now: float) -> Markup:
    """All about one identity."""
    name, grade = anchor(identity.name), level(identity)
    return tag(
        "article",
        tag(
            "div",
            tag("h3", identity.name, id=name),
            tag("p", icon(grade), tag("strong", identity.state), f": {standing(identity)}", class_=f"state {grade}"),
            class_="head",
        ),
        bar(identity, now),
        tag("dl", _rows(identity, now)),
        tag("h4", "Last refreshes"),
        _history(identity, now),
        _source(identity),
        _refresh(identity),
        class_=f"card {grade}",
        aria_labelledby=name,
        data_key=identity.name,
    )


def _rows(identity: Identity, now: float) -> list[Markup]:
    """What is known; of a token that is not there, nothing."""

    def ends(at: float | None) -> str:
        return "ended" if at is not None and at <= now else "ends"

    until = identity.suspended_until
    again = "Next try" if identity.failures else "Next refresh"
    token = tag("code", identity.fingerprint) if identity.fingerprint else "none"
    times: tuple[tuple[str, str, float | None], ...] = (
        ("", "Login suspended until", until),
        ("due", again, identity.next_refresh if identity.next_refresh != until else None),
        ("end", f"Token {ends(identity.expires)}", identity.expires),
        ("session", f"Session {ends(identity.session_ends)}", identity.session_ends),
        ("", f"Refresh token {ends(identity.refresh_expires)}", identity.refresh_expires),
    )
    rows: list[tuple[str, str, Child]] = [("now", "Now", moment(now, now))] if identity.expires is not None else []
    rows += [(mark, term, _when(at, now)) for mark, term, at in times if at is not None]
    if identity.fingerprint and identity.session_ends is None:
        rows.append(("session", "Session ends", "not known"))
    rows.append(("", "Token", token))
    counts = (("Failures in a row", identity.failures), ("Requests waiting", identity.waiting))
    rows += [("", term, f"{count:,}") for term, count in counts if count]
    return [tag("div", tag("dt", _key(mark), term), tag("dd", words)) for mark, term, words in rows]


def _source(identity: Identity) -> Markup | None:
    if not identity.system:
        return None
    place = (" at ", tag("bdi", identity.endpoint)) if identity.endpoint else ()
    return tag("p", identity.system, place, class_="quiet source")


def _when(at: float, now: float) -> Child:
    return tag("span", away(at, now)), " ", tag("small", moment(at, now))


def _key(mark: str) -> Markup | None:
    """Which mark of the bar this is."""
    paths = {"now": "M8 11L2 2h12zM7 3h2v12H7z", "due": "M8 5l6 9H2z", "end": "M7 1h2v14H7z", "session": "M3 4h8v8H3z"}
    if mark not in paths:
        return None
    shape = tag("path", d=paths[mark], class_=mark)
    return tag("svg", shape, class_="key", viewBox="0 0 16 16", width=12, height=12, aria_hidden="true")


def _history(identity: Identity, now: float) -> Markup:
    if not identity.history:
        return tag("p", "None yet.", class_="quiet")
    newest, older = identity.history[:_SHOWN], identity.history[_SHOWN:]
    shown = tag("ol", (_attempt(attempt, now) for attempt in newest), role="list")
    if not older:
        return shown
    more = tag("ol", (_attempt(attempt, now) for attempt in older), role="list")
    return Markup(shown + tag("details", tag("summary", f"{len(older)} before these"), more))


def _attempt(attempt: Attempt, now: float) -> Markup:
    good = attempt.result == "success"
    at = [moment(attempt.at, now), f", {away(attempt.at, now)}"] if attempt.at is not None else None
    return tag(
        "li",
        icon("ok" if good else "bad"),
        tag(
            "div",
            tag("strong", attempt.result, class_="ok" if good else "bad"),
            f" {attempt.grant} ({attempt.trigger}) ",
            tag("span", at, f" · {took(attempt.duration)}", class_="quiet"),
            tag("p", tag("bdi", attempt.detail), class_="cause") if attempt.detail else None,
        ),
    )


def _refresh(identity: Identity) -> Markup:
    """Two steps without any script: to open it, and to press the button in it."""
    words = "Renews the token at once and ends every pause."
    if identity.suspended_until is not None:
        words += " A password that is still wrong counts as one more failed login at the provider."
    return tag(
        "details",
        tag("summary", "Refresh now…", tag("span", f" {identity.name}", class_="unseen")),
        tag(
            "form",
            tag("p", words),
            tag("button", f"Yes, refresh {identity.name}", type="submit"),
            tag("p", role="status", class_="outcome", data_own=True),
            method="post",
            action=f"/identities/{quote(identity.name, safe='')}/refresh",
        ),
        class_="refresh",
        data_key="refresh",
    )
