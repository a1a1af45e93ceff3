"""The one error tree: whose fault it is, which status the client sees, which metric counts it.

Nothing here imports anything of the project. Words in an error are written for the person who has to act on it and
never hold a secret, a token or bytes that a peer sent.
"""

from dataclasses import dataclass
from typing import Literal

ProblemKind = Literal["request", "limit", "client", "allow", "route", "token", "upstream", "timeout"]

RefreshResult = Literal[
    "success",
    "invalid_grant",
    "invalid_credentials",
    "operator",
    "http_error",
    "rate_limited",
    "timeout",
    "network",
    "malformed",
]


class ProxyError(Exception):
    """Base of everything the project raises on purpose. ``str()`` of it is words for a person."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with the configuration: where (dotted path, ``routes.0.upstream``) and what was expected."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class ConfigError(ProxyError):
    """The configuration cannot be used; every fault found is listed (exit code 2)."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class SecretError(ProxyError):
    """A secret's file cannot be read now. The words name the file, never its content."""


class TokenError(ProxyError):
    """One exchange with a token endpoint failed.

    result: the metric's label. words: what happened and what the operator can do. retry_after: seconds the provider
    asked us to wait, if it did. status: of the provider's reply, where there was one. lost: the request may have been
    carried out although no usable answer came, so a refresh token that it presented may be spent. judged: the provider
    may have judged the credentials; False when its own words say that it failed before.
    """

    def __init__(
        self,
        result: RefreshResult,
        words: str,
        *,
        retry_after: float | None = None,
        status: int | None = None,
        lost: bool = False,
        judged: bool = True,
    ) -> None:
        super().__init__(words)
        self.lost = lost
        self.judged = judged
        self.result: RefreshResult = result
        self.words = words
        self.retry_after = retry_after
        self.status = status


class TokenUnavailableError(ProxyError):
    """No usable token, and none could be had in time. retry_after: seconds until it is worth asking again."""

    def __init__(self, words: str, *, retry_after: float) -> None:
        super().__init__(words)
        self.words = words
        self.retry_after = retry_after


class StoreError(ProxyError):
    """The token store cannot be reached or read. Serving goes on without it."""


class LockLostError(StoreError):
    """Another process has, or has had meanwhile, the lock: what was to be saved may be older than what is stored."""
