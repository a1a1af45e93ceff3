"""What an adapter of one system is: it builds request bytes and reads reply bytes, and does nothing else. Pure."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from proxy.tokens.pair import Grant

Step = Literal["login", "refresh"]


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One HTTP request to a provider. secrets: what of it must never come back in words, if the reply quotes it."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False, default=())


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply. headers: lower-case names, the last of repeated ones. body: at most BODY_LIMIT, uncompressed."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


BODY_LIMIT = 1024 * 1024


class System(Protocol):
    """One identity's way to its provider. Secrets are read when a request is built: they may have changed."""

    @property
    def seed(self) -> str | None:
        """None: a new session can be opened at any time. Else the name of the place where a person puts the refresh
        token that opens one."""

    def seed_digest(self) -> str | None:
        """Of that refresh token as it is now; None without a seed. Raises SecretError."""

    def login(self, client_id: str | None = None) -> TokenRequest:
        """What opens a session. client_id: what the system called this device at an earlier login, where it does.
        Raises SecretError."""

    def refresh(self, refresh_token: str) -> TokenRequest:
        """What trades a refresh token for the next pair. Raises SecretError."""

    def logout(self, access_token: str, refresh_token: str) -> TokenRequest | None:
        """What ends the session; None where the system has no such call. Raises SecretError."""

    def read(self, reply: Reply, request: TokenRequest, step: Step, wall: float) -> Grant:
        """The grant of a good reply; TokenError, classified, for every other. wall: Unix time when it came."""


class Local(ABC):
    """One identity's tokens where no provider is asked: they are made, or found, on this machine."""

    @property
    @abstractmethod
    def place(self) -> str:
        """The file that they come from, for people."""

    @abstractmethod
    def mint(self, wall: float) -> Grant:
        """The token as it is now. wall: Unix time. Reads its file anew each time. Raises SecretError when there is
        nothing usable in it, in words that name the file and never its content."""
