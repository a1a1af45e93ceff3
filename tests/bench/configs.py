"""Each proxy's configuration for the same job: pass everything on and add one Authorization header.

Every one gets one thread or worker, keep-alive without limit on both sides, statistics where it has any, and its access
log off or, for one scenario, on and written to a file. A function writes the files and returns the command line.
"""

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import tools
from tests.bench.upstream import Rig


@dataclass(frozen=True)
class Setup:
    """What one instance of a peer is told. folder: its own; listen, admin, upstream: ports on 127.0.0.1.

    Of a gateway only: refresh, its identities' section of that name; routes, how many there are, with an identity each
    (``/`` when one, else ``/r0``, ``/r1`` ...); shared, a folder with ``key`` in it, for processes that share a port.
    """

    folder: Path
    listen: int
    admin: int
    upstream: int
    rig: Rig
    access_log: Path | None = None
    refresh: dict[str, object] = field(default_factory=dict)
    routes: int = 1
    shared: Path | None = None

    def write(self, name: str, content: str) -> str:
        path = self.folder / name
        path.write_text(content)
        return str(path)


def nginx(setup: Setup) -> list[str]:
    log = f"access_log {setup.access_log} combined;" if setup.access_log else "access_log off;"
    temp = " ".join(f"{kind}_temp_path {setup.folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    config = f"""
daemon off; worker_processes 1; pid {setup.folder}/pid;
error_log {setup.folder}/error.log warn; worker_rlimit_nofile 20000;
events {{ worker_connections 16384; }}
http {{
  {log} keepalive_requests 1000000000; keepalive_timeout 600s; client_max_body_size 0; {temp}
  client_body_temp_path {setup.folder}/body;
  upstream platform {{ server 127.0.0.1:{setup.upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{setup.listen} backlog=4096;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Authorization "Bearer {setup.rig.token}";
    proxy_request_buffering off; proxy_max_temp_file_size 0;
    location / {{ proxy_pass http://platform; }}
  }}
  server {{ listen 127.0.0.1:{setup.admin}; location / {{ stub_status; }} }}
}}
"""
    return [tools.find("nginx"), "-c", setup.write("nginx.conf", config), "-p", str(setup.folder)]


def haproxy(setup: Setup) -> list[str]:
    log = "log global\n  option httplog" if setup.access_log else "no log"
    config = f"""
global
  nbthread 1
  maxconn 8000
  tune.maxrewrite 4096
  log stdout format raw local0
defaults
  mode http
  timeout client 600s
  timeout server 600s
  timeout connect 5s
  timeout http-keep-alive 600s
frontend crm
  bind 127.0.0.1:{setup.listen} backlog 4096
  {log}
  http-request set-header Authorization "Bearer {setup.rig.token}"
  default_backend platform
backend platform
  http-reuse always
  server platform 127.0.0.1:{setup.upstream}
frontend statistics
  bind 127.0.0.1:{setup.admin}
  http-request use-service prometheus-exporter
"""
    argv = [tools.find("haproxy"), "-db", "-f", setup.write("haproxy.cfg", config)]
    # HAProxy logs to a file only through a descriptor
    return into(argv, setup.access_log) if setup.access_log else argv


def caddy(setup: Setup) -> list[str]:
    log = (
        f"log {{\n    output file {setup.access_log} {{\n      roll_disabled\n    }}\n  }}" if setup.access_log else ""
    )
    config = f"""
{{
  admin 127.0.0.1:{setup.admin}
  auto_https off
  servers {{
    metrics
  }}
}}
http://:{setup.listen} {{
  bind 127.0.0.1
  {log}
  reverse_proxy 127.0.0.1:{setup.upstream} {{
    header_up Authorization "Bearer {setup.rig.token}"
    transport http {{
      keepalive 600s
      keepalive_idle_conns 1024
      keepalive_idle_conns_per_host 1024
    }}
  }}
}}
"""
    return [tools.find("caddy"), "run", "--adapter", "caddyfile", "--config", setup.write("Caddyfile", config)]


def naive(python: str) -> Callable[[Setup], list[str]]:
    def configure(setup: Setup) -> list[str]:
        argv = [python, "-m", "tests.bench.naive", str(setup.listen), str(setup.upstream), str(setup.rig.token_file)]
        return into([*argv, "access"], setup.access_log) if setup.access_log else argv

    return configure


def gateway(python: str) -> Callable[[Setup], list[str]]:
    def configure(setup: Setup) -> list[str]:
        identity = {
            "system": "oauth2",
            "token_url": f"http://127.0.0.1:{setup.rig.token_port}/token",
            "grant": "password",
            "client_id": "bench",
            "username": "bench",
            "password": "bench",
            "refresh": setup.refresh,
        }
        route = {"upstream": f"http://127.0.0.1:{setup.upstream}", "max_connections": 1024}
        names = [f"r{number}" for number in range(setup.routes)]
        paths = ["/"] if setup.routes == 1 else [f"/{name}" for name in names]
        config: dict[str, object] = {
            "listen": {"address": f"127.0.0.1:{setup.listen}", "reuse_port": setup.shared is not None},
            "admin": f"127.0.0.1:{setup.admin}",
            "identities": dict.fromkeys(names, identity),
            "routes": [{**route, "path": path, "identity": name} for path, name in zip(paths, names, strict=True)],
            "limits": {"connections": 16384, "connections_per_address": 16384, "keepalive": "600s"},
            "log": {"level": "info", "format": "json", "access": "all" if setup.access_log else "off"},
        }
        if setup.shared is not None:
            config["store"] = {"file": {"path": str(setup.shared / "tokens"), "key_file": str(setup.shared / "key")}}
        # JSON is YAML, and keeps the word "off" a string
        argv = [python, "-m", "proxy", "run", "-c", setup.write("proxy.yaml", json.dumps(config))]
        return into(argv, setup.access_log) if setup.access_log else argv

    return configure


def into(argv: list[str], log: Path) -> list[str]:
    """The command with its output sent to log: how these peers write an access log to a file."""
    return ["/bin/sh", "-c", f"exec {shlex.join(argv)} >>{shlex.quote(str(log))} 2>&1"]
