"""``demo``: the gateway in front of a sandbox platform, on loopback, without configuration and without a file left.

``sandbox``: the platform alone.
"""

import asyncio
import contextlib
import random
import shlex
import signal
import sys
from itertools import cycle
from pathlib import Path
from typing import Final

import aiohttp

from proxy.config import Config, Loaded, SecretValue, parse_config
from proxy.config.types import parse_address
from proxy.errors import ConfigError, Fault, SecretError
from proxy.sandbox import AgsSettings, Sandbox, SandboxSettings, VeeamSettings, run_sandbox
from proxy.server import Server, serve
from proxy.sockets import cannot_listen

TOKEN_LIFE: Final = 30  # seconds
SESSION_IDLE: Final = 1800
_REQUESTS: Final = (
    ("GET", "/adm/v1/accounts/4711", None),
    ("POST", "/adm/v1/devices", {"deviceId": "stb-1", "accountUid": "4711"}),
    ("PUT", "/adm/v1/accounts/preHashedPassword/4711", {"firstName": "Ada"}),
    ("GET", "/rmg/v1/operator/entitlements?account=4711", None),
)
_PACE: Final = 0.2  # seconds between two of the demo's own requests, on average


async def demo(listen: str, admin: str, *, traffic: bool) -> int:
    """Until Ctrl-C."""
    platform = Sandbox(SandboxSettings(access_life=TOKEN_LIFE, refresh_life=SESSION_IDLE))
    sender: asyncio.Task[None] | None = None

    def announce(server: Server) -> None:
        nonlocal sender
        proxy, admin_url = server.urls
        _say_demo(proxy, admin_url, platform)
        if traffic:
            sender = asyncio.get_running_loop().create_task(_send(proxy))

    try:
        await platform.start("127.0.0.1", 0)
        access = "errors" if traffic else "all"
        await serve(Loaded(_demo_config(listen, admin, access, platform), None), None, announce)
    finally:
        if sender is not None:
            sender.cancel()
        await platform.stop()
    return 0


def _demo_config(listen: str, admin: str, access: str, platform: Sandbox) -> Config:
    return parse_config(
        {
            "listen": listen,
            "admin": admin,
            "identities": {
                "opentv": {
                    "system": "keycloak",
                    "token_url": platform.token_url,
                    "client_id": platform.client_id,
                    "username": platform.username,
                    "password": platform.password,
                    "expect_roles": ["operatorRole"],
                }
            },
            "routes": [{"path": "/", "upstream": platform.url, "identity": "opentv"}],
            # A person who presses Ctrl-C does not mean "in 25 s".
            "shutdown": {"drain": 2},
            "log": {"format": "console", "access": access},
        }
    )


def _say_demo(proxy: str, admin: str, platform: Sandbox) -> None:
    print(
        f"opentv-proxy: proxy listening on {proxy}\n"
        f"opentv-proxy: admin listening on {admin}\n"
        f"opentv-proxy: sandbox platform on {platform.url}\n\n"
        f"Try it (no token anywhere in it; the gateway adds one that lives {TOKEN_LIFE} s):\n\n"
        f"    curl -i {shlex.quote(proxy + '/adm/v1/accounts/4711')}\n\n"
        f"Status page:       {admin}/\n"
        f"Watch the token:   curl -s {admin}/status\n"
        f"Metrics:           curl -s {admin}/metrics\n"
        f"Refuse the token:  curl -s -X POST {platform.url}/_sandbox/revoke-access-tokens\n"
        "Ctrl-C ends it.\n",
        flush=True,
    )


async def _send(proxy: str) -> None:
    """The demo's own traffic, so that dashboards have something to show."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        for method, path, body in cycle(_REQUESTS):
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.request(method, proxy + path, json=body) as response:
                    await response.read()
            await asyncio.sleep(random.uniform(0.5, 1.5) * _PACE)  # noqa: S311 - pacing, not a secret


async def sandbox(listen: str, *, token_life: int, session_idle: int, password_file: Path | None) -> int:
    """Until Ctrl-C or SIGTERM. password_file: the user's password, which is random and printed without one."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        address = parse_address(listen)
    except ValueError as exc:
        raise ConfigError([Fault("--listen", str(exc))]) from None
    if not address.is_loopback:
        words = "opentv-proxy: the sandbox has a control API without access control; it is reachable from the network"
        print(words, file=sys.stderr)

    password = None if password_file is None else _read(password_file)

    def ready(platform: Sandbox) -> None:
        shown = platform.password if password_file is None else f"that in {password_file}"
        print(
            f"opentv-proxy: sandbox listening on {platform.url}\n"
            f"token_url: {platform.token_url}\nclient_id: {platform.client_id}\n"
            f"username: {platform.username}\npassword: {shown}\n"
            f"ags_url: {platform.ags_url}\nveeam_token_url: {platform.veeam_token_url}",
            flush=True,
        )

    settings = SandboxSettings(
        password=password,
        access_life=token_life,
        refresh_life=session_idle,
        ags=AgsSettings(access_life=token_life, refresh_life=session_idle),
        veeam=VeeamSettings(access_life=token_life, refresh_life=session_idle),
    )
    try:
        await run_sandbox(address.host, address.port, settings, ready, stop)
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise cannot_listen("--listen", address, exc) from exc
    return 0


def _read(password_file: Path) -> str:
    try:
        return SecretValue(path=password_file).read()
    except SecretError as exc:
        raise ConfigError([Fault("--password-file", str(exc))]) from None
