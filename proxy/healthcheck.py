"""``opentv-proxy healthcheck``: for ``HEALTHCHECK`` in an image that has no curl."""

import http.client
import sys
from typing import Final

from proxy.config import Address

_SECONDS: Final = 3.0
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared with, not bound to


def healthcheck(host: str, port: int) -> int:
    """0 when the running gateway's ``/readyz`` says so, else 1 and why."""
    if port == 0:
        print("opentv-proxy: admin has port 0, so nobody knows which one it got; name it with --admin", file=sys.stderr)
        return 1
    connection = http.client.HTTPConnection(_WILDCARDS.get(host, host), port, timeout=_SECONDS)
    try:
        connection.request("GET", "/readyz?verbose")
        response = connection.getresponse()
        words = response.read(64 * 1024).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or error
        print(f"opentv-proxy: the admin port {Address(host, port)} does not answer: {why}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    if response.status != http.client.OK:
        print(f"opentv-proxy: not ready\n{words}", file=sys.stderr)
        return 1
    return 0
