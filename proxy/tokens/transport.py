"""One exchange with a token endpoint over aiohttp: bounded in time and size, and its errors translated once, here.

No cookies, no redirects, no netrc, no proxy but the configured one, no kept-alive connection: exchanges are minutes
apart, and a connection that the provider closed meanwhile would turn a good refresh token into a doubtful one (B7).
"""

import ssl
import zlib
from base64 import b64encode
from collections.abc import Callable
from typing import Final, Protocol

from aiohttp import (
    ClientConnectionResetError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientError,
    ClientHttpProxyError,
    ClientOSError,
    ClientProxyConnectionError,
    ClientResponse,
    ClientResponseError,
    ClientSession,
    ClientSSLError,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    InvalidURL,
    TCPConnector,
)
from yarl import URL

from proxy import __version__
from proxy.config import ForwardProxy
from proxy.errors import SecretError, TokenError
from proxy.tokens.systems.base import BODY_LIMIT, Reply, TokenRequest

_CONNECT_SHARE: Final = 0.8
"""Of the whole time: a connection that never came must not look like an answer that was lost."""
_PROBE_CONNECT: Final = 2.0
"""Seconds to connect while the provider is known to be down: two SYNs, and back within 5 s of its return (B8)."""


class Transport(Protocol):
    async def exchange(
        self, request: TokenRequest, correlation_id: str, *, probing: bool = False, within: float | None = None
    ) -> Reply:
        """The reply. Raises TokenError ``network``, ``timeout`` or ``malformed``. probing: give up connecting early.
        within: seconds, instead of the identity's timeout."""

    def reread_tls(self) -> None:
        """Certificate files may have changed. Raises ConfigError, and keeps what it had, when they are unusable."""

    async def close(self) -> None: ...


class NoTransport:
    """For tokens that nobody is asked for."""

    async def exchange(
        self, request: TokenRequest, correlation_id: str, *, probing: bool = False, within: float | None = None
    ) -> Reply:
        raise NotImplementedError

    def reread_tls(self) -> None:
        """There is none."""

    async def close(self) -> None:
        """Nothing is open."""


class HttpTransport:
    """tls: None for the system's trust. server_name: expected in the certificate instead of the URL's host. explain:
    words for an ``ssl`` or ``OS`` error. read_tls: makes ``tls`` anew from its files; None when it has none. proxy: an
    HTTP proxy on the way."""

    def __init__(
        self,
        timeout: float,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        explain: Callable[[BaseException], str] = str,
        read_tls: Callable[[], ssl.SSLContext] | None = None,
        proxy: ForwardProxy | None = None,
    ) -> None:
        self._proxy = proxy or ForwardProxy()
        self._read_tls = read_tls
        self._timeout = timeout
        self._tls: ssl.SSLContext | bool = True if tls is None else tls
        self._server_name = server_name
        self._explain = explain
        self._session: ClientSession | None = None

    async def exchange(
        self, request: TokenRequest, correlation_id: str, *, probing: bool = False, within: float | None = None
    ) -> Reply:
        total = self._timeout if within is None else within
        connect = min(total * _CONNECT_SHARE, _PROBE_CONNECT if probing else total)
        try:
            async with self._open().request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body,
                headers=[*request.headers, ("x-correlation-id", correlation_id), ("Accept-Encoding", "identity")],
                allow_redirects=False,
                ssl=self._tls,
                server_hostname=self._server_name,
                timeout=ClientTimeout(total=total, connect=connect),
                proxy=self._proxy.url,
                proxy_headers=self._proxy_headers(),
            ) as response:
                return await _read(response)
        except (ClientError, OSError, ValueError) as exc:
            raise self._translated(exc, total, connect) from exc

    def _proxy_headers(self) -> dict[str, str]:
        try:
            credentials = self._proxy.credentials()
        except SecretError as exc:
            raise TokenError("operator", str(exc)) from exc
        # aiohttp makes Proxy-Authorization of it, in CONNECT or in the request itself.
        return {} if credentials is None else {"Authorization": _basic(*credentials)}

    def reread_tls(self) -> None:
        if self._read_tls is not None:
            self._tls = self._read_tls()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> ClientSession:
        # Made at first use: a session belongs to a running loop.
        if self._session is None:
            self._session = ClientSession(
                connector=TCPConnector(force_close=True, limit=4),
                cookie_jar=DummyCookieJar(),
                headers={"User-Agent": f"opentv-auth-proxy/{__version__}"},
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    def _translated(self, exc: Exception, total: float, connect: float) -> TokenError:
        """lost only where the request may have reached the provider."""
        match exc:
            case ConnectionTimeoutError():
                return TokenError("timeout", f"no connection to the token endpoint within {connect:g} s")
            case TimeoutError():
                return TokenError("timeout", f"no answer from the token endpoint within {total:g} s", lost=True)
            case ClientConnectorSSLError() | ClientSSLError():
                return TokenError("network", f"no TLS connection to the token endpoint: {self._explain(exc)}")
            case ClientProxyConnectionError():
                return TokenError("network", f"no connection to the HTTP proxy: {self._explain(exc)}")
            case ClientHttpProxyError(status=407):
                words = "the HTTP proxy wants other credentials (407): see proxy.username and proxy.password_file"
                return TokenError("network", words)
            case ClientHttpProxyError():
                return TokenError(
                    "network", f"the HTTP proxy opens no way to the token endpoint: it answers {exc.status}"
                )
            case ClientConnectorError():
                return TokenError("network", f"no connection to the token endpoint: {self._explain(exc)}")
            case ClientOSError(__cause__=ssl.SSLError()):
                # TLS 1.3: what a server has against our certificate it says when the request is on its way, unread.
                return TokenError("network", f"no TLS connection to the token endpoint: {self._explain(exc)}")
            case ClientOSError(__cause__=ClientConnectionResetError()):
                # Its alert came first: what it says is lost inside aiohttp, and nothing has been presented to anybody.
                words = "the token endpoint ended the connection before it was asked; by TLS, it may demand a client "
                return TokenError("network", words + "certificate (tls.cert_file, tls.key_file)")
            case InvalidURL():
                return TokenError("operator", "token_url is not a URL that can be asked")
            case ClientResponseError() | ValueError():
                # Not quoting it: aiohttp puts the offending bytes into its words.
                return TokenError("malformed", "the token endpoint does not speak proper HTTP", lost=True)
            case _:
                words = "the connection to the token endpoint broke before its answer was complete"
                return TokenError("network", words, lost=True)


def _basic(username: str, password: str) -> str:
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode("ascii")


async def _read(response: ClientResponse) -> Reply:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise _too_large()
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status, headers, _plain(bytes(body), headers.get("content-encoding", "identity").lower()))


def _plain(body: bytes, coding: str) -> bytes:
    """The body without the coding that some servers apply although we asked for none; bounded, so no bomb gets far."""
    if coding == "identity" or not body:
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise TokenError("malformed", "the token endpoint's reply has a Content-Encoding nobody asked for", lost=True)
    try:
        # 32: zlib recognises both formats by their headers.
        plain = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(body, BODY_LIMIT + 1)
    except zlib.error as exc:
        raise TokenError("malformed", "the token endpoint's reply is compressed in a broken way", lost=True) from exc
    if len(plain) > BODY_LIMIT:
        raise _too_large()
    return plain


def _too_large() -> TokenError:
    return TokenError("malformed", "the token endpoint's reply is longer than 1 MiB", lost=True)
