"""The admin port's socket: bounded, silent about malformed requests, closed in order."""

import asyncio
from typing import Any, Final

from aiohttp import web

from proxy.admin.answers import problem
from proxy.admin.pages import Pages
from proxy.admin.seams import Readiness, Refresher, StatusSource
from proxy.metrics import Metrics

_CONNECTIONS: Final = 100  # probes, scrapers and a few people
_IDLE: Final = 30.0  # seconds; also the longest that a dripped head may take
_LINGER: Final = 1.0  # seconds in which a body that nobody reads may still arrive
_HEAD_LINE: Final = 8190  # bytes
_HEAD_FIELDS: Final = 64


class AdminServer:
    """``/livez``, ``/readyz``, ``/metrics``, ``/status`` and ``POST /identities/NAME/refresh`` on one address.

    port 0: any free one; ``address`` tells which. OSError from ``start`` where the address cannot be had.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        readiness: Readiness,
        status: StatusSource,
        metrics: Metrics,
        refresher: Refresher,
    ) -> None:
        self._host = host
        self._port = port
        self._pages = Pages(readiness=readiness, status=status, metrics=metrics, refresher=refresher)
        self._runner: web.ServerRunner | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on, once started."""
        if self._runner is None or not self._runner.addresses:
            return self._host, self._port
        host, port = self._runner.addresses[0][:2]
        return host, port

    async def start(self) -> None:
        runner = web.ServerRunner(_Listener(self._pages), shutdown_timeout=_LINGER)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner

    async def close(self) -> None:
        """Stop listening, let answers under way finish for a moment, close the rest."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()


class _Listener(web.Server):
    """Makes the connections, so many and no more."""

    def __init__(self, pages: Pages) -> None:
        super().__init__(pages.serve)

    def __call__(self) -> Any:  # noqa: ANN401 (aiohttp promises a RequestHandler; asyncio takes any protocol)
        if len(self.connections) >= _CONNECTIONS:
            return _Refused()
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # its runners pass None too
            keepalive_timeout=_IDLE,
            lingering_time=_LINGER,
            max_line_size=_HEAD_LINE,
            max_field_size=_HEAD_LINE,
            max_headers=_HEAD_FIELDS,
            auto_decompress=False,
        )


class _Refused(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Connection(web.RequestHandler):
    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 (the signature is aiohttp's)
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002 (it quotes the offending bytes, credentials among them)
        message: str | None = None,  # noqa: ARG002 (so does this)
    ) -> web.StreamResponse:
        """A malformed request. aiohttp's own answer and its ERROR line would quote it."""
        known = status if status in (400, 500) else 400
        response = problem(known, "The request is malformed." if known == 400 else "The gateway's log says why.")
        response.force_close()
        return response
