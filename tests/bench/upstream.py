"""What stands behind the proxies, on the load core: an nginx with fixed answers, a sink for uploads, a token endpoint.

nginx answers 401 where the injected credential is missing, so a peer that forgets to sign cannot look fast.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.proc import LOAD_CORE, Proc, free_port, spawn, wait_for
from tests.bench.tools import find

REPOSITORY = Path(__file__).resolve().parents[2]
TOKEN_LENGTH = 1000  # characters, about what Keycloak's RS256 access tokens have
BIG = 64 << 20  # bytes of the streamed body
ANSWERS = {"0.1": 102, "1": 1024, "10": 10_240, "100": 102_400}  # KiB, as they are called, and bytes
_ANSWER_BYTES = 700

_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn; worker_rlimit_nofile 20000;
events {{ worker_connections 8192; }}
http {{
  access_log off; server_tokens off; sendfile on; tcp_nopush on; etag off;
  keepalive_requests 1000000000; keepalive_timeout 600s; client_max_body_size 0; client_body_buffer_size 64k;
  large_client_header_buffers 8 32k; client_header_buffer_size 4k;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  types {{ }} default_type application/json;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    if ($http_authorization != "Bearer {token}") {{ return 401 '{{"resultCode": "99999:401"}}'; }}
    location / {{ return 200 '{answer}'; }}
    location /headers {{ {headers} return 200 '{answer}'; }}
    location /sizes/ {{ root {big}; open_file_cache max=16; }}
    location = /big {{ root {big}; default_type application/octet-stream; }}
  }}
}}
"""


@dataclass(frozen=True)
class Rig:
    """What every peer is pointed at. Ports are on 127.0.0.1; refresh_record: the token endpoint's own (see idp.py)."""

    folder: Path
    token: str
    token_file: Path
    upstream: int
    sink: int
    token_port: int
    refresh_record: Path


def _answer() -> str:
    """A JSON body of exactly 700 bytes, shaped like a list of a platform's records."""
    record = {"id": 1, "name": "Account", "status": "ACTIVE", "locale": "en_GB", "profile": "x" * 32}
    body = json.dumps({"accounts": [record] * 5, "pad": ""})
    return body[:-2] + "y" * (_ANSWER_BYTES - len(body)) + '"}'


def _extra_headers() -> str:
    """nginx itself sends Server, Date, Content-Type, Content-Length and Connection: with these eight it is 13."""
    values = {
        "Cache-Control": "no-store, no-cache, must-revalidate",
        "Pragma": "no-cache",
        "Expires": "0",
        "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Vary": "Accept-Encoding, Origin",
        "Set-Cookie": "ROUTE=node-3; Path=/; HttpOnly",
    }
    return " ".join(f"add_header {name} '{value}';" for name, value in values.items())


@contextmanager
def rig(*, lifetime: float = 3600.0, delay: float = 0.0) -> Iterator[Rig]:
    """Starts the upstreams and the token endpoint; lifetime and delay (seconds) are the token's and the endpoint's."""
    shm = Path("/dev/shm")  # noqa: S108 - the streamed file must not come from a disk; the folder's name is random
    with TemporaryDirectory(prefix="opentv-bench-", dir=shm if os.access(shm, os.W_OK) else None) as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's worker drops root and must read the streamed file
        token = ("bench." + "0123456789abcdef" * 64)[:TOKEN_LENGTH]
        token_file = folder / "token"
        token_file.write_text(token)
        with (folder / "big").open("wb") as big:
            big.write(os.urandom(1 << 20) * (BIG >> 20))
        (folder / "sizes").mkdir(mode=0o755)
        for size in ANSWERS.values():
            (folder / "sizes" / str(size)).write_text(json.dumps("z" * (size - 2)))
        made = Rig(folder, token, token_file, free_port(), free_port(), free_port(), folder / "refreshes")
        made.refresh_record.touch()
        procs: list[Proc] = []
        try:
            procs.extend(_start(made, lifetime, delay))
            yield made
        finally:
            for proc in procs:
                proc.stop()


def _start(made: Rig, lifetime: float, delay: float) -> Iterator[Proc]:
    config = made.folder / "upstream.conf"
    config.write_text(
        _NGINX.format(
            folder=made.folder,
            token=made.token,
            port=made.upstream,
            answer=_answer(),
            headers=_extra_headers(),
            big=made.folder,
        )
    )
    output = made.folder / "upstream.out"
    nginx = spawn([find("nginx"), "-c", str(config), "-p", str(made.folder)], core=LOAD_CORE, output=output)
    yield nginx
    wait_for(nginx, made.upstream, "/", frozenset({401}))
    python = [sys.executable, "-m"]
    yield spawn([*python, "tests.bench.sink", str(made.sink)], core=LOAD_CORE, output=output, cwd=REPOSITORY)
    words = [str(made.token_port), str(made.token_file), str(lifetime), str(delay), str(made.refresh_record)]
    endpoint = spawn([*python, "tests.bench.idp", *words], core=LOAD_CORE, output=output, cwd=REPOSITORY)
    yield endpoint
    wait_for(endpoint, made.token_port, "/", frozenset({200}))
    made.refresh_record.write_text("")
