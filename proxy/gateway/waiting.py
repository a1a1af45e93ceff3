"""Who waits for a connection to an upstream, and whose turn it is. Pure but for the futures.

A request whose body is still coming has its connection for as long as its client likes. So that a crowd of such clients
cannot have them all, requests of this kind get at most half of a route's connections; the others are for requests that
have come whole, which nearly all have when they ask for one.
"""

import asyncio
from collections import deque
from typing import Generic, TypeVar

from proxy.gateway.sending import SendingBody

T = TypeVar("T")


class Turn(Generic[T]):
    """One request that waits. result: a connection, or None where there is room for a new one."""

    __slots__ = ("body", "result")

    def __init__(self, body: SendingBody) -> None:
        self.body = body
        self.result: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()


class Waiting(Generic[T]):
    """most: connections that requests may have whose bodies are still coming. coming: those they have.

    Guarded by the event loop, like all of it: a body's ``counted`` says that ``coming`` counts it.
    """

    __slots__ = ("_partial", "_partial_next", "_whole", "coming", "most")

    def __init__(self, limit: int) -> None:
        self.most = (limit + 1) // 2
        self.coming = 0
        self._whole: deque[Turn[T]] = deque()
        self._partial: dict[SendingBody, Turn[T]] = {}  # in order
        self._partial_next = False  # the two kinds take turns, so neither starves the other

    def admits(self, body: SendingBody) -> bool:
        """Whether a connection that there is may be this request's."""
        return body.done or body.counted or self.coming < self.most

    def grant(self, body: SendingBody) -> None:
        """It gets one."""
        if not body.done and not body.counted:
            body.counted = True
            self.coming += 1

    def let_go(self, body: SendingBody) -> bool:
        """It has come whole, or gives its connection back. Whether that lets another one in."""
        if body.counted:
            body.counted = False
            self.coming -= 1
            return bool(self._partial)
        turn = self._partial.pop(body, None)
        if turn is None:
            return False
        self._whole.append(turn)
        return True

    def queue(self, body: SendingBody) -> Turn[T]:
        """It waits from here on, until ``next`` picks it or it is ``left`` out."""
        turn: Turn[T] = Turn(body)
        if body.done or body.counted:
            self._whole.append(turn)
        else:
            self._partial[body] = turn
        return turn

    def leave(self, turn: Turn[T]) -> None:
        """It waits no more."""
        if self._partial.get(turn.body) is turn:
            del self._partial[turn.body]
        elif turn in self._whole:
            self._whole.remove(turn)

    def next(self) -> Turn[T] | None:
        """Whose turn it is; it counts as granted."""
        while self._whole or self._partial:
            partial = bool(self._partial) and self.coming < self.most and (self._partial_next or not self._whole)
            if not partial and not self._whole:
                return None
            self._partial_next = not partial
            turn = self._partial.pop(next(iter(self._partial))) if partial else self._whole.popleft()
            if not turn.result.done():
                self.grant(turn.body)
                return turn
        return None
