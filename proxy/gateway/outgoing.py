"""A request on its way to the upstream: the credential, the connection, the body, and all of it once more if need be.

Synchronous as long as nothing has to be awaited: a usable token and an idle connection are there for nearly every
request, and then no task, no future and no timer is made. A task exists only while one of the two is awaited, or a
rejected token is being replaced.
"""

import asyncio
from collections.abc import Coroutine
from math import inf
from typing import Any, Final, Protocol

from proxy import logs
from proxy.errors import TokenUnavailableError
from proxy.gateway.fields import Fields
from proxy.gateway.headers import passable
from proxy.gateway.http1 import RequestHead, ResponseHead
from proxy.gateway.problems import Problem, internal_error, no_token
from proxy.gateway.relation import Exchange, UpstreamError
from proxy.gateway.route import Route
from proxy.gateway.seams import ClientSide
from proxy.gateway.sending import NO_BODY, SendingBody
from proxy.gateway.upstream import UpstreamConnection
from proxy.tokens.source import Credential

_SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_WAITING_MAX: Final = 64 * 1024  # body bytes taken in for a connection or token that is awaited, beyond what is armed


class Sender(Exchange, Protocol):
    """The exchange, as its request sees it."""

    correlation_id: bytes

    def fail(self, problem: Problem) -> None:
        """The request cannot be sent; this is the answer."""


class Outgoing:
    """See the module. connection: the one that carries the request now. token_wait: seconds waited for tokens."""

    again = False
    connection: UpstreamConnection | None = None
    credential: Credential | None = None
    paused = False  # the upstream takes no more for now
    sent_at = 0.0
    token_wait = 0.0
    _retried = False
    _task: asyncio.Task[None] | None = None

    def __init__(self, sender: Sender, inbound: ClientSide, head: RequestHead, route: Route, head_bytes: bytes) -> None:
        """head_bytes: the head for the upstream, but for the credential and the empty line."""
        self._sender = sender
        self._inbound = inbound
        self._clock = inbound.gateway.clock
        self._head_bytes = head_bytes
        self.body = SendingBody(head, route.replay_limit) if head.chunked or head.length else NO_BODY
        self._unsafe = head.method not in _SAFE or not self.body.armed
        self.route = route

    def start(self) -> None:
        """Send it off, with what there is of its body."""
        source = self.route.source
        if source is not None:
            self.credential = source.current()
            if self.credential is None:
                self.spawn(self._prepare())
                return
        self._take_and_send()

    def replay(self, credential: Credential) -> None:
        """The same request once more; the two differ only in the credential (B1)."""
        self.drop()
        self.again = True
        self.credential = credential
        self._take_and_send()

    def accepted(self) -> None:
        """The platform takes the replay's credential: the refresh has cured the rejection. Of other requests nothing is
        told: that some are accepted does not say whether another's refusal (a missing role) is cured (B4)."""
        if self.route.source is not None and self.credential is not None:
            self.route.source.served(self.credential)

    def retry(self) -> None:
        """On a new connection, after a pooled one turned out to be closed."""
        self._retried = True
        self.spawn(self._prepare())

    def may_retry(self, error: UpstreamError) -> bool:
        """A pooled connection that the upstream closed meanwhile: once more, on a new one (A26, RFC 9112 9.3.1).

        Only where no byte can have been processed twice: a safe method, and not one byte of an answer.
        """
        connection = self.connection
        if connection is None or self._retried or self._unsafe or not self.body.armed:
            return False
        return connection.used > 1 and not connection.touched and error.reason == "reset"

    def more(self, pieces: list[bytes], trailers: Fields, *, done: bool, judging: bool) -> bool:
        """More of the body has come. True when it was written. judging: an answer is there that may be replaced."""
        body, connection = self.body, self.connection
        # A body that is not kept must not be spent on an answer that may yet be replaced.
        writes = connection is not None and (not judging or body.armed)
        data = body.add(pieces, trailers, done=done, connected=writes)
        if done and (body.counted or self._task is not None):
            self.route.pool.whole(body)
        if connection is not None and writes:
            if data:
                connection.write(data)
            return True
        if body.kept > _WAITING_MAX and not body.armed:
            self._inbound.pause_reading()
        return False

    def catch_up(self) -> None:
        """The answer is not replaced after all: write what was held back meanwhile."""
        if self.connection is not None and (data := self.body.overdue()):
            self.connection.write(data)
            self._inbound.resume_reading()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Await something; it has a time limit of its own."""
        self._inbound.deadline = inf
        self._task = self._inbound.gateway.spawn(self._guarded(work))
        self._task.add_done_callback(lambda _: work.close())  # a task that is cancelled before it began never awaits it

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001 - whatever it is, the client must not wait for ever
            logs.get("proxy.gateway").exception("a request broke inside the gateway")
            self.drop()
            self._sender.fail(internal_error())

    def _take_and_send(self) -> None:
        connection = self.route.pool.take(self.body)
        if connection is None:
            self.spawn(self._prepare())
        else:
            self._send(connection)

    async def _prepare(self) -> None:
        """Wait for what is missing: a token, a connection."""
        source, pool = self.route.source, self.route.pool
        try:
            if source is not None and self.credential is None:
                begun = self._clock()
                try:
                    self.credential = await source.obtain(passable(self._sender.correlation_id))
                finally:
                    self.token_wait += self._clock() - begun
            connection = None if self._retried else pool.take(self.body)
            if connection is None:
                connection = await pool.connect(self.body)
                if source is not None and not self.again:
                    self.credential = source.current() or self.credential  # the wait may have outlived the token
        except TokenUnavailableError as error:
            self._sender.fail(no_token(error))
        except UpstreamError as error:
            self._sender.upstream_lost(error)
        else:
            self._task = None
            self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        self.connection, self.paused = connection, False
        credential = self.credential
        data = self._head_bytes + (b"\r\n" if credential is None else credential.line + b"\r\n")
        body = self.body.first() if self.body is not NO_BODY else b""
        self.sent_at = self._clock()
        self._watch_from(self.sent_at)
        if self._inbound.reading_paused:
            self._inbound.resume_reading()
        connection.begin(self._sender, data + body if body else data)

    def watch(self) -> None:
        """Set the deadline for the answer."""
        self._watch_from(self._clock())

    def _watch_from(self, now: float) -> None:
        self._inbound.deadline = now + (
            self.route.response_timeout if self.awaits_upstream else self._inbound.gateway.limits.body_idle
        )

    @property
    def awaits_upstream(self) -> bool:
        """While the body is coming it is the client who is awaited, unless the upstream does not take it, or has not
        yet said whether it wants it."""
        return self.body.done or self.paused or self.body.undecided

    def end(self) -> None:
        """The exchange is over. Lets go of it, so that both are freed at once and not by the collector."""
        self._sender = NOBODY

    def lost(self) -> None:
        """The connection is gone, or none was had."""
        self._give_back()
        self.connection = None

    def _give_back(self) -> None:
        if self.body.counted:
            self.route.pool.whole(self.body)

    def settle(self) -> None:
        """The answer is complete."""
        self._give_back()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.settle(request_done=self.body.done)

    def drop(self) -> None:
        """Nothing more is wanted of the upstream, nor of what is awaited."""
        self._give_back()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()


class _Nobody:
    """A sender to whom nothing matters any more."""

    method = b""
    correlation_id = b""

    def fail(self, problem: Problem) -> None:
        pass

    def informational(self, head: ResponseHead) -> None:
        pass

    def received(self, head: ResponseHead | None, pieces: list[bytes], done: bool, trailers: Fields) -> None:
        pass

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        pass

    def tunnelled(self, data: bytes) -> None:
        pass

    def upstream_lost(self, error: UpstreamError) -> None:
        pass

    def upstream_writable(self, writable: bool) -> None:
        pass


NOBODY: Final[Sender] = _Nobody()
