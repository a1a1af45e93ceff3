"""File descriptors: as many as may be had, a word when they cannot do, and a word when there is none left.

asyncio tells its exception handler, once a second and a connection, that one could not be accepted; uvloop (libuv)
closes such a connection and tells nobody. So the process also looks by itself, now and then.
"""

import asyncio
import errno
import os
import resource
import time
from collections.abc import Callable
from typing import Any, Final

from proxy import logs
from proxy.config import Config

_OTHERS: Final = 200  # the admin port's connections, listeners, token endpoints, stores, files
_QUIET_SECONDS: Final = 10.0
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # as asyncio has them at accept


def _open_and_close() -> None:
    os.close(os.open(os.devnull, os.O_RDONLY))


def shortage(config: Config, limit: int) -> str | None:
    """Words, where limits.connections promises more than a process of so many descriptors can hold."""
    connections = config.limits.connections
    wanted = connections + min(connections, sum(route.max_connections for route in config.routes)) + _OTHERS
    if wanted <= limit:
        return None
    return (
        f"limits.connections is {connections}, which with those to upstreams may take {wanted} file descriptors,"
        f" and this process may open {limit}: raise its limit (ulimit -Hn, LimitNOFILE) or lower limits.connections"
    )


class Descriptors:
    """Says that they have run out, at most once in ten seconds. now: seconds. probe: OSError where none is left.

    State, of the event loop's thread: ``_quiet_until``, before which nothing more is said.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, probe: Callable[[], None] = _open_and_close) -> None:
        self._now = now
        self._probe = probe
        self._quiet_until = float("-inf")

    def provide(self, config: Config) -> list[str]:
        """Raise the soft limit to the hard one (it is low for the sake of ``select``, which nothing here uses); a
        warning where that is not enough."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        words = None if hard == resource.RLIM_INFINITY else shortage(config, hard)
        return [] if words is None else [words]

    def loop_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """For ``loop.set_exception_handler``: as ``logs.loop_exception_handler``, but for a failed accept."""
        exc = context.get("exception")
        if "socket" in context and isinstance(exc, OSError) and exc.errno in _EXHAUSTED:
            self._tell(exc)
        else:
            logs.loop_exception_handler(loop, context)

    def look(self) -> None:
        """To be called now and then."""
        try:
            self._probe()
        except OSError as exc:
            if exc.errno in _EXHAUSTED:
                self._tell(exc)

    def _tell(self, exc: OSError) -> None:
        now = self._now()
        if now < self._quiet_until:
            return
        self._quiet_until = now + _QUIET_SECONDS
        words = (
            "new connections wait or are closed; raise the limit (ulimit -n, LimitNOFILE) or lower limits.connections"
        )
        logs.get("proxy.descriptors").error("no file descriptor left", reason=exc.strerror, words=words)
