"""An operator API that trusts no one: it verifies signature, expiry and role of each request's token itself."""

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
import jwt
from aiohttp import web
from jwt.types import Options


@dataclass(frozen=True)
class Seen:
    """One request as it arrived. claims: of its token, {} where it did not verify. refused: why, None if admitted."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    claims: dict[str, Any]
    refused: str | None


@dataclass
class Rejection:
    """How a bad token is refused: the platform's page says 403; some sites answer 200 with the code in the body."""

    status: int = 403
    body: dict[str, str] = field(
        default_factory=lambda: {"resultCode": "99999:403", "localeMessage": "none", "result": "forbidden"}
    )


class VerifyingUpstream:
    """Serves on ``url``, and checks against ``certs_url``, the realm's published keys.

    To be edited by a test: rejection, role, dead_sessions (``sid`` claims), not_before (Unix seconds).
    """

    def __init__(self, certs_url: str) -> None:
        self.certs_url = certs_url
        self.url = ""
        self.seen: list[Seen] = []
        self.rejection = Rejection()
        self.role = "operatorRole"
        self.dead_sessions: set[str] = set()
        self.not_before = 0
        self._keys: dict[str, jwt.PyJWK] = {}
        self._runner = web.AppRunner(self._application())

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=1 << 24)
        application.router.add_route("*", "/{path:.*}", self._serve)
        return application

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    @property
    def refused(self) -> list[Seen]:
        return [seen for seen in self.seen if seen.refused]

    @property
    def admitted(self) -> list[Seen]:
        return [seen for seen in self.seen if not seen.refused]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        now = time.time()
        claims, refused = await self._judge(request.headers.getall("Authorization", []))
        body = await request.read()
        headers = dict(request.headers)
        self.seen.append(Seen(now, request.method, request.path_qs, headers, body, claims, refused))
        if refused:
            return web.json_response(self.rejection.body, status=self.rejection.status)
        return web.json_response({"resultCode": "0", "path": request.path_qs, "received": len(body)})

    async def _judge(self, fields: list[str]) -> tuple[dict[str, Any], str | None]:
        if len(fields) != 1 or not fields[0].startswith("Bearer "):
            return {}, f"{len(fields)} Authorization fields"
        try:
            claims = await self._verify(fields[0].removeprefix("Bearer "))
        except jwt.InvalidTokenError as exc:
            return {}, f"{type(exc).__name__}: {exc}"
        if self.role not in claims.get("realm_access", {}).get("roles", []):
            return claims, f"no role {self.role}"
        if claims.get("sid") in self.dead_sessions:
            return claims, "session ended"
        if claims["iat"] < self.not_before:
            return claims, "issued before not-before"
        return claims, None

    async def _verify(self, token: str) -> dict[str, Any]:
        kid = str(jwt.get_unverified_header(token).get("kid"))
        if kid not in self._keys:
            timeout = aiohttp.ClientTimeout(total=20.0)
            async with aiohttp.ClientSession(timeout=timeout) as http, http.get(self.certs_url) as response:
                published = jwt.PyJWKSet.from_dict(await response.json())
            self._keys = {key.key_id or "": key for key in published.keys if key.public_key_use == "sig"}
        if kid not in self._keys:
            raise jwt.InvalidTokenError("signed with a key that the realm does not publish")
        options: Options = {"require": ["exp", "iat"], "verify_aud": False}
        claims: dict[str, Any] = jwt.decode(token, self._keys[kid], algorithms=["RS256"], options=options)
        return claims
