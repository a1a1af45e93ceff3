"""Pure: what an upstream's two answers, without a token and with a fresh one, say of the token."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy.checks.finding import Finding, Where, hint, ok, plain, problem
from proxy.config import Route
from proxy.tokens import claims

_JUDGED_UP_TO: Final = 64 * 1024
_LIKE_A_REFUSAL: Final = re.compile(r"[0-9]+:40[13]")
_CHALLENGE: Final = re.compile(r'\b(error|error_description)="([^"]{1,200})"')


@dataclass(frozen=True, slots=True)
class Seen:
    """One answer. headers: lower-case names. body: b"" for HEAD."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False, default=b"")

    @property
    def code(self) -> str:
        """The top-level ``resultCode`` of a JSON body of up to 64 KiB; "" without one."""
        try:
            tree = json.loads(self.body) if 0 < len(self.body) <= _JUDGED_UP_TO else None
        except (ValueError, RecursionError):
            return ""
        code = tree.get("resultCode") if isinstance(tree, dict) else None
        return code if isinstance(code, str) else ""

    @property
    def challenge(self) -> str:
        """What the upstream has against the token (RFC 6750 3): ``invalid_token, "The token expired"``."""
        found = dict(_CHALLENGE.findall(self.headers.get("www-authenticate", "")))
        words = f'"{plain(found["error_description"], 120)}"' if "error_description" in found else ""
        return ", ".join(part for part in (plain(found.get("error", ""), 40), words) if part)

    def __str__(self) -> str:
        return f"HTTP {self.status}" + (f" with resultCode {plain(self.code, 40)}" if self.code else "")


@dataclass(frozen=True, slots=True)
class Pair:
    """The answers to one question. signed, access: None where there was no token to ask with."""

    question: str
    bare: Seen
    signed: Seen | None
    access: str | None = field(repr=False)


def judged(where: Where, route: Route, expected: str, pair: Pair) -> Iterator[Finding]:
    """expected: what to look at when the token is refused. HEAD, or the path, may be forbidden by itself: only what
    leaves no doubt is a problem."""
    bare, signed = pair.bare, pair.signed
    question = pair.question.partition("?")[0]
    yield from _unlisted(where, route, question, bare)
    if signed is None:
        return
    without = f"{signed}, {bare} without a token"
    if _denies(route, signed):
        yield _refused(where, route, expected, pair)
    elif _denies(route, bare):
        yield ok(where.subject, "the upstream takes the token", without)
    else:
        finding = "whether the upstream takes the token does not show: it answers alike without one"
        advice = "send one real request through the gateway once it runs"
        yield hint(where.subject, finding, f"{question}: {without}", advice)


def _refuses(route: Route, seen: Seen) -> bool:
    return seen.status in route.rejected.statuses or (seen.code != "" and seen.code in route.rejected.result_codes)


def _denies(route: Route, seen: Seen) -> bool:
    """Whether it looks like a refusal, be it one that the route knows or not."""
    return _refuses(route, seen) or seen.status in (401, 403) or _LIKE_A_REFUSAL.fullmatch(seen.code) is not None


def _unlisted(where: Where, route: Route, question: str, bare: Seen) -> Iterator[Finding]:
    """A refusal that the route does not know for one: nothing would ever be refreshed for it."""
    if _refuses(route, bare):
        return
    key, value, listed = "statuses", str(bare.status), [str(status) for status in route.rejected.statuses]
    if _LIKE_A_REFUSAL.fullmatch(bare.code):
        key, value, listed = "result_codes", f'"{bare.code}"', route.rejected.result_codes
    elif bare.status not in (401, 403):
        return
    yield hint(
        where.subject,
        f"the upstream answers {bare} to {question} without a token",
        f"rejected.{key} has {', '.join(listed) or 'none'}",
        f"if that is how it refuses a bad token, add {value} to {where.section}.rejected.{key}: else nothing renews it",
    )


def _refused(where: Where, route: Route, expected: str, pair: Pair) -> Finding:
    bare, signed = pair.bare, pair.signed
    assert signed is not None  # noqa: S101 (for the type checker: the caller has looked)
    question = pair.question.partition("?")[0]
    inside = claims.decode(pair.access or "")
    issuer = inside.get("iss")
    evidence = ", ".join(
        part
        for part in (
            f"{question}: {signed}",
            f"{bare} without a token",
            signed.challenge,
            f"issuer {plain(issuer, 120)}" if isinstance(issuer, str) else "",
        )
        if part
    )
    if signed.status == 401 or not _denies(route, bare):
        return problem(where.subject, "the upstream refuses the fresh token", evidence, expected)
    advice = f"perhaps only this question is forbidden; if real requests fail too, {expected}"
    return hint(where.subject, f"the upstream refuses {question} with the fresh token", evidence, advice)
