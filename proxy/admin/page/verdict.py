"""Pure: what is wrong, in words, worst first; what an operator who was woken reads before anything else."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from proxy.admin.page.facts import Facts, Identity, Route
from proxy.admin.page.words import away, clock, many, share, span

Level = Literal["bad", "warn", "busy", "ok"]

_PLACE: Final = re.compile(r"([\w-]+(?:\.[\w-]+)*): ")  # a dotted path; words and files may hold colons too
_ALARMING: Final = 0.05  # of a route's answers failing: more than a mishap


@dataclass(frozen=True)
class Finding:
    """level: bad (clients feel it, or a person must act) or warn. what: of ``about``; no number in it counts, so that
    a screen reader repeats it only when it changes. details: with the numbers. anchor: where the page tells more.
    cause: others' words. todo: what helps."""

    level: Level
    about: str
    what: str
    anchor: str
    details: str = ""
    cause: str = ""
    todo: str = ""


def findings(facts: Facts) -> list[Finding]:
    """Everything that is not as it should be."""
    without = {identity.name for identity in facts.identities if not identity.usable}
    found = [
        *(finding for identity in facts.identities if (finding := _of_identity(identity, facts.now))),
        *(finding for route in facts.routes for finding in _of_route(route, without)),
        *_of_gateway(facts),
    ]
    return sorted(found, key=lambda finding: finding.level != "bad")


def summary(found: list[Finding]) -> str:
    """``All is well``, ``2 problems, 1 warning``."""
    problems = sum(finding.level == "bad" for finding in found)
    parts = [many(problems, "problem")] if problems else []
    if rest := len(found) - problems:
        parts.append(many(rest, "warning"))
    return ", ".join(parts) or "All is well"


def level(identity: Identity) -> Level:
    if not identity.usable:
        return "bad" if identity.history else "busy"
    if identity.state == "suspended":  # nothing renews the token at hand
        return "bad"
    if identity.failures or identity.suspended_until is not None:
        return "warn"
    return "busy" if identity.state == "stale" else "ok"


def standing(identity: Identity) -> str:
    """What the state means for requests, in a few words."""
    if identity.suspended_until is not None:
        return "login refused; the token at hand still serves" if identity.usable else "login refused; no usable token"
    if not identity.usable:
        return "no usable token" if identity.history else "the first token is on its way"
    if identity.failures:
        return "serving, but it cannot be renewed"
    return "serving, a refresh is due" if identity.state == "stale" else "serving"


def anchor(identity: str) -> str:
    """The id of an identity's part of the page: the configuration leaves names no character that an id cannot have."""
    return f"identity-{identity}"


def _of_identity(identity: Identity, now: float) -> Finding | None:
    grade, where = level(identity), anchor(identity.name)
    if identity.usable and grade in ("ok", "busy"):
        return None
    cause = identity.last.detail if identity.last and identity.failures else ""
    if not identity.needed and not identity.usable:
        return Finding("warn", identity.name, "no usable token, and no route that needs it", where, "", cause)
    if grade == "busy":
        return Finding("warn", identity.name, "no token yet", where, "Requests wait for the first one.")
    left = f"The token at hand serves for another {span(identity.expires - now)}. " if identity.expires else ""
    effect = left if identity.usable else "Requests get 503. "
    if identity.suspended_until is not None:
        what = "login suspended" if identity.usable else "login suspended, no usable token"
        again = f"Next try {_at(identity.suspended_until, now)}."
        todo = "Correct the secret's file: that is noticed within 5 s and ends the wait, as does a refresh by hand."
        return Finding(grade, identity.name, what, where, effect + again, cause, todo)
    again = f"Next try {_at(identity.next_refresh, now)}." if identity.next_refresh is not None else ""
    if identity.usable:
        tries = f"{many(identity.failures, 'try', 'tries')} failed. "
        return Finding("warn", identity.name, "the token cannot be renewed", where, tries + effect + again, cause)
    return Finding("bad", identity.name, "no usable token", where, effect + again, cause)


def _at(at: float, now: float) -> str:
    return f"{away(at, now)}, at {clock(at, now)} UTC" if at - now >= 60 else away(at, now)


def _of_route(route: Route, without: set[str]) -> Iterator[Finding]:
    """without: the identities that have no usable token. That their routes answer 503 is said there."""
    lately, about = route.lately, f"route {route.path}"
    reasons = ", ".join(f"{reason} {count:,.0f}" for reason, count in lately.upstream_errors.items())
    cause = f"Upstream errors: {reasons}" if reasons else ""
    if lately.server_errors and route.identity not in without:
        whole = max(lately.requests, lately.server_errors)
        details = f"{many(lately.server_errors, 'answer')} of the last minute ({share(lately.server_errors, whole)})."
        grade: Level = "bad" if lately.server_errors / whole >= _ALARMING else "warn"
        yield Finding(grade, about, "requests failed with 5xx", "routes", details, cause)
        cause = ""  # told once
    if lately.broken_off:  # their status was another
        whole = max(lately.requests, lately.broken_off)
        details = f"{many(lately.broken_off, 'answer')} of the last minute ({share(lately.broken_off, whole)})."
        yield Finding("warn", about, "answers were broken off in the middle", "routes", details, cause)
    if refused := lately.rejections.get("passed_on", 0):
        what = "the platform refuses the token, and a new one does not help"
        details = f"{many(refused, 'time')} in the last minute."
        yield Finding("warn", about, what, "routes", details, todo="Mostly the user lacks a role there.")


def _of_gateway(facts: Facts) -> Iterator[Finding]:
    if not facts.reload_ok:
        what = "the last reload was refused, the former configuration is in force"
        yield Finding("warn", "configuration", what, "gateway", "", "; ".join(facts.faults), "Mend it, send SIGHUP.")
    if facts.store_errors:
        yield _of_store(facts)
    if facts.turned_away:
        details = f"{many(facts.turned_away, 'connection')} refused in the last minute, with 503."
        todo = "Have clients reuse connections; raise limits.connections or limits.connections_per_address."
        yield Finding("warn", "limits", "there are too many connections", "gateway", details, todo=todo)
    for words in facts.warnings:
        place = _PLACE.match(words)
        about, rest = (place[1], words[place.end() :]) if place else ("configuration", words)
        what, _, todo = rest.rpartition("; ") if "; " in rest else (rest, "", "")
        yield Finding("warn", about, what, "gateway", todo=f"{todo[:1].upper()}{todo[1:]}." if todo else "")


def _of_store(facts: Facts) -> Finding:
    """Lately: it may be well again by now, and nobody asks it only to know."""
    failed = ", ".join(f"{operation} {count:,.0f}" for operation, count in facts.store_errors.items())
    at = facts.store_failed
    last = f", the last {away(at, facts.now)}, at {clock(at, facts.now)} UTC" if at is not None else ""
    serving = all(identity.usable for identity in facts.identities)
    effect = " Tokens serve on; a restart may have to log in." if serving else ""
    details = f"In the last minute: {failed}{last}.{effect}"
    todo = "Mend the place that the words name; the token is stored by itself then."
    return Finding("warn", f"store {facts.store}", "operations failed", "gateway", details, facts.store_words, todo)
