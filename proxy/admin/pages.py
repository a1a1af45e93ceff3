"""The endpoints: what each answers to which method."""

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from proxy.admin.answers import answer, clean_mapping, document, page, plain, problem
from proxy.admin.guard import refusal, unreadable
from proxy.admin.page import notice, pieces, read, text
from proxy.admin.seams import Check, Readiness, Refresher, StatusSource
from proxy.errors import TokenError, TokenUnavailableError
from proxy.logs import get
from proxy.metrics import Metrics

log = get("proxy.admin")

_FOR_PEOPLE: Final = ("/", "/status")  # the rest is for machines, and tells numbers
_REFRESH: Final = re.compile(r"/identities/([^/]+)/refresh")


class Pages:
    """One request in, one response out; never raises."""

    def __init__(self, *, readiness: Readiness, status: StatusSource, metrics: Metrics, refresher: Refresher) -> None:
        self._readiness = readiness
        self._status = status
        self._metrics = metrics
        self._refresher = refresher
        self._readable: dict[str, Callable[[web.BaseRequest], Awaitable[web.Response]]] = {
            "/": self._overview,
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._metrics_page,
            "/status": self._status_page,
        }

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._dispatch(request)
        except Exception as exc:
            log.error("an admin page failed", path=request.path, exc_info=exc)
            return problem(500, "The gateway failed to make this page; its log says why.")

    async def _dispatch(self, request: web.BaseRequest) -> web.Response:
        path = request.rel_url.raw_path
        if show := self._readable.get(path):
            if request.method not in ("GET", "HEAD"):
                return _not_allowed("GET, HEAD", request)
            if path in _FOR_PEOPLE and (reason := unreadable(request.headers)):
                return problem(403, reason, "client", person=_of_a_person(request))
            return await show(request)
        if found := _REFRESH.fullmatch(path):
            if request.method != "POST":
                return _not_allowed("POST", request)
            if reason := refusal(request.headers):
                return problem(403, reason, "client", person=_of_a_person(request))
            return await self._refresh(unquote(found[1]), request)
        return problem(404, "There is nothing here; / lists what there is.", "route", person=_of_a_person(request))

    async def _overview(self, request: web.BaseRequest) -> web.Response:
        """The status page, or the same as text for a terminal."""
        facts = read(clean_mapping(self._status.status()))
        if not _of_a_person(request):
            return plain(200, text(facts))
        body: list[str] = []
        for piece in pieces(facts):
            body.append(piece)
            await asyncio.sleep(0)  # many identities make a long page; requests go first
        return page(200, body)

    async def _livez(self, _request: web.BaseRequest) -> web.Response:
        return plain(200, "ok\n")

    async def _readyz(self, request: web.BaseRequest) -> web.Response:
        """As Kubernetes' own: ``ok``, or the checks one a line when asked for them or when one fails."""
        checks = self._readiness.checks()
        ready = all(check.ok for check in checks)
        if ready and "verbose" not in request.query:
            return plain(200, "ok\n")
        lines = [_line(check) for check in checks]
        lines.append("readyz check passed" if ready else "readyz check failed")
        return plain(200 if ready else 503, "\n".join(lines) + "\n")

    async def _metrics_page(self, request: web.BaseRequest) -> web.Response:
        pieces, content_type = self._metrics.slices(request.headers.get("Accept", ""))
        body: list[bytes] = []
        for piece in pieces:
            body.append(piece)
            await asyncio.sleep(0)  # many identities make a long page; requests go first
        return answer(200, b"".join(body), content_type)

    async def _status_page(self, _request: web.BaseRequest) -> web.Response:
        return document(self._status.status())

    async def _refresh(self, name: str, request: web.BaseRequest) -> web.Response:
        person = _of_a_person(request)
        if name not in self._refresher.identities():
            return problem(404, "There is no identity of this name; /status lists them.", "route", person=person)
        try:
            outcome = {"identity": name, **await self._refresher.refresh(name)}
        except TokenUnavailableError as exc:
            wait = {"Retry-After": str(math.ceil(max(exc.retry_after, 1.0)))}
            return problem(503, exc.words, "token", members={"identity": name}, headers=wait, person=person)
        except TokenError as exc:
            members = {"identity": name, "result": exc.result}
            return problem(502, exc.words, "token", members=members, person=person)
        if outcome.get("result") == "success":
            return page(200, notice("Refreshed", f"{name} has a new token.", "ok")) if person else document(outcome)
        words = str(outcome.get("detail") or "The refresh failed.")
        return problem(502, words, "token", members=outcome, person=person)


def _of_a_person(request: web.BaseRequest) -> bool:
    """Browsers name HTML; curl, probes and scrapers take anything."""
    for offer in request.headers.get("Accept", "").lower().split(","):
        media, *parameters = (part.strip() for part in offer.split(";"))
        if media == "text/html" and not any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters):
            return True
    return False


def _line(check: Check) -> str:
    words = f": {' '.join(check.words.split())}" if check.words and not check.ok else ""
    return f"[+]{check.name} ok" if check.ok else f"[-]{check.name} failed{words}"


def _not_allowed(allow: str, request: web.BaseRequest) -> web.Response:
    return problem(405, f"Here one may {allow}.", headers={"Allow": allow}, person=_of_a_person(request))
