"""The gateway's log: one event a line on stderr, JSON for machines or a console form for people.

Whatever reaches ``logging`` (aiohttp's and asyncio's records) takes the same way, tracebacks included: as one bounded
field of one line. The last step before writing takes out what looks like a secret (``proxy.redact``).
"""

import asyncio
import contextlib
import io
import json
import logging
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from proxy.accesslog import AccessLog, AccessMode, Format
from proxy.redact import scrub, scrub_value

__all__ = ["AccessLog", "AccessMode", "Format", "Level", "get", "install_hooks", "loop_exception_handler", "setup"]

Level = Literal["debug", "info", "warning", "error"]

_CHAIN: Final = 5  # exceptions of one chain
_FRAMES: Final = 20  # of one exception, the innermost
_WORDS: Final = 1000  # characters of one exception's text
_STORY: Final = 16_384  # characters of one traceback
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def get(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry ``name``. It may be made before ``setup``; bind to it only afterwards."""
    return cast(FilteringBoundLogger, structlog.get_logger(logger_name=name))


def setup(
    level: Level,
    fmt: Format,
    access: AccessMode,
    stream: TextIO | None = None,
    *,
    now: Callable[[], float] = time.time,
) -> AccessLog:
    """Sends everything to ``stream`` (default stderr) from now on; answers with the access log for the gateway.

    May be called again (a reload): loggers from ``get`` follow, those already bound keep their level.
    """
    out = _stderr() if stream is None else stream
    chain = _chain(fmt, out, now)
    _configure(level, chain, out)
    root = logging.getLogger()
    root.handlers = [_Bridge(chain, out, peers_too=level == "debug")]
    root.setLevel(level.upper())
    quiet = logging.getLogger("aiohttp.access")  # ours says more, and never the query or a Referer
    quiet.propagate = False
    quiet.handlers = [logging.NullHandler()]
    return AccessLog(out, access, fmt, now=now)


def _stderr() -> TextIO:
    """``sys.stderr``, made to write whole lines: unbuffered, as PYTHONUNBUFFERED makes it in many a container, it loses
    what the kernel does not take at once, as when a signal comes while nobody reads."""
    stream = sys.stderr
    if isinstance(getattr(stream, "buffer", None), io.RawIOBase):
        descriptor, encoding, errors = stream.fileno(), stream.encoding, stream.errors
        stream = sys.stderr = open(descriptor, "w", 1, encoding, errors, closefd=False)  # noqa: SIM115 - to the end
    return stream


def install_hooks() -> None:
    """For a process that is the gateway: crashes, of threads and of finalizers too, and warnings become log lines."""

    def crashed(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, exc, trace)
        else:
            get("proxy").critical("the process ends: unhandled exception", exc_info=exc)

    def thread_crashed(args: threading.ExceptHookArgs) -> None:
        get("proxy").error("a thread ended: unhandled exception", exc_info=args.exc_value)

    def unraisable(args: "sys.UnraisableHookArgs") -> None:
        get("proxy").error("an exception nobody could catch", exc_info=args.exc_value)

    sys.excepthook = crashed
    threading.excepthook = thread_crashed
    sys.unraisablehook = unraisable
    logging.captureWarnings(True)


def loop_exception_handler(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """For ``loop.set_exception_handler``: a failed task or callback that nobody waits for becomes one line.

    The context's other members are left out: their reprs hold results, buffers and arguments.
    """
    task = context.get("task") or context.get("future")
    fields = {"task": task.get_name()} if isinstance(task, asyncio.Task) else {}
    words = context.get("message") or "unhandled exception in the event loop"
    get("asyncio").error(words, exc_info=context.get("exception"), **fields)


class _Lines:
    """Where structlog hands its finished lines. One write a line; a stream that fails never fails its user."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        stream = sys.stderr if self._stream is None else self._stream
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
            stream.write(line + "\n")
            stream.flush()

    debug = info = warning = warn = error = critical = fatal = exception = log = msg


class _Bridge(logging.Handler):
    """``logging`` records through our chain. peers_too: also what aiohttp says of malformed messages of a peer."""

    def __init__(self, chain: list[Processor], stream: TextIO, *, peers_too: bool) -> None:
        super().__init__()
        self._chain = chain
        self._lines = _Lines(stream)
        self._peers_too = peers_too

    def emit(self, record: logging.LogRecord) -> None:
        exc = _exception_of(record.exc_info)
        if exc is not None and _quotes_peer(exc) and not self._peers_too:
            return  # a scanner's bytes on the admin port are no ERROR of ours
        try:
            words = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit the format
            words = str(record.msg)
        event: Any = {"event": words, "logger_name": record.name, "exc_info": exc}
        for step in self._chain:
            event = step(None, record.levelname.lower(), event)
        self._lines.msg(event)


def _configure(level: Level, chain: list[Processor], stream: TextIO | None) -> None:
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(stream),
        cache_logger_on_first_use=False,
    )


def _chain(fmt: Format, stream: TextIO | None, now: Callable[[], float]) -> list[Processor]:
    def stamp(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        """The members every line has, first and in this order."""
        at = datetime.fromtimestamp(now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        level = {"warn": "warning", "exception": "error", "fatal": "critical"}.get(method, method)
        first: EventDict = {"timestamp": at, "level": level, "event": event.pop("event", "")}
        first["logger"] = event.pop("logger_name", "proxy")
        return {**first, **event}

    if fmt == "json":
        return [stamp, _with_traceback, _scrubbed, _json_line]
    colors = stream is not None and stream.isatty()
    renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    return [stamp, _with_traceback, _scrubbed, _printable, renderer]


def _with_traceback(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event.pop("stack_info", None)
    exc = _exception_of(event.pop("exc_info", None))
    if exc is not None:
        event["exception"] = _story(exc)
    return event


def _scrubbed(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    # The traceback is clean already, word by word; as a whole it may be longer than any other string.
    return {name: value if name == "exception" else scrub_value(value, name) for name, value in event.items()}


def _json_line(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return json.dumps(event, separators=(",", ":"), default=str)


def _printable(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A terminal obeys control characters, whoever chose them."""
    for name, value in event.items():
        if isinstance(value, str):
            shown = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
            event[name] = shown if name == "exception" else shown.replace("\n", "\\n")
    return event


def _exception_of(exc_info: object) -> BaseException | None:
    """The exception behind any of the forms that ``exc_info`` may take."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return cast("BaseException | None", exc_info[1])
    return sys.exc_info()[1] if exc_info else None


def _quotes_peer(exc: BaseException) -> bool:
    """aiohttp's parser errors quote the offending bytes, a credential among them."""
    return any(
        kind.__module__ == "aiohttp.http_exceptions" or kind.__name__ == "ClientResponseError"
        for kind in type(exc).__mro__
    )


def _words(exc: BaseException) -> str:
    name = f"{type(exc).__module__}.{type(exc).__qualname__}".removeprefix("builtins.")
    if _quotes_peer(exc):
        return f"{name}: (its text quotes the peer and is left out)"
    try:
        text = str(exc)
    except Exception:  # noqa: BLE001 (a log line must come out, whatever an exception's __str__ does)
        text = "(its text cannot be had)"
    return f"{name}: {scrub(text[:_WORDS])}" if text else name


def _one(exc: BaseException) -> str:
    frames = "".join(traceback.format_list(traceback.extract_tb(exc.__traceback__, limit=-_FRAMES)))
    members = exc.exceptions[:_CHAIN] if isinstance(exc, BaseExceptionGroup) else ()
    return frames + "\n".join([_words(exc), *(f"  + {_words(member)}" for member in members)])


def _ancestors(exc: BaseException) -> Iterator[BaseException]:
    """The exception, then what it came from, the way Python itself tells it."""
    seen: set[int] = set()
    here: BaseException | None = exc
    while here is not None and id(here) not in seen and len(seen) < _CHAIN:
        seen.add(id(here))
        yield here
        here = here.__cause__ or (None if here.__suppress_context__ else here.__context__)


def _story(exc: BaseException) -> str:
    """A bounded traceback: frames of our own code and library code, no local values, texts cleaned."""
    parts = [_one(each) for each in _ancestors(exc)]
    return "\nwhich led to:\n".join(reversed(parts))[-_STORY:]


# Until setup, and in tools that never call it: warnings for people, on whatever stderr is then, never on stdout.
_configure("warning", _chain("console", None, time.time), None)
