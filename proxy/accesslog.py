"""One line a request, at a price the request path can pay: no dict, no logger, no system call per line.

The line is put together by hand; only strings that a client chose go through JSON's own escaping. Lines gather in a
list and are written together, by a timer that runs only while there is something to write.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quoted
from typing import Final, Literal, Protocol, TextIO

from proxy.redact import scrub

AccessMode = Literal["all", "errors", "off"]
Format = Literal["json", "console"]

CLIENT_LEFT: Final = 499  # counted, and no error
_LONGEST: Final = 512  # characters of one field: enough to know it by, and cheap to look through
_FULL: Final = 256  # lines; then they are written without waiting for the timer


class Why(Protocol):
    """Why the gateway itself answered, or broke an answer off. kind: of the problem. error: RFC 9209 2.3 error type.
    detail: words."""

    @property
    def kind(self) -> str: ...
    @property
    def error(self) -> str: ...
    @property
    def detail(self) -> str: ...
    @property
    def broken_off(self) -> bool: ...


def _later(flush: Callable[[], None]) -> object:
    """50 ms: short for a person who watches, long enough for many lines in one write."""
    return asyncio.get_running_loop().call_later(0.05, flush)


class AccessLog:
    """What each request came to, on ``stream``; nothing at all when that is None.

    mode ``errors``: only status 400 and above, 499 excepted, and what was broken off. now: Unix seconds. later:
    has a function called soon, on the event loop. A stream that cannot be written loses lines and never a request.
    """

    def __init__(
        self,
        stream: TextIO | None,
        mode: AccessMode,
        fmt: Format = "json",
        *,
        now: Callable[[], float] = time.time,
        later: Callable[[Callable[[], None]], object] = _later,
    ) -> None:
        self._stream = stream
        self._off = stream is None or mode == "off"
        self._only_errors = mode == "errors"
        self._json = fmt == "json"
        self._now = now
        self._later = later
        self._lines: list[str] = []
        self._timer = False
        self._second = -1
        self._prefix = ""

    def wants(self, status: int) -> bool:
        """Whether a request that ended so is written; spares the caller what ``write`` would be told."""
        return not (self._off or (self._only_errors and (status < 400 or status == CLIENT_LEFT)))

    def write(
        self,
        *,
        route: str | None,
        method: str,
        path: str,
        status: int,
        duration_s: float,
        correlation_id: str,
        client: str,
        bytes_out: int,
        bytes_in: int = 0,
        upstream_s: float | None = None,
        token_wait_s: float = 0.0,
        replayed: bool = False,
        why: Why | None = None,
    ) -> None:
        """One finished request. path: without its query, which may hold anything. route: None where none matched. why:
        None for what the upstream answered, whole."""
        if self._off or (why is None and not self.wants(status)):
            return
        if len(path) > 64 or "eyJ" in path:
            path = _tidy(path)
        if len(correlation_id) > 64 or "eyJ" in correlation_id:
            correlation_id = _tidy(correlation_id)
        now = self._now()
        second = int(now)
        if second != self._second:
            self._begin_second(second)
        if self._json:
            line = (
                f'{self._prefix}{int((now - second) * 1000):03d}Z","level":"info","event":"request","logger":"access",'
                f'"route":{"null" if route is None else quoted(route)},"method":{quoted(method)},"path":{quoted(path)},'
                f'"status":{status},"duration_s":{duration_s:.6f},'
                f'"upstream_s":{"null" if upstream_s is None else format(upstream_s, ".6f")},'
                f'"token_wait_s":{token_wait_s:.6f},"correlation_id":{quoted(correlation_id)},'
                f'"replayed":{"true" if replayed else "false"},"client":{quoted(client)},'
                f'"bytes_in":{bytes_in},"bytes_out":{bytes_out}'
                f"{'' if why is None else _reason(why)}}}\n"
            )
        else:
            line = (
                f"{self._prefix}{int((now - second) * 1000):03d}Z {status} {quoted(method)[1:-1]} {quoted(path)[1:-1]} "
                f"{duration_s * 1000:.1f}ms{' replayed' if replayed else ''} {client} {quoted(correlation_id)[1:-1]}"
                f"{'' if why is None else _said(why)}\n"
            )
        self._lines.append(line)
        if len(self._lines) >= _FULL:
            self.flush()
        elif not self._timer:
            self._timer = True
            self._later(self._on_time)

    def flush(self) -> None:
        """Write what has gathered."""
        lines, self._lines = self._lines, []
        if lines and self._stream is not None:
            with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
                self._stream.write("".join(lines))
                self._stream.flush()

    def close(self) -> None:
        """Write what has gathered; nothing is taken afterwards."""
        self.flush()
        self._off = True

    def _on_time(self) -> None:
        self._timer = False
        self.flush()

    def _begin_second(self, second: int) -> None:
        self._second = second
        begin = '{"timestamp":"' if self._json else ""
        self._prefix = begin + time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))


def _reason(why: Why) -> str:
    what = '"broken_off":true' if why.broken_off else f'"problem":{quoted(why.kind)}'
    return f',{what},"error":{quoted(why.error)},"detail":{quoted(_tidy(why.detail))}'


def _said(why: Why) -> str:
    return f" {'broken off, ' if why.broken_off else ''}{why.error}: {quoted(_tidy(why.detail))[1:-1]}"


def _tidy(text: str) -> str:
    return scrub(text if len(text) <= _LONGEST else text[:_LONGEST] + "…")
