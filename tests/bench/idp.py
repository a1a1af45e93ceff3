"""A token endpoint for measurements: opaque tokens, a set lifetime, a set delay, and its own record of every exchange.

Run as ``python -m tests.bench.idp PORT TOKEN_FILE LIFETIME DELAY RECORD``: TOKEN_FILE holds the one access token that
is ever given out, LIFETIME and DELAY are seconds, RECORD gets a line ``start end`` for each exchange, in seconds of
CLOCK_MONOTONIC, which all processes of a machine share. It is not the sandbox: the sandbox signs tokens, which would
take CPU from the load generator's core, and its record is not on the load generator's clock.
"""

import asyncio
import json
import sys
import time
from pathlib import Path


class Endpoint:
    """Answers any POST with the same token and a new refresh token."""

    def __init__(self, token: str, lifetime: float, delay: float, record: Path) -> None:
        self._token = token
        self._lifetime = lifetime
        self._delay = delay
        self._record = record
        self._given = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        began = time.monotonic()
        marker = head.find(b"content-length:")
        if marker >= 0:
            await reader.readexactly(int(head[marker + 15 :].split(b"\r\n", 1)[0]))
        await asyncio.sleep(self._delay)
        self._given += 1
        body = json.dumps(
            {
                "access_token": self._token,
                "token_type": "Bearer",
                "expires_in": self._lifetime,
                "refresh_token": f"refresh-{self._given}",
                "refresh_expires_in": 36000,
            }
        ).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        await writer.drain()
        with self._record.open("a") as record:
            record.write(f"{began:.6f} {time.monotonic():.6f}\n")
        return b"connection: close" not in head


async def main(port: int, token_file: Path, lifetime: float, delay: float, record: Path) -> None:
    endpoint = Endpoint(token_file.read_text(), lifetime, delay, record)
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5])))
