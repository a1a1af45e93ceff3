"""One exchange with a token endpoint: what is asked, what the answer means, and what the ledger learns of it."""

from typing import Final

from proxy.counters import Trigger
from proxy.errors import SecretError, TokenError
from proxy.tokens.clock import Clock
from proxy.tokens.ledger import Exchange, Ledger
from proxy.tokens.pair import Grant, TokenPair, from_login, from_refresh
from proxy.tokens.systems.base import Reply, Step, System, TokenRequest
from proxy.tokens.systems.refusals import new_seed
from proxy.tokens.systems.replies import http_date
from proxy.tokens.transport import Transport

_REFUSED: Final = ("invalid_credentials", "invalid_grant", "operator")


class Exchanges:
    """State, of the event loop's thread: which seed is spent, and as which device the gateway logged in."""

    def __init__(self, system: System, transport: Transport, ledger: Ledger, clock: Clock) -> None:
        self._system = system
        self._transport = transport
        self._ledger = ledger
        self._clock = clock
        self._spent_seed: str | None = None  # digest of the last seed that got a definite answer
        self._seed: str | None = None  # digest of the last that was to be presented
        self._device: str | None = None  # the client id of the last login
        self._refused_device: str | None = None  # one with which a login was refused: the next introduces the device

    def changed(self, pair: TokenPair | None) -> bool:
        """Whether a person put another seed in place than the one that the pair's session came from."""
        if pair is None or pair.seed is None:
            return False
        try:
            return self._system.seed_digest() not in (None, pair.seed, self._spent_seed)
        except SecretError:
            return False  # the first one may be gone: its successor is what counts

    async def make(
        self, step: Step, basis: TokenPair | None, trigger: Trigger, correlation_id: str, *, probing: bool
    ) -> TokenPair:
        """The pair that one exchange brought. Raises TokenError, told to the ledger. basis: the pair to go on from."""
        exchange = Exchange(step, trigger, self._clock.now(), correlation_id)
        try:
            request = self._request(step, basis)
            reply = await self._transport.exchange(request, exchange.correlation_id, probing=probing)
            grant = self._read(reply, request, exchange)
        except SecretError as exc:
            error = TokenError("operator", str(exc))
            self._ledger.failed(exchange, error, self._clock.now())
            raise error from exc
        except TokenError as error:
            self._ledger.failed(exchange, error, self._clock.now())
            raise
        if step == "refresh" and basis is not None:
            pair = from_refresh(grant, exchange.sent, basis)
        else:
            opened = self._system.seed is None
            pair = from_login(grant, exchange.sent, opened=opened, seed=None if opened else self._spent_seed)
        self._ledger.obtained(exchange, pair, self._clock.now())
        return pair

    def _request(self, step: Step, pair: TokenPair | None) -> TokenRequest:
        if step == "refresh" and pair is not None and pair.refresh is not None:
            return self._system.refresh(pair.refresh)
        self._seed = self._system.seed_digest()
        if self._system.seed is not None and self._seed in (self._spent_seed, pair.seed if pair else None):
            raise TokenError("invalid_grant", f"the session is over: {new_seed(self._system.seed)}")
        self._device = pair.client_id if pair and pair.client_id != self._refused_device else None
        return self._system.login(self._device)

    def _read(self, reply: Reply, request: TokenRequest, exchange: Exchange) -> Grant:
        received = self._clock.now()
        date = http_date(reply.headers.get("date", ""))
        if date is not None:
            self._ledger.skew(date, exchange.sent, received)
        seed = exchange.grant == "login" and self._system.seed is not None
        try:
            grant = self._system.read(reply, request, exchange.grant, received.wall)
        except TokenError as error:
            if seed and error.result == "invalid_grant":
                self._spent_seed = self._seed
            if exchange.grant == "login" and error.result in _REFUSED:
                self._refused_device = self._device
            raise
        if seed:
            self._spent_seed = self._seed
        if date is None and grant.issued_at is not None:
            self._ledger.skew(grant.issued_at, exchange.sent, received)
        return grant
