"""The sandbox as a whole: one listener that serves Keycloak, AGS, Veeam, the operator API and the control API.

``Sandbox`` is for tests and embedders, ``run_sandbox`` for the command line.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

from aiohttp import web

from proxy.sandbox.ags import Ags
from proxy.sandbox.api import Api
from proxy.sandbox.control import PREFIX, Control, SeedMaker
from proxy.sandbox.endpoints import PATH, KeycloakEndpoints
from proxy.sandbox.keycloak import Keycloak
from proxy.sandbox.mint import Mint
from proxy.sandbox.misbehave import UNDATED
from proxy.sandbox.others import AGS_PATH, VEEAM_PATH, AgsEndpoints, VeeamEndpoint
from proxy.sandbox.settings import SandboxSettings
from proxy.sandbox.signing import Signer, process_key
from proxy.sandbox.ssp import credentials_file
from proxy.sandbox.state import SandboxState
from proxy.sandbox.veeam import Veeam
from proxy.sandbox.verify import Verifier

TOKEN_BASE = "/keycloak/auth"  # noqa: S105 - a path, not a password

_HEAD_LIMIT = 256 * 1024


class Sandbox:
    """A fake platform on one port. State, keys and sessions survive ``stop`` and a second ``start``.

    clock: Unix seconds. sleep: passes seconds (delays, ticks, slow answers).
    """

    def __init__(
        self,
        settings: SandboxSettings | None = None,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.state = SandboxState(settings or SandboxSettings(), clock)
        self.scheme, self.host, self.port = "http", "127.0.0.1", 0
        self._sleep = sleep
        self._runner: web.AppRunner | None = None
        self._signer: Signer | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def issuer(self) -> str:
        return f"{self.url}{TOKEN_BASE}/realms/{next(iter(self.state.realms))}"

    @property
    def token_url(self) -> str:
        """The first realm's token endpoint (``nagra`` unless configured otherwise)."""
        return f"{self.issuer}/protocol/openid-connect/token"

    @property
    def ags_url(self) -> str:
        return f"{self.url}/ags"

    @property
    def veeam_token_url(self) -> str:
        return self.url + VEEAM_PATH

    @property
    def ssp_credentials(self) -> dict[str, Any]:
        """The content of an SSP credentials file; the signing key is in it."""
        return credentials_file(self.state.settings.ssp)

    @property
    def api_url(self) -> str:
        """The operator API for Keycloak's tokens; ``ags_api_url`` and so on are the same for those of the others."""
        return self.url

    @property
    def ags_api_url(self) -> str:
        return self.url + self.state.settings.ags.api_prefix

    @property
    def veeam_api_url(self) -> str:
        return self.url + self.state.settings.veeam.api_prefix

    @property
    def ssp_api_url(self) -> str:
        return self.url + self.state.settings.ssp.api_prefix

    @property
    def control_url(self) -> str:
        return self.url + PREFIX

    @property
    def username(self) -> str:
        return self.state.settings.username

    @property
    def password(self) -> str:
        """The default user's password as it is now."""
        return self.state.users[self.username].password

    @property
    def client_id(self) -> str:
        return self.state.settings.client_id

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, ssl_context: ssl.SSLContext | None = None) -> None:
        """Listen, with a context over TLS; one that verifies client certificates makes it mutual.

        Raises OSError when the address cannot be had.
        """
        if self._signer is None:
            self._signer = Signer(await asyncio.to_thread(process_key))
        site = _Site(self.state, self._signer, self._sleep, self._seed)
        app = web.Application()
        app.on_response_prepare.append(site.stamp)
        app.router.add_route("*", "/{path:.*}", site.handle, expect_handler=site.expect)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=0.1,
            # Bodies are weighed as they come; aiohttp would inflate a Content-Encoding first.
            auto_decompress=False,
            max_line_size=_HEAD_LIMIT,
            max_field_size=_HEAD_LIMIT,
            max_headers=1000,
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, backlog=1024, ssl_context=ssl_context).start()
        self.scheme = "http" if ssl_context is None else "https"
        self.host, self.port = host, int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the listener and every connection; requests in flight are broken off."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> "Sandbox":
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.stop()

    def refresh_token(self, *, client_id: str | None = None, realm: str | None = None, offline: bool = False) -> str:
        """The refresh token of a new session, as an operator's seed file holds one. Only once started."""
        return self._seed(client_id, realm, offline)

    def _seed(self, client_id: str | None, realm: str | None, offline: bool) -> str:
        if self._signer is None:
            raise RuntimeError("the sandbox has not been started")
        realm = realm or next(iter(self.state.realms))
        scope = "offline_access profile email" if offline else "profile email"
        session = self.state.open_session(realm, client_id or self.client_id, self.username, scope)
        pair = Mint(self.state, self._signer).pair(session, f"{self.url}{TOKEN_BASE}/realms/{realm}")
        return str(pair["refresh_token"])


class _Site:
    """Sends each request to the protocol it belongs to, and dates the answers by the sandbox's own clock."""

    def __init__(
        self, state: SandboxState, signer: Signer, sleep: Callable[[float], Awaitable[None]], make_seed: SeedMaker
    ) -> None:
        self._state = state
        self._control = Control(state, make_seed)
        self._api = Api(state, Verifier(state, signer), sleep)
        self._keycloak = KeycloakEndpoints(state, Keycloak(state, signer, sleep), sleep)
        self._ags = AgsEndpoints(state, Ags(state, signer), sleep)
        self._veeam = VeeamEndpoint(state, Veeam(state, signer), sleep)
        self._date = (0, "")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.rel_url.raw_path
        if (match := PATH.fullmatch(path)) is not None:
            return await self._keycloak.handle(request, match)
        if (match := AGS_PATH.fullmatch(path)) is not None:
            return await self._ags.handle(request, match)
        if path == VEEAM_PATH:
            return await self._veeam.handle(request)
        if _is_control(path):
            return await self._control.handle(request)
        return await self._api.handle(request)

    async def expect(self, request: web.Request) -> None:
        """``100 Continue``, unless the answer is going to be a refusal that needs no body (RFC 9110 10.1.1)."""
        if request.headers.get("Expect", "").lower() != "100-continue":
            raise web.HTTPExpectationFailed
        path = request.rel_url.raw_path
        if not _is_api(path) or self._api.wants_body(request):
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0

    async def stamp(self, request: web.Request, response: web.StreamResponse) -> None:
        second = int(self._state.now())
        if second != self._date[0]:
            self._date = (second, formatdate(second, usegmt=True))
        if request.get(UNDATED):
            del response.headers["Date"]
        else:
            response.headers["Date"] = self._date[1]


def _is_control(path: str) -> bool:
    return path == PREFIX or path.startswith(PREFIX + "/")


def _is_api(path: str) -> bool:
    return not (PATH.fullmatch(path) or AGS_PATH.fullmatch(path) or path == VEEAM_PATH or _is_control(path))


async def run_sandbox(
    host: str,
    port: int,
    settings: SandboxSettings,
    on_ready: Callable[[Sandbox], None],
    stop: asyncio.Event,
) -> None:
    """Serve until ``stop`` is set; ``on_ready`` is called once, when connections are accepted. Raises OSError."""
    sandbox = Sandbox(settings)
    await sandbox.start(host, port)
    try:
        on_ready(sandbox)
        await stop.wait()
    finally:
        await sandbox.stop()
