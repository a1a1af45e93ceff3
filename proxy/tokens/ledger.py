"""What people learn of one identity's exchanges: metrics, log lines, the history in ``/status``. Never a secret."""

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import Final, Literal, Protocol

from proxy.counters import IdentityMetrics, StoreMetrics, StoreOperation, Trigger
from proxy.errors import RefreshResult, StoreError, TokenError
from proxy.tokens.pair import Moment, TokenPair
from proxy.tokens.systems.base import Step

HISTORY: Final = 20


class EventLog(Protocol):
    """What the wing needs of a structlog logger."""

    def info(self, event: str, **fields: object) -> object: ...
    def warning(self, event: str, **fields: object) -> object: ...
    def exception(self, event: str, **fields: object) -> object: ...


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange as it begins. sent: when."""

    grant: Step
    trigger: Trigger
    sent: Moment
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """One exchange that ended. at: Unix seconds. duration: seconds. detail: words, empty after a success."""

    at: float
    trigger: Trigger
    grant: Step
    result: RefreshResult
    duration: float
    detail: str


class Ledger:
    """expect_roles: what the token should carry; a login that brings less is warned about."""

    def __init__(
        self,
        identity: str,
        metrics: IdentityMetrics,
        store_metrics: StoreMetrics,
        log: EventLog,
        expect_roles: frozenset[str] = frozenset(),
    ) -> None:
        self.identity = identity
        self.metrics = metrics
        self.log = log
        self.history: deque[Attempt] = deque(maxlen=HISTORY)
        self._store_metrics = store_metrics
        self._expect_roles = expect_roles

    def obtained(self, exchange: Exchange, pair: TokenPair, now: Moment) -> None:
        self.metrics.last_success = now.wall
        life = {"lifetime_s": round(pair.lifetime, 3)} if pair.lifetime < inf else {}
        fields = self._note(exchange, "success", "", now)
        self.log.info("token obtained", fingerprint=pair.fingerprint, **life, **fields)
        missing = self._expect_roles - pair.roles if pair.roles is not None else frozenset[str]()
        if missing and exchange.grant == "login":
            words = "the token lacks expected roles: the platform will refuse what needs them"
            self.log.warning("roles missing", identity=self.identity, missing=sorted(missing), words=words)

    def adopted(self, pair: TokenPair, source: Literal["store", "replica"]) -> None:
        """A pair that was obtained before the start, or by another replica since."""
        self.metrics.last_success = pair.obtained.wall
        self.log.info("token adopted", identity=self.identity, source=source, fingerprint=pair.fingerprint)

    def failed(self, exchange: Exchange, error: TokenError, now: Moment) -> None:
        fields = self._note(exchange, error.result, error.words, now)
        self.log.warning("token exchange failed", words=error.words, **fields)

    def withheld(self, trigger: Trigger, error: TokenError, now: Moment) -> None:
        """An exchange was due and could not be risked: a try that failed, though nobody was asked. Told once while the
        words stay the same."""
        again = self.history and self.history[-1].detail == error.words
        if again:
            self.history.pop()
        else:
            fields = {"identity": self.identity, "trigger": trigger, "words": error.words}
            self.log.warning("token exchange withheld", **fields)
        self.history.append(Attempt(now.wall, trigger, "refresh", error.result, 0.0, error.words))

    def store_failed(self, operation: StoreOperation, error: StoreError) -> None:
        """Counted each time; told again only after a minute, for renewals try often."""
        self._store_metrics.count_error(operation)
        if self._store_metrics.is_news(operation, self.identity, str(error)):
            self.log.warning("store failed", identity=self.identity, operation=operation, words=str(error))

    def skew(self, theirs: float, sent: Moment, received: Moment) -> None:
        """theirs: what the provider's clock said in between, whole seconds, cut off: on average half a second less."""
        self.metrics.clock_skew = round(theirs + 0.5 - (sent.wall + received.wall) / 2, 3)

    def _note(self, exchange: Exchange, result: RefreshResult, detail: str, now: Moment) -> dict[str, object]:
        duration = now.mono - exchange.sent.mono
        self.metrics.count_refresh(exchange.grant, exchange.trigger, result)
        self.metrics.refresh_duration.observe(duration)
        self.history.append(Attempt(now.wall, exchange.trigger, exchange.grant, result, duration, detail))
        return {
            "identity": self.identity,
            "trigger": exchange.trigger,
            "grant": exchange.grant,
            "result": result,
            "duration_s": round(duration, 3),
            "correlation_id": exchange.correlation_id,
        }
