"""What the tests of the token wing run it on: a clock turned by hand, and a provider whose state a test edits."""

import asyncio
import heapq
import json
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import parse_qsl

from proxy.config import KeycloakIdentity, OAuth2Identity
from proxy.errors import TokenError
from proxy.metrics import Metrics
from proxy.tokens.factory import build_keeper
from proxy.tokens.keeper import Keeper
from proxy.tokens.pair import Moment
from proxy.tokens.source import Credential
from proxy.tokens.stores.base import Store
from proxy.tokens.stores.memory import MemoryStore
from proxy.tokens.systems.base import Reply, TokenRequest

TOKEN_URL = "https://idp.example.com/keycloak/auth/realms/nagra/protocol/openid-connect/token"
START = 1_700_000_000.0


def held(keeper: Keeper) -> Credential:
    """The credential in use; there must be one."""
    credential = keeper.current()
    assert credential is not None
    return credential


async def settle() -> None:
    """Lets every task run until it waits for something."""
    for _ in range(60):
        await asyncio.sleep(0)


class FakeClock:
    """Time passes when a test says so. Sleepers sleep on the machine's running time, as asyncio's do."""

    def __init__(self) -> None:
        self._running = 1000.0
        self._slept = 0.0
        self._wall_set = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    def mono(self) -> float:
        return self._running + self._slept

    def now(self) -> Moment:
        return Moment(self.mono(), self.wall())

    def wall(self) -> float:
        return START + self._running - 1000.0 + self._slept + self._wall_set

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._running + max(seconds, 0), next(self._order), woken))
        await woken

    async def wait(self, work: Awaitable[object], seconds: float) -> bool:
        future = asyncio.ensure_future(work)
        alarm = asyncio.ensure_future(self.sleep(seconds))
        try:
            await asyncio.wait((future, alarm), return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()
        return future.done()

    async def advance(self, seconds: float) -> None:
        """Time passes and everybody who is due wakes, one moment after the other."""
        await settle()
        until = self._running + seconds
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, woken = heapq.heappop(self._sleepers)
            if woken.done():
                continue
            self._running = max(self._running, at)
            woken.set_result(None)
            await settle()
        self._running = until
        await settle()

    async def skip(self, seconds: float) -> None:
        """The same, for long times: the machine sleeps most of them, in portions of 18 s."""
        for _ in range(int(seconds // 20)):
            self.suspend(18)
            await self.advance(2)

    def suspend(self, seconds: float) -> None:
        """The machine sleeps: timers stand still, both clocks go on."""
        self._slept += seconds

    def set_wall(self, seconds: float) -> None:
        """Somebody moves the wall clock."""
        self._wall_set += seconds


def jwt(**claims: object) -> str:
    """A token with these claims and a signature that nobody checks."""

    def part(value: object) -> str:
        return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2lnbmF0dXJl"


def replied(status: int, body: object = None, **headers: str) -> Reply:
    """A reply with this JSON, or these bytes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


def refused(status: int, error: str, description: str = "", **headers: str) -> Reply:
    return replied(status, {"error": error, "error_description": description}, **headers)


@dataclass
class Session:
    began: float
    refresh: str = ""  # the one refresh token that is good
    open: bool = True


Answer = Callable[[TokenRequest], Reply]


@dataclass
class FakeProvider:
    """Keycloak's semantics as observed on 26.4.7, on the fake clock. A test edits the fields.

    calls: (grant_type or "logout", seconds since start). script: answers or errors that come first, one a call.
    lose: answers lost after being carried out.
    """

    clock: FakeClock
    password: str = "right"
    life: float = 300
    idle: float = 1800
    maximum: float = 36000
    offline: bool = False
    rotates: bool = True
    not_before: float = 0
    clock_offset: float = 0
    delay: float = 0
    down: TokenError | None = None
    lose: int = 0
    roles: tuple[str, ...] = ("operatorRole",)
    reply_extra: dict[str, object] = field(default_factory=dict)
    script: list[Reply | TokenError | Answer] = field(default_factory=list)
    calls: list[tuple[str, float]] = field(default_factory=list)
    requests: list[TokenRequest] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    closed: bool = False
    busy: int = 0
    reached: list[bool] = field(default_factory=list)  # of each request, whether it may have been carried out
    refused_logins: list[float] = field(default_factory=list)  # when, on the steady clock
    overlapped: bool = False
    reused: int = 0  # refresh tokens presented that a rotation had replaced
    ends: dict[str, float] = field(default_factory=dict)  # access token: when it dies, on the steady clock
    tls_read: int = 0

    async def exchange(
        self,
        request: TokenRequest,
        correlation_id: str,
        *,
        probing: bool = False,
        within: float | None = None,
    ) -> Reply:
        assert correlation_id
        assert (within or 10) > 0
        assert probing in (True, False)
        form = dict(parse_qsl(request.body.decode()))
        kind = "logout" if request.url.endswith("/logout") else form["grant_type"]
        self.calls.append((kind, round(self.clock.mono() - 1000.0, 3)))
        self.requests.append(request)
        self.reached.append(self.down is None or self.down.lost)
        await self._pass(within or 10, kind)
        if self.down is not None:
            raise self.down
        if self.script:
            return self._scripted(self.script.pop(0), request)
        reply = self._answer(kind, form)
        if self.lose:
            self.lose -= 1
            raise TokenError("network", "the answer was lost", lost=True)
        return reply

    def reread_tls(self) -> None:
        self.tls_read += 1

    async def close(self) -> None:
        self.closed = True

    async def _pass(self, limit: float, kind: str) -> None:
        """Time, as long as the caller bears it; two token requests at a time are noted."""
        if not self.delay:
            return
        self.busy += kind != "logout"
        self.overlapped = self.overlapped or self.busy > 1
        await self.clock.sleep(min(self.delay, limit))
        self.busy -= kind != "logout"
        if self.delay > limit:
            raise TokenError("timeout", "no answer", lost=True)

    def count(self, kind: str) -> int:
        return sum(1 for called, _ in self.calls if called == kind)

    def times(self, kind: str) -> list[float]:
        return [at for called, at in self.calls if called == kind]

    def recover(self) -> None:
        """Nothing is wrong any more."""
        self.delay, self.down, self.lose = 0, None, 0
        self.script.clear()

    def end_sessions(self) -> None:
        for session in self.sessions:
            session.open = False

    def open_sessions(self) -> int:
        return sum(1 for session in self.sessions if session.open)

    @staticmethod
    def _scripted(step: Reply | TokenError | Answer, request: TokenRequest) -> Reply:
        if isinstance(step, TokenError):
            raise step
        return step if isinstance(step, Reply) else step(request)

    def _answer(self, kind: str, form: dict[str, str]) -> Reply:
        if kind == "password":
            if form["password"] != self.password:
                if not self.lose:  # a refusal that nobody heard is none
                    self.refused_logins.append(self.clock.mono())
                return refused(401, "invalid_grant", "Invalid user credentials")
            return self._granted(self._opened())
        if kind == "client_credentials":
            reply: dict[str, object] = {"access_token": self._access(self.life), "expires_in": self.life}
            return replied(200, reply | {"refresh_expires_in": 0, "token_type": "Bearer"})
        session = self._session_of(form["refresh_token"])
        if session is None or not session.open:
            return refused(400, "invalid_grant", "Session not active")
        if kind == "logout":
            session.open = False
            return replied(204)
        if form["refresh_token"] != session.refresh:
            session.open = False
            self.reused += 1
            return refused(400, "invalid_grant", "Maximum allowed refresh token reuse exceeded")
        if self.clock.mono() >= session.began + self.maximum:
            return refused(400, "invalid_grant", "Token is not active")
        return self._granted(session)

    def seed(self) -> str:
        """A refresh token as a person downloads it."""
        session = self._opened()
        self._granted(session)
        return session.refresh

    def _opened(self) -> Session:
        self.sessions.append(Session(self.clock.mono()))
        return self.sessions[-1]

    def _session_of(self, refresh: str) -> Session | None:
        number = refresh.split("-")[1] if refresh.startswith("session-") else "x"
        known = number.isdigit() and int(number) < len(self.sessions)
        return self.sessions[int(number)] if known else None

    def _granted(self, session: Session) -> Reply:
        rest = session.began + self.maximum - self.clock.mono()
        life, idle = int(min(self.life, rest)), int(min(self.idle, rest))
        if self.rotates or not session.refresh:
            session.refresh = f"session-{self.sessions.index(session)}-{len(self.calls)}"
        reply: dict[str, object] = {
            "access_token": self._access(life),
            "expires_in": life,
            "refresh_expires_in": 0 if self.offline else idle,
            "refresh_token": session.refresh,
            "token_type": "bearer",
            "not-before-policy": self.not_before,
            "scope": "profile",
        }
        return replied(200, {name: value for name, value in (reply | self.reply_extra).items() if value is not None})

    def _access(self, life: float) -> str:
        now = int(self.clock.wall() + self.clock_offset)
        roles = {"roles": list(self.roles)}
        token = jwt(iat=now, exp=now + int(life), jti=len(self.calls), realm_access=roles)
        self.ends[token] = self.clock.mono() + int(life)
        return token


class Journal:
    """A log that a test reads: (level, event, fields)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    def exception(self, event: str, **fields: object) -> None:
        self.lines.append(("exception", event, fields))

    def events(self, name: str) -> list[dict[str, object]]:
        return [fields for _, event, fields in self.lines if event == name]


@dataclass
class Wing:
    """A keeper on fakes. draw: what every random draw gives."""

    clock: FakeClock = field(default_factory=FakeClock)
    draw: float = 0.0
    log: Journal = field(default_factory=Journal)
    metrics: Metrics = field(default_factory=lambda: Metrics("test"))
    store: Store = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self.provider = FakeProvider(self.clock)
        self.keepers: list[Keeper] = []

    def keeper(self, **changes: Any) -> Keeper:
        values: dict[str, Any] = {"token_url": TOKEN_URL, "client_id": "crm_client"}
        if changes.get("grant", "password") == "password":
            values |= {"username": "crm_client_user", "password": "right"}
        system = changes.pop("system", "keycloak")
        model = KeycloakIdentity if system == "keycloak" else OAuth2Identity
        keeper = build_keeper(
            "opentv",
            model.model_validate({"system": system} | values | changes),
            store=self.store,
            metrics=self.metrics,
            log=self.log,
            clock=self.clock,
            draw=lambda: self.draw,
            transport=self.provider,
        )
        self.keepers.append(keeper)
        return keeper

    async def started(self, **changes: Any) -> Keeper:
        keeper = self.keeper(**changes)
        await keeper.start()
        await settle()
        return keeper

    async def close(self) -> None:
        """Closes every keeper, turning the clock as long as that takes."""
        for keeper in self.keepers:
            closing = asyncio.ensure_future(keeper.close())
            await settle()
            while not closing.done():
                await self.clock.advance(0.5)
            await closing

    def refreshes(self) -> dict[tuple[str, str, str], int]:
        """token_refreshes_total, without the zeros."""
        return {labels: n for labels, n in self.metrics.identity("opentv").refreshes.items() if n}
