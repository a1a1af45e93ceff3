"""One identity's few exchanges with its provider, each made once and never again by itself: a second login within a
second of a refused one locks the user (Keycloak's quick login check), and a second refresh ends the session."""

import ssl
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

from proxy import tls
from proxy.checks.probe import Peer
from proxy.config import Config, IdentityBase, RemoteIdentity, TokenEndpointIdentity
from proxy.config.web import without_query
from proxy.errors import SecretError, TokenError
from proxy.tokens.clock import Clock, SystemClock
from proxy.tokens.factory import build_system, http_transport
from proxy.tokens.pair import Grant, Moment, TokenPair, from_login, from_refresh
from proxy.tokens.systems.base import Local, Reply, Step, System, TokenRequest
from proxy.tokens.systems.replies import http_date
from proxy.tokens.transport import NoTransport, Transport

LOGOUT_TIMEOUT: Final = 3.0
_CONNECT_SHARE: Final = 0.8
"""Of an identity's timeout, as the gateway has it."""


class Visit:
    """pair: what the visit has now. request, reply: the last exchange's, None when there was none. drift: the
    provider's clock minus ours, seconds, if it showed. context: for TLS to the token endpoint.

    Raises ConfigError when the identity's TLS files cannot be used.
    """

    def __init__(
        self, name: str, identity: IdentityBase, clock: Clock | None = None, transport: Transport | None = None
    ) -> None:
        self.name = name
        self.identity = identity
        self._clock = clock or SystemClock()
        self.system = build_system(name, identity, self._clock)
        self.pair: TokenPair | None = None
        self.request: TokenRequest | None = None
        self.reply: Reply | None = None
        self.drift: float | None = None
        self.context: ssl.SSLContext | None = None
        self._transport: Transport = NoTransport()
        if isinstance(identity, RemoteIdentity):
            if urlsplit(identity.endpoint).scheme == "https":
                self.context = tls.client_context(identity.tls, f"identities.{name}.tls")
            self._transport = transport or http_transport(identity, self.context, tls.explain)

    @property
    def seed(self) -> str | None:
        return None if isinstance(self.system, Local) else self.system.seed

    @property
    def place(self) -> str:
        """Where the token comes from."""
        if isinstance(self.identity, RemoteIdentity):
            return without_query(self.identity.endpoint)
        return self.system.place if isinstance(self.system, Local) else ""

    @property
    def peer(self) -> Peer | None:
        """Whom a closer look is at; None where nobody is asked."""
        identity = self.identity
        if not isinstance(identity, RemoteIdentity):
            return None
        connect = identity.timeout * _CONNECT_SHARE
        return Peer(
            identity.endpoint, self.context, identity.tls.server_name, connect, identity.timeout, identity.proxy
        )

    @property
    def account(self) -> str:
        """Whom the login is for; "" where there is none."""
        return self.identity.account if isinstance(self.identity, RemoteIdentity) else ""

    def now(self) -> Moment:
        return self._clock.now()

    async def login(self) -> TokenPair:
        """A session of our own, or what the seed opens, or what is on this machine. Raises TokenError, SecretError."""
        if isinstance(self.system, Local):
            now = self._clock.now()
            self.pair = from_login(self.system.mint(now.wall), now, opened=False)
            return self.pair
        grant, sent = await self._exchange("login", self.system, self.system.login())
        self.pair = from_login(grant, sent, opened=self.system.seed is None)
        return self.pair

    async def refresh(self, pair: TokenPair) -> TokenPair:
        """The next pair. Raises TokenError, SecretError. pair: with a refresh token, which is spent hereby."""
        assert not isinstance(self.system, Local)  # noqa: S101 (for the type checker: its pairs cannot be refreshed)
        grant, sent = await self._exchange("refresh", self.system, self.system.refresh(pair.refresh or ""))
        self.pair = from_refresh(grant, sent, pair)
        return self.pair

    async def logout(self) -> str | None:
        """Ends the session that ``login`` opened. "" when that worked, None when there is none, else why it stays."""
        pair, identity = self.pair, self.identity
        if pair is None or not pair.session_opened or isinstance(self.system, Local):
            return None
        if isinstance(identity, TokenEndpointIdentity) and identity.grant == "client_credentials":
            return None
        if isinstance(identity, RemoteIdentity) and not identity.logout:
            return f"identities.{self.name}.logout is false"
        if pair.refresh is None:
            return "the provider gave no refresh token to end it with"
        try:
            request = self.system.logout(pair.access, pair.refresh)
            if request is None:
                return "this system has no logout"
            reply = await self._transport.exchange(request, str(uuid4()), within=LOGOUT_TIMEOUT)
        except (TokenError, SecretError) as error:
            return str(error)
        return "" if reply.status in (200, 204) else f"the provider answered HTTP {reply.status}"

    async def ask(self, request: TokenRequest) -> Reply:
        """A question beside the token's own exchanges. Raises TokenError."""
        return await self._transport.exchange(request, str(uuid4()))

    async def close(self) -> None:
        await self._transport.close()

    async def _exchange(self, step: Step, system: System, request: TokenRequest) -> tuple[Grant, Moment]:
        self.request, self.reply = request, None
        sent = self._clock.now()
        reply = self.reply = await self._transport.exchange(request, str(uuid4()))
        received = self._clock.now()
        date = http_date(reply.headers.get("date", ""))
        self._measure(date, sent, received)
        grant = system.read(reply, request, step, received.wall)
        if date is None:
            self._measure(grant.issued_at, sent, received)
        return grant, sent

    def _measure(self, theirs: float | None, sent: Moment, received: Moment) -> None:
        """theirs: Unix seconds, cut to whole ones: on average half a second less than what their clock said."""
        if theirs is not None:
            self.drift = theirs + 0.5 - (sent.wall + received.wall) / 2


def visit(config: Config, name: str) -> Visit:
    """Raises ConfigError when the identity's TLS files cannot be used."""
    return Visit(name, config.identities[name])
