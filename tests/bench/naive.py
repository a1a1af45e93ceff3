"""The reverse proxy that most people would write with aiohttp: ``web.Application`` in front, ``ClientSession`` behind.

Run as ``python -m tests.bench.naive PORT UPSTREAM_PORT TOKEN_FILE [access]``. Bodies are buffered; it has no metrics.
"""

import logging
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import ClientSession, web
from multidict import CIMultiDict, CIMultiDictProxy

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length"})


class Proxy:
    """upstream: origin with scheme; authorization: the header's value, added to every request."""

    def __init__(self, upstream: str, authorization: str) -> None:
        self._upstream = upstream
        self._authorization = authorization
        self._session: ClientSession | None = None

    async def session(self, _app: web.Application) -> AsyncIterator[None]:
        async with ClientSession(auto_decompress=False) as self._session:
            yield

    async def handle(self, request: web.Request) -> web.Response:
        if self._session is None:
            raise web.HTTPServiceUnavailable
        headers = _end_to_end(request.headers)
        headers["Authorization"] = self._authorization
        async with self._session.request(
            request.method, self._upstream + request.raw_path, headers=headers, data=await request.read()
        ) as answer:
            return web.Response(status=answer.status, headers=_end_to_end(answer.headers), body=await answer.read())


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP)


def main(port: int, upstream_port: int, token_file: Path, access: bool) -> None:
    proxy = Proxy(f"http://127.0.0.1:{upstream_port}", f"Bearer {token_file.read_text()}")
    app = web.Application(client_max_size=1 << 30)
    app.cleanup_ctx.append(proxy.session)
    app.router.add_route("*", "/{tail:.*}", proxy.handle)
    if access:
        logging.basicConfig(level=logging.INFO)
        web.run_app(app, host="127.0.0.1", port=port, print=None)
    else:
        web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), "access" in sys.argv[4:])
