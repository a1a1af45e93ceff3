"""Where a client's connection, what it carries and what all connections share meet: who may ask what of whom."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Protocol

from proxy.config import Limits
from proxy.gateway.fields import Fields
from proxy.gateway.http1 import RequestHead
from proxy.gateway.problems import Problem


class Carried(Protocol):
    """What a connection carries, and tells of what happens: an exchange or a tunnel."""

    def client_gone(self) -> None: ...

    def client_writable(self, writable: bool) -> None: ...

    def expired(self) -> None: ...


class Request(Carried, Protocol):
    """An exchange, as its connection sees it."""

    def start(self) -> None: ...

    def body(self, pieces: list[bytes], trailers: Fields, *, done: bool) -> None: ...

    def give_up(self, problem: Problem) -> None: ...


class Stream(Carried, Protocol):
    """A tunnel, as its connection sees it."""

    def client_data(self, data: bytes) -> None: ...


Verdict = Literal["admitted", "denied", "ask"]


class ClientSide(Protocol):
    """A client's connection.

    deadline: when what is awaited now is overdue, by the service's clock. gone_at: when a client that has closed its
    half counts as gone. started: when the current request's head was whole. verdict: whether its address alone decides
    that it may use the gateway. idle: between two requests.
    """

    deadline: float
    gone_at: float
    started: float
    verdict: Verdict
    scheme: bytes
    peer: str
    has_certificate: bool
    reading_paused: bool
    writing_paused: bool

    @property
    def gateway(self) -> "Service": ...

    @property
    def idle(self) -> bool: ...

    def address(self) -> bytes: ...

    def write(self, data: bytes) -> None: ...

    def finished(self, *, keep_alive: bool) -> None: ...

    def become_tunnel(self, tunnel: Stream) -> bytes: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def expired(self, now: float) -> None: ...

    def check_alive(self) -> None: ...

    def break_off(self, problem: Problem) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class Service(Protocol):
    """What all connections share."""

    limits: Limits
    draining: bool
    clock: Callable[[], float]
    wall: Callable[[], float]

    def connected(self, connection: "ClientSide") -> Problem | None: ...

    def disconnected(self, connection: "ClientSide") -> None: ...

    def open(self, connection: "ClientSide", head: RequestHead) -> Request | Problem: ...

    def refuse(
        self, connection: "ClientSide", head: RequestHead | None, problem: Problem, *, keep_alive: bool
    ) -> None: ...

    def released(self, connection: "ClientSide") -> None: ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...
