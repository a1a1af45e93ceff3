"""Does this answer say "bad token"? Pure.

A platform says so by status (401, on other sites 403) or, with any status, 200 included, by a top-level ``resultCode``
in a small JSON body. Such a body is looked at, never changed.
"""

import json
import zlib
from collections.abc import Iterable
from enum import Enum
from typing import Final

from proxy.gateway.http1 import ResponseHead

INSPECT_MAX: Final = 64 * 1024


class Look(Enum):
    """What a response's head alone tells."""

    CLEAR = 0
    SUSPECT = 1
    REJECTED = 2


class RejectionRules:
    """How one route's upstream says "bad token"."""

    __slots__ = ("_codes", "_needles", "_statuses")

    def __init__(self, statuses: Iterable[int], codes: Iterable[str]) -> None:
        self._statuses = frozenset(statuses)
        self._codes = frozenset(codes)
        self._needles = tuple(code.encode() for code in self._codes)

    def first_look(self, head: ResponseHead) -> Look:
        """CLEAR: pass it on. SUSPECT: the body decides. REJECTED: the status says it."""
        if head.status in self._statuses:
            return Look.REJECTED
        if not self._needles or head.no_body:
            return Look.CLEAR
        kind = _kinds.get(head.content_type)
        if not (_kind(head.content_type) if kind is None else kind) & _JSON:
            return Look.CLEAR
        if head.length is not None and not 0 < head.length <= INSPECT_MAX:
            return Look.CLEAR
        return Look.SUSPECT

    def clears(self, head: ResponseHead, body: bytes) -> bool:
        """Whether a whole body says nothing of the kind for sure; a search that spares nearly every answer a parse.

        A JSON escape or a content coding could hide the code from the search.
        """
        if len(body) > INSPECT_MAX:
            return True
        if head.content_coding or b"\\u" in body:
            return False
        for needle in self._needles:  # noqa: SIM110 - a generator costs more than what it runs over
            if needle in body:
                return False
        return True

    def may_become_rejected(self, head: ResponseHead, pieces: list[bytes]) -> bool:
        """Whether a body that begins with these pieces can end as one. A streamed list shows at its first byte."""
        if not pieces or head.content_coding:
            return True
        return pieces[0].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"")

    def says_rejected(self, head: ResponseHead, body: bytes) -> bool:
        """Whether a whole body is a JSON object whose top-level ``resultCode`` is one of ours."""
        if self.clears(head, body):
            return False
        plain = _plain(body, head.content_coding.lower())
        if plain is None:
            return False
        try:
            document = json.loads(plain)
        except (ValueError, RecursionError):
            return False
        if not isinstance(document, dict):
            return False
        code = document.get("resultCode")
        return isinstance(code, str | int) and not isinstance(code, bool) and str(code) in self._codes


_JSON: Final = 1
_EVENTS: Final = 2
_KINDS_MAX: Final = 256
_kinds: dict[bytes, int] = {}  # Content-Type as sent -> what it is; bounded


def _kind(content_type: bytes) -> int:
    known = _kinds.get(content_type)
    if known is None:
        media_type = content_type.partition(b";")[0].strip().lower()
        known = _JSON if media_type == b"application/json" or media_type.endswith(b"+json") else 0
        known |= _EVENTS if media_type == b"text/event-stream" else 0
        if len(_kinds) < _KINDS_MAX:
            _kinds[content_type] = known
    return known


def is_event_stream(head: ResponseHead) -> bool:
    """Server-sent events: silence is not a fault there."""
    return bool(_kind(head.content_type) & _EVENTS)


def _plain(body: bytes, coding: bytes) -> bytes | None:
    """The body without its content coding; None where it cannot be read within the bound (then it is not looked at)."""
    if coding in (b"", b"identity"):
        return body
    if coding not in (b"gzip", b"x-gzip", b"deflate"):
        return None
    inflater = zlib.decompressobj(wbits=47 if coding != b"deflate" else 15)
    try:
        plain = inflater.decompress(body, INSPECT_MAX)
    except zlib.error:
        return None
    return plain if inflater.eof and not inflater.unconsumed_tail else None
