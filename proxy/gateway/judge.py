"""An answer that may say "bad token": held back, judged, then passed on or replaced (contract; B1 to B4).

Made only for an answer whose status is a rejection, or for a small JSON body that has not arrived whole with its head.
It holds little: 64 KiB and for a quarter of a second while it inspects, and while a rejected token is being replaced
it stops reading the upstream.
"""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final, Protocol

from proxy.gateway.fields import Fields
from proxy.gateway.headers import passable
from proxy.gateway.http1 import ResponseHead
from proxy.gateway.outgoing import Outgoing
from proxy.gateway.rejection import INSPECT_MAX, Look, RejectionRules
from proxy.gateway.relation import UpstreamError
from proxy.gateway.route import Route
from proxy.metrics import RejectionOutcome
from proxy.tokens.source import Credential, TokenSource

# An answer without Content-Length may be a stream whose first piece somebody waits for (A24); a refusal is one packet.
_INSPECT_SECONDS: Final = 0.25


class Case(Protocol):
    """What the judge needs of the request: its exchange."""

    outgoing: Outgoing
    replayed: bool
    correlation_id: bytes

    def relay(self, head: ResponseHead | None, pieces: list[bytes], trailers: Fields, *, done: bool) -> None: ...

    def replay(self, credential: Credential) -> None: ...

    def lost(self, error: UpstreamError) -> None: ...

    def count_rejection(self, outcome: RejectionOutcome) -> None: ...


def summoned(
    case: Case,
    route: Route,
    look: Look,
    head: ResponseHead,
    pieces: list[bytes],
    credential: Credential,
    *,
    done: bool,
) -> "Judge | None":
    """A judge for an answer that its head does not clear. None when the body came whole with its head and is clear:
    then nothing need be held."""
    rules, source = route.rejected, route.source
    if look is Look.SUSPECT and done:
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not rules.says_rejected(head, body):
            return None
        look = Look.REJECTED
    if source is None:
        return None
    inspect, patience = look is Look.SUSPECT, route.response_timeout
    return Judge(case, rules, head, source, credential, inspect=inspect, patience=patience)


class Judge:
    """Holds one answer."""

    __slots__ = (
        "_case",
        "_credential",
        "_done",
        "_head",
        "_inspecting",
        "_lost",
        "_patience",
        "_pieces",
        "_rules",
        "_size",
        "_source",
        "_timer",
        "_trailers",
    )

    def __init__(
        self,
        case: Case,
        rules: RejectionRules,
        head: ResponseHead,
        source: TokenSource,
        credential: Credential,
        *,
        inspect: bool,
        patience: float,
    ) -> None:
        """inspect: the body decides; else the status has decided already. patience: seconds a refresh is awaited."""
        self._case = case
        self._rules = rules
        self._head = head
        self._source = source
        self._credential = credential
        self._pieces: list[bytes] = []
        self._trailers: Fields = []
        self._size = 0
        self._done = False
        self._lost: UpstreamError | None = None
        self._inspecting = inspect
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None

    def received(self, pieces: list[bytes], trailers: Fields, *, done: bool, first: bool) -> None:
        """More of the answer, the first piece with its head. The exchange has settled the connection when done."""
        self._pieces += pieces
        self._size += sum(map(len, pieces))
        self._trailers = trailers
        self._done = done
        if self._inspecting:
            self._inspect()
        elif first:
            self._rule()
        elif self._size > INSPECT_MAX and self._case.outgoing.connection is not None:
            self._case.outgoing.connection.pause_reading()

    def _inspect(self) -> None:
        """Look at a small JSON body once it is whole."""
        if self._done:
            if self._rules.says_rejected(self._head, b"".join(self._pieces)):
                self._rule()
            else:
                self.release()
        elif self._size > INSPECT_MAX or not self._rules.may_become_rejected(self._head, self._pieces):
            self.release()
        elif self._timer is None and self._head.length is None:
            self._timer = asyncio.get_running_loop().call_later(_INSPECT_SECONDS, self.release)

    def _rule(self) -> None:
        """The token was refused: replace it and send the request again, once, if that can be."""
        self.stop()
        case = self._case
        # Asked even when this request cannot use the answer, so that the next one has a new token.
        renewal = self._source.rejected(self._credential, passable(self._case.correlation_id))
        if case.replayed or (renewal is None and case.outgoing.body.replayable):
            self.pass_on("passed_on")
        elif not case.outgoing.body.replayable:
            self.pass_on("not_replayable")
        elif isinstance(renewal, Credential):
            case.replay(renewal)
        elif renewal is not None:
            case.outgoing.spawn(self._renew(renewal))

    async def _renew(self, renewal: Awaitable[Credential | None]) -> None:
        credential: Credential | None = None
        clock = asyncio.get_running_loop().time
        begun = clock()
        with suppress(TimeoutError):  # then the rejection is the answer
            async with asyncio.timeout(self._patience):
                # Shielded: the refresh belongs to every request of the identity, and outlives this one.
                credential = await asyncio.shield(asyncio.ensure_future(renewal))
        self._case.outgoing.token_wait += clock() - begun
        if credential is None:
            self.pass_on("passed_on")
        elif not self._case.outgoing.body.replayable:  # the body has gone past what is kept meanwhile
            self.pass_on("not_replayable")
        else:
            self._case.replay(credential)

    def pass_on(self, outcome: RejectionOutcome) -> None:
        """The client gets the rejection as it is."""
        self._case.count_rejection(outcome)
        self.release()

    def release(self) -> None:
        """What was held back goes to the client after all."""
        self.stop()
        if self._lost is not None:  # nothing has reached the client yet: it is told, instead of cut off
            self._case.lost(self._lost)
            return
        if self._case.outgoing.connection is not None:
            self._case.outgoing.connection.resume_reading()
        self._case.relay(self._head, self._pieces, self._trailers, done=self._done)

    def lost(self, error: UpstreamError) -> None:
        """The upstream broke off meanwhile. While a token is being replaced that need not matter."""
        self._lost = error
        if self._inspecting:
            self.release()

    def stop(self) -> None:
        """No timer outlives the judgement."""
        self._inspecting = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
