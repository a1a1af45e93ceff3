"""The door between the two wings: ``tokens`` offers it, ``gateway`` uses nothing else of ``tokens``."""

from collections.abc import Awaitable
from typing import Protocol


class Credential:
    """What signs one request: the header field to inject and which token it carries.

    name: header name as configured, bytes (``b"Authorization"``). line: the whole field line, CRLF included
    (``b"Authorization: Bearer ...\\r\\n"``), built once per token so that signing costs nothing per request.
    serial: grows with every new token of the identity. Redacted in ``repr``.
    """

    __slots__ = ("fingerprint", "line", "name", "serial")

    def __init__(self, name: bytes, line: bytes, serial: int, fingerprint: str) -> None:
        self.name = name
        self.line = line
        self.serial = serial
        self.fingerprint = fingerprint

    def __repr__(self) -> str:
        return f"<Credential {self.name.decode('ascii')} {self.fingerprint}>"


class TokenSource(Protocol):
    """One identity's token, as the gateway sees it. All methods belong to the event loop's thread."""

    @property
    def header(self) -> bytes:
        """Lower-case name of the injected header, known before any token is."""

    def current(self) -> Credential | None:
        """A credential usable right now, without waiting; None when a request has to wait for one (``obtain``)."""

    async def obtain(self, correlation_id: str = "") -> Credential:
        """Wait for the one refresh in flight (or start it), at most the identity's ``timeout``.

        Raises TokenUnavailableError, at once when waiting is pointless (login suspended, provider known to be down).
        Cancelling the caller never cancels the refresh. correlation_id: of the request that asks, for the exchange
        that it causes.
        """

    def rejected(
        self, credential: Credential, correlation_id: str = ""
    ) -> Credential | Awaitable[Credential | None] | None:
        """The platform refused ``credential``.

        Answers with a newer credential when there already is one (a late rejection is stale news and costs nothing);
        with an awaitable of the refresh that this rejection started or joined (its result is None when it brought no
        new token); or with None when no refresh is made for it now (spacing, suspended): pass the rejection on.
        """

    def served(self, credential: Credential) -> None:
        """The platform accepted ``credential`` in a replay: the refresh cured the rejection (ends the spacing)."""
