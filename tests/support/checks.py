"""``opentv-proxy check`` on many wrong settings in one run: each has a platform, an identity and a route of its own."""

import asyncio
import contextlib
import functools
import json
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import trustme

from proxy.sandbox import Sandbox
from tests.support.cli import Ended, command, written
from tests.support.gateway import ROOT

Config = dict[str, Any]
LOGINS = ("password", "client_credentials", "signOn", "Password")
REFRESHES = ("refresh_token", "refresh", "Refresh_token")
SECRETS = ("password", "client_secret", "refresh_token", "private_key")


@dataclass
class Site:
    """One situation: sandbox and the two sections to be edited. authority: that it may have certificates of."""

    name: str
    sandbox: Sandbox
    folder: Path
    authority: trustme.CA
    stack: AsyncExitStack
    identity: Config = field(default_factory=dict)
    route: Config = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.identity = keycloak(self.sandbox)
        self.route = {"path": f"/{self.name}", "upstream": self.sandbox.url, "identity": self.name}

    @property
    def ca_file(self) -> str:
        return str(self.folder / "ca.pem")

    def file(self, content: str, suffix: str = "") -> str:
        """A file of this situation's own, relative to the configuration."""
        name = f"{self.name}{suffix}"
        (self.folder / name).write_text(content)
        return name

    async def serve(self, answer: "bytes | Answer", context: ssl.SSLContext | None = None) -> int:
        """The port of a server that says this to everybody."""
        return await self.stack.enter_async_context(answering(answer, context))

    def contacts(self) -> tuple[int, int, int]:
        """Requests for a login, for a refresh, for a logout."""
        calls = self.sandbox.state.token_calls
        out = sum(call.operation == "logout" or call.grant == "signOut" for call in calls)
        asked = [call.grant for call in calls if call.operation != "logout"]
        return sum(map(asked.count, LOGINS)), sum(map(asked.count, REFRESHES)), out


Arrange = Callable[[Site], Awaitable[object] | object]
Answer = Callable[[bytes], bytes]


def keycloak(sandbox: Sandbox) -> Config:
    who = {"client_id": sandbox.client_id, "username": sandbox.username, "password": sandbox.password}
    return {"system": "keycloak", "token_url": sandbox.token_url, **who, "expect_roles": ["operatorRole"], "timeout": 3}


@contextlib.asynccontextmanager
async def answering(answer: bytes | Answer, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that says ``answer`` to every request; its port. A function gets the request's head. b"": nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(answer if isinstance(answer, bytes) else answer(head))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@contextlib.asynccontextmanager
async def demanding(context: ssl.SSLContext) -> AsyncIterator[int]:
    """A server that wants to see a client's certificate, and says what it has against it, which asyncio's does not."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(65536)

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        serving.join()
        listening.close()


def reply(status: str, body: bytes = b"", **fields: str) -> bytes:
    """A whole answer. fields: ``content_type="text/html"``."""
    lines = "".join(f"{name.replace('_', '-').title()}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def private_authority(name: str) -> trustme.CA:
    return trustme.CA(organization_name=name, organization_unit_name=name)


def certified(authority: trustme.CA, *names: str, days: float = 365, since: float = -1) -> ssl.SSLContext:
    """For a server of these names, valid from ``since`` to ``days``, in days from now."""
    context, now = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), datetime.now(UTC)
    issued = authority.issue_cert(
        *names,
        not_before=now + timedelta(days=since),
        not_after=now + timedelta(days=days),
    )
    issued.configure_cert(context)
    return context


def client_certificate(
    folder: Path, name: str, authority: trustme.CA | None = None, days: float = 365, since: float = -1
) -> dict[str, str]:
    """Files of a certificate and its key, valid from ``since`` to ``days``, in days from now."""
    now = datetime.now(UTC)
    begins, ends = now + timedelta(days=since), now + timedelta(days=days)
    issued = (authority or private_authority("Somebody Else")).issue_cert(
        f"{name}.example.com", common_name=name, not_before=begins, not_after=ends
    )
    issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    with (folder / f"{name}.pem").open("wb") as chain:
        chain.writelines(pem.bytes() for pem in issued.cert_chain_pems)
    return {"cert_file": f"{name}.pem", "key_file": f"{name}.key"}


@dataclass(frozen=True)
class Told:
    """lines: what was said of one situation's identity and route. contacts: see there."""

    lines: list[dict[str, str]]
    contacts: tuple[int, int, int]

    def says(self, words: "Words") -> bool:
        wanted = (words.severity, words.finding, words.evidence, words.advice)
        keys = ("severity", "finding", "evidence", "advice")
        return any(all(map(matches, wanted, (line[key] for key in keys))) for line in self.lines)

    def __str__(self) -> str:
        keys = ("severity", "subject", "finding", "evidence", "advice")
        return "\n".join(" | ".join(line[key] for key in keys) for line in self.lines)


async def checked(
    config: Config, folder: Path, *options: str, env: Mapping[str, str] | None = None, seconds: float = 60
) -> Ended:
    """What every run must keep to: no secret and no token in what it writes, and no word on stderr off a terminal."""
    ended = await command("check", "-c", written(config, folder), *options, env=env, seconds=seconds)
    secrets = [value for identity in config["identities"].values() for key in SECRETS if (value := identity.get(key))]
    assert not [secret for secret in secrets if secret in ended.out + ended.err]
    assert "eyJ" not in ended.out + ended.err
    assert ended.err == "", ended.err
    assert "\x1b" not in ended.out
    return ended


async def document(config: Config, folder: Path, code: int, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What ``check --json`` says, which ends with ``code``."""
    ended = await checked(config, folder, "--json", env=env)
    assert ended.code == code, ended.out
    found: dict[str, Any] = json.loads(ended.out)
    assert found["ok"] == (code == 0)
    for severity, count in (("problem", "problems"), ("hint", "hints")):
        assert found[count] == sum(one["severity"] == severity for one in found["findings"])
    return found


async def told(
    table: Mapping[str, Arrange], folder: Path, code: int = 3, env: Mapping[str, str] | None = None
) -> dict[str, Told]:
    """Every situation of the table, in one run."""
    authority = private_authority("Example Private Authority")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    config: Config = {"identities": {}, "routes": []}
    async with AsyncExitStack() as stack:
        sites: list[Site] = []
        for arrange in table.values():
            sandbox = await stack.enter_async_context(Sandbox())
            site = Site(f"i{len(sites)}", sandbox, folder, authority, stack)
            sites.append(site)
            if isinstance(waiting := arrange(site), Awaitable):
                await waiting
            config["identities"][site.name] = site.identity
            config["routes"].append(site.route)
        found = (await document(config, folder, code, env))["findings"]
        return {
            situation: Told(
                [line for line in found if line["subject"] in (f"identity {site.name}", f"route {site.route['path']}")],
                site.contacts(),
            )
            for situation, site in zip(table, sites, strict=True)
        }


@dataclass(frozen=True)
class Words:
    """What a row of docs/check.md has for a situation; … stands for whatever differs between two runs."""

    severity: str
    finding: str
    evidence: str
    advice: str


@functools.cache
def documented() -> dict[str, Words]:
    """Every row of docs/check.md, by situation."""
    cells = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in (ROOT / "docs/check.md").read_text().splitlines()
        if line.startswith("| ") and line.count(" | ") == 4
    ]
    rows = [(name, Words(*("" if cell == "-" else cell for cell in words))) for name, *words in cells]
    return {name: words for name, words in rows if words.severity in ("ok", "hint", "problem")}


def matches(pattern: str, words: str) -> bool:
    """``…`` in the pattern stands for whatever differs between two runs."""
    return re.fullmatch(".*".join(map(re.escape, pattern.split("…"))), words) is not None
