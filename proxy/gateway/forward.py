"""One request, from its head to its last byte: send (``Outgoing``), judge (``Judge``), maybe replay, answer.

The exchange stands between a client's connection and an upstream's, and is told by both what happens.
"""

from math import inf
from typing import Final, Protocol

from proxy.gateway import problems
from proxy.gateway.answer import Answer, grants, interim, switching
from proxy.gateway.fields import Fields
from proxy.gateway.http1 import RequestHead, ResponseHead
from proxy.gateway.judge import Judge, summoned
from proxy.gateway.outgoing import Outgoing
from proxy.gateway.problems import Problem
from proxy.gateway.rejection import Look
from proxy.gateway.relation import UpstreamError, UpstreamReason
from proxy.gateway.route import Route
from proxy.gateway.seams import ClientSide
from proxy.gateway.tunnel import Tunnel
from proxy.metrics import RejectionOutcome
from proxy.tokens.source import Credential

_CLIENT_CLOSED: Final = 499
_UNASKED: Final = UpstreamError("protocol", "http_protocol_error", "the upstream switched protocols unasked")


class Ledger(Protocol):
    """Who counts and logs."""

    def record(self, exchange: "Exchange", status: int) -> None: ...


class Exchange:
    """See the module. The deadline lives on the inbound connection; ``expired`` tells who is to blame for it.

    over: the client has its answer, or has left; nothing that still happens concerns it. fault: why the answer is the
    gateway's own (``told`` bytes of body), or was broken off.
    """

    answer: Answer | None = None
    fault: Problem | None = None
    told = 0
    over = False
    replayed = False
    upstream_seconds: float | None = None  # from the request sent to the response's head
    _judge: Judge | None = None
    _refused = False  # the platform refused the token of the answer that is passed on
    _told_to_continue = False

    def __init__(
        self,
        ledger: Ledger,
        inbound: ClientSide,
        head: RequestHead,
        route: Route,
        correlation_id: bytes,
        client: str,
        head_bytes: bytes,
    ) -> None:
        """head_bytes: what goes to the upstream, but for the credential and the empty line."""
        self._ledger = ledger
        self._gateway = inbound.gateway
        self._inbound = inbound
        self.head = head
        self.method = head.method
        self.route = route
        self.correlation_id = correlation_id
        self.client = client
        self.started = inbound.started
        self.outgoing = Outgoing(self, inbound, head, route, head_bytes)

    # -- from the client ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Send it off; pieces of the body that came with the head have been given to ``body`` before."""
        if not self.over:
            self.outgoing.start()

    def body(self, pieces: list[bytes], trailers: Fields, *, done: bool) -> None:
        """More of the request's body."""
        if self.over:
            return
        if trailers:
            trailers = self.route.rules.passing(trailers, self.head.dropped)
        written = self.outgoing.more(pieces, trailers, done=done, judging=self._judge is not None)
        if self.outgoing.body.size > self.route.max_body:
            self.give_up(problems.body_too_large(self.route.max_body))
        elif written and self.answer is None and self._judge is None:
            self.outgoing.watch()

    def client_writable(self, writable: bool) -> None:
        """Back-pressure from the client's side: it reads slower than the upstream sends, or reads again."""
        connection = self.outgoing.connection
        if connection is not None:
            connection.resume_reading() if writable else connection.pause_reading()
        if self.answer is not None:
            self._touch()

    def client_gone(self) -> None:
        """The client left before it had its answer; not an error (A25)."""
        if self.over:
            return
        self.outgoing.drop()
        self._finish(_CLIENT_CLOSED)

    def expired(self) -> None:
        """The deadline has passed."""
        if self.over:
            return
        upstream_late = self.outgoing.awaits_upstream
        self.outgoing.drop()
        if self.answer is not None and self._inbound.writing_paused:  # it is the client who does not read
            self._finish(_CLIENT_CLOSED)
            self._inbound.abort()
        elif self.answer is not None:
            self._failed("timeout", problems.upstream_silent(self.route.idle_timeout))
        elif upstream_late:
            self._failed("timeout", problems.upstream_slow(self.route.response_timeout))
        else:
            self.fail(problems.body_slow(self._gateway.limits.body_idle))

    # -- from the upstream --------------------------------------------------------------------------------------

    def upstream_writable(self, writable: bool) -> None:
        """See relation.Exchange."""
        self.outgoing.paused = not writable
        if writable:
            self._inbound.resume_reading()
        else:
            self._inbound.pause_reading()
        if self.answer is None:
            self.outgoing.watch()

    def informational(self, head: ResponseHead) -> None:
        """See relation.Exchange. To an HTTP/1.0 client none is sent (RFC 9110 15.2), and 100 only once."""
        if self.head.minor == 0:
            return
        if head.status == 100:
            if self._told_to_continue or not self.head.expects_continue:
                return
            self._told_to_continue = True
            self.outgoing.body.undecided = False
            self.outgoing.watch()
        self._inbound.write(interim(head, self.route.origins))

    def received(self, head: ResponseHead | None, pieces: list[bytes], done: bool, trailers: Fields) -> None:
        """See relation.Exchange."""
        if head is not None:
            outgoing = self.outgoing
            self.upstream_seconds = self._gateway.clock() - outgoing.sent_at
            if outgoing.credential is not None:
                look = self.route.rejected.first_look(head)
                if look is not Look.CLEAR:
                    self._judge = summoned(self, self.route, look, head, pieces, outgoing.credential, done=done)
        if done:
            self.outgoing.settle()
        if self._judge is None:
            self.relay(head, pieces, trailers, done=done)
        else:
            self._judge.received(pieces, trailers, done=done, first=head is not None)

    def relay(self, head: ResponseHead | None, pieces: list[bytes], trailers: Fields, *, done: bool) -> None:
        """Pass on what one read brought, in one write."""
        if self.over:
            return
        if self._judge is not None:
            self._judge = None
            self.outgoing.catch_up()
        out: list[bytes] = []
        answer = self.answer
        if head is not None:
            answer = self.answer = Answer(head, self.head.minor)
            out.append(self._response_head(answer))
        if answer is None:
            return
        out += answer.body(pieces, trailers, done=done)
        if out:
            self._inbound.write(out[0] if len(out) == 1 else b"".join(out))
        if done:
            self._finish(answer.status)
            self._inbound.finished(keep_alive=answer.delimited and self.head.keep_alive and self.outgoing.body.done)
        else:
            self._touch()

    def _touch(self) -> None:
        if self._inbound.writing_paused:
            self._inbound.deadline = self._gateway.clock() + self._gateway.limits.body_idle
        else:
            endless = self.answer is not None and self.answer.endless
            self._inbound.deadline = inf if endless else self._gateway.clock() + self.route.idle_timeout

    def _response_head(self, answer: Answer) -> bytes:
        if not answer.delimited or self._gateway.draining or not self.outgoing.body.done:
            # A client that was not told to send its body would send its next request where the body is awaited, so an
            # answer to an unfinished request says that it is the last (RFC 9110 10.1.1).
            self.head.keep_alive = False
        if self.replayed:
            self._accepted(answer.status)
        gateway = self.head.origin or self._inbound.scheme + b"://" + (self.head.host or self._inbound.address())
        return answer.head(self.correlation_id, self.route.origins, gateway, keep_alive=self.head.keep_alive)

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """See relation.Exchange. A 101 that nobody asked for breaks the protocol (RFC 9110 15.2.2)."""
        connection = self.outgoing.connection
        if connection is None or not grants(head, self.head.upgrade):
            self.outgoing.drop()
            self.upstream_lost(_UNASKED)
            return
        self._accepted(head.status)
        self.outgoing.connection = None
        self._inbound.write(switching(head, self.correlation_id, self.route.origins, self.head.upgrade))
        Tunnel(self._inbound, connection, on_end=lambda: self._finish(101)).open(rest)

    def tunnelled(self, data: bytes) -> None:
        """See relation.Exchange: of a tunnel, the ``Tunnel`` is told."""

    def upstream_lost(self, error: UpstreamError) -> None:
        """See relation.Exchange."""
        retry = self.outgoing.may_retry(error)
        self.outgoing.lost()
        if self.over:
            return
        if self._judge is not None:
            self._judge.lost(error)
        elif retry:
            self.outgoing.retry()
        else:
            self.lost(error)

    def lost(self, error: UpstreamError) -> None:
        """No answer, or no whole one, comes any more."""
        self._judge = None
        self._failed(error.reason, problems.upstream_failed(error.reason, error.error, error.words))

    def _failed(self, reason: UpstreamReason, problem: Problem) -> None:
        self.route.metrics.upstream_errors[reason] += 1
        self.route.metrics.broken_off += self.answer is not None
        self.fail(problem)

    # -- a rejected token ---------------------------------------------------------------------------------------

    def count_rejection(self, outcome: RejectionOutcome) -> None:
        """See judge.Case."""
        self._refused = True
        self.route.metrics.rejections[outcome] += 1

    def replay(self, credential: Credential) -> None:
        """The same request once more; the two differ only in the credential (B1)."""
        self.count_rejection("replayed")
        self._refused = False
        self.replayed = True
        self._judge = None
        self.outgoing.replay(credential)

    def _accepted(self, status: int) -> None:
        """Tell the token wing that a refresh has cured a rejection; of that a failing platform (5xx) says nothing."""
        if self.replayed and not self._refused and status // 100 != 5:
            self.outgoing.accepted()

    # -- the end ------------------------------------------------------------------------------------------------

    def give_up(self, problem: Problem) -> None:
        """The request turned out to be one that cannot be served while it was under way."""
        self.outgoing.drop()
        self.fail(problem)

    def fail(self, problem: Problem) -> None:
        """The gateway's own answer, where none has begun. Else the head is out, and only a broken connection tells that
        the body is not whole (A17)."""
        if self.over:
            return
        self.fault = problem
        if self.answer is not None:
            problem.broken_off = True
            self._finish(self.answer.status)
            self._inbound.abort()
            return
        if self._judge is not None:
            self._judge.stop()
        keep_alive = self.head.keep_alive and self.outgoing.body.done and not self._gateway.draining
        head_only, now = self.method == b"HEAD", self._gateway.wall()
        rendered = problems.render(problem, self.correlation_id, now=now, keep_alive=keep_alive, head_only=head_only)
        self.told = problems.body_size(rendered)
        self._inbound.write(rendered)
        self._finish(problem.status)
        self._inbound.finished(keep_alive=keep_alive)

    def _finish(self, status: int) -> None:
        """Count and log; after this, nothing that still happens concerns the client."""
        self.over = True
        if self._judge is not None:
            self._judge.stop()
        self._ledger.record(self, status)
        self.outgoing.end()
