"""No secret leaves the gateway, at any log level, whatever goes wrong.

Everything that can come out is collected while everything that can be thought of goes wrong around secrets: providers,
upstreams and clients that quote them, files that are broken in the middle of one. Then each secret, and each piece of
16 characters, plain or encoded, is looked for. What an upstream itself answers passes unchanged and is not looked at.
"""

import asyncio
import base64
import contextlib
import io
import json
import re
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus, urlsplit

import aiohttp
import yaml

from proxy import logs
from proxy.config import KeycloakIdentity
from proxy.gateway.sending import SendingBody
from proxy.gateway.upstream import UpstreamConnection
from proxy.metrics import Metrics
from proxy.sandbox import Fault, Sandbox, SandboxSettings
from proxy.sandbox.settings import Client
from proxy.tokens.factory import build_keeper
from proxy.tokens.source import Credential
from proxy.tokens.stores.memory import MemoryStore
from proxy.tokens.systems.base import Reply, TokenRequest
from tests.support.cli import command
from tests.support.gateway import Gateway, running_gateway, until
from tests.support.inmemory import FakeSource, InMemory, MemoryPool, settled
from tests.support.rawclient import dial
from tests.support.rawserver import Message, Wire, WireEndedError, raw_server

PIECE = 16


class Secrets:
    """Every secret there is, by what it is for."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def new(self, name: str, beginning: str = "") -> str:
        """20 characters: not so long that anybody would take it for a secret by its shape."""
        return self.add(name, beginning + secrets.token_urlsafe(15))

    def add(self, name: str, value: str) -> str:
        self.known[name] = value
        return value

    def file(self, name: str, folder: Path) -> str:
        path = folder / f"{name}.secret"
        path.write_text(self.new(name) + "\n")
        return str(path)

    def found_in(self, texts: Mapping[str, str]) -> list[str]:
        """``where: what`` of each secret of which a piece is in one of the texts."""
        pieces = {
            piece: name for name, value in self.known.items() for form in _forms(value) for piece in _pieces(form)
        }
        return sorted(
            {
                f"{where}: {pieces[piece]}"
                for where, text in texts.items()
                for piece in pieces.keys() & set(_pieces(text))
            }
        )

    def assert_none_in(self, texts: Mapping[str, str]) -> None:
        found = self.found_in(texts)
        assert not found, "secrets came out:\n" + "\n".join(found)


def _forms(value: str) -> set[str]:
    as_user = base64.b64encode(f"crm:{value}".encode()).decode()
    return {value, quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1], as_user}


def _pieces(text: str) -> Iterator[str]:
    return (text[at : at + PIECE] for at in range(len(text) - PIECE + 1))


class Relay:
    """A way to the sandbox that remembers each token that the sandbox hands out."""

    def __init__(self, port: int) -> None:
        self.answers = bytearray()
        self.url = ""
        self._port = port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        await asyncio.gather(self._pass(reader, back, None), self._pass(there, writer, self.answers))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, seen: bytearray | None) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if seen is not None:
                    seen += data
                sink.write(data)
                await sink.drain()
        sink.close()

    def tokens(self) -> list[str]:
        return re.findall(r'_token":"([^"]+)"', self.answers.decode("latin-1"))


@contextlib.asynccontextmanager
async def relay_to(sandbox: Sandbox) -> AsyncIterator[Relay]:
    relay = Relay(sandbox.port)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield relay
    server.close()


# -- those who quote ----------------------------------------------------------------------------------------------


def _json(status: str, body: object, *fields: str) -> bytes:
    raw = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(raw)}", "Content-Type: application/json", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def _granted(token: str, **fields: object) -> bytes:
    return _json("200 OK", {"access_token": token, "token_type": "Bearer", "expires_in": 60} | fields)


def provider_says(kind: str, form: str, password: str, token: str) -> bytes:
    """How a provider gives away what it was sent. form: the request's body."""
    quoted = f"{password} is not the password; you sent {form}"
    answers = {
        "description": _json("401 Unauthorized", {"error": "invalid_grant", "error_description": quoted}),
        "operator": _json("400 Bad Request", {"error": "unauthorized_client", "error_description": quoted}),
        "code": _json("400 Bad Request", {"error": password, "error_description": password}),
        "html": f"HTTP/1.1 500 Oops {password}\r\nContent-Type: text/html\r\n\r\n<h1>{quoted}</h1>".encode(),
        "redirect": f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/?{form}\r\nContent-Length: 0\r\n\r\n".encode(),
        "retry": _json("429 Slow Down", {"error": quoted}, f"Retry-After: {password}"),
        "unavailable": _json("503 Out", {"error": quoted}, f"Retry-After: {password}", f"Date: {password}"),
        "startline": f"HTTP/1.1 4oo {quoted}\r\n\r\n".encode(),
        "fieldline": f"HTTP/1.1 200 OK\r\n{quoted}\r\n\r\n".encode(),
        "chunks": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{password}\r\n".encode(),
        "coding": _json("200 OK", {"a": quoted}, f"Content-Encoding: {password}"),
        "charset": _json("200 OK", {"a": quoted}, f"Content-Type: application/json; charset={password}"),
        "type": _granted(token, token_type=password),
        "life": _granted(token, expires_in=password, refresh_expires_in=password),
        "forbidden": _granted(f"{token}\r\nX-Evil: {password}"),
        "list": _granted(token, access_token=[password, token]),
        "refresh": _granted(token, refresh_token={"was": password}),
        "deep": _json("200 OK", 0)[:-1].replace(b"Content-Length: 1", b"Content-Length: 200000") + b"[" * 200_000,
        "number": _json("200 OK", 0)[:-1].replace(b"Content-Length: 1", b"Content-Length: 9000") + b"9" * 9000,
        "cut": _granted(token)[:-20],
    }
    return answers[kind]


PROVIDERS = (
    *(
        "description",
        "operator",
        "code",
        "html",
        "redirect",
        "retry",
        "unavailable",
        "startline",
        "fieldline",
        "chunks",
    ),
    *("coding", "charset", "type", "life", "forbidden", "list", "refresh", "deep", "number", "cut"),
)


async def asked(wire: Wire) -> Message:
    if wire.unread.startswith(b"\x16"):
        raise WireEndedError("a TLS handshake, of which nothing is understood here")
    return await wire.request()


def quoting_provider(known: Secrets) -> Any:
    async def behave(wire: Wire) -> None:
        request = await asked(wire)
        kind = request.target.decode().rpartition("/")[2]
        fields = [*request.values(b"x-gate-key"), *request.values(b"authorization"), request.body]
        form = b" ".join(fields).decode()
        given = parse_qs(form)
        password = (given.get("password") or given.get("refresh_token") or [form.split(" ")[1]])[0]
        token = known.new(f"token of {kind} {len(known.known)}")
        if kind == "rotating" and "password" in given:
            answer = _granted(token, refresh_token=known.new("refresh token"), refresh_expires_in=600)
        else:
            answer = provider_says("description" if kind == "rotating" else kind, form, password, token)
        wire.send(answer)
        wire.close()

    return behave


def upstream_says(kind: str, sent: str) -> bytes:
    """How an upstream gives away what it was sent. sent: the credential's header line."""
    body = json.dumps({"resultCode": "99999:403", "result": sent})
    answers = {
        "401": f"HTTP/1.1 401 No\r\nWWW-Authenticate: {sent}\r\nContent-Length: {len(body)}\r\n\r\n{body}",
        "200": f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}",
        "startline": f"HTTP/1.1 2oo {sent}\r\n\r\n",
        "fieldline": f"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{sent} \x01\r\n\r\n",
        "length": f"HTTP/1.1 200 OK\r\nContent-Length: {sent}\r\n\r\n",
        "chunks": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{sent}\r\n",
        "coding": f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {sent}\r\n\r\n",
        "junk": sent,
        "nothing": "",
    }
    return answers.get(kind, answers["401"]).encode()


UPSTREAMS = ("401", "200", "startline", "fieldline", "length", "chunks", "coding", "junk", "nothing")


async def quoting_upstream(wire: Wire) -> None:
    request = await asked(wire)
    sent = b" ".join(request.values(b"authorization")).decode()
    wire.send(upstream_says(request.target.decode().rpartition("/")[2], sent))
    wire.close()


async def quoting_proxy(wire: Wire) -> None:
    """An HTTP proxy that opens no way, and gives away what it was sent."""
    request = await asked(wire)
    (sent,) = request.values(b"proxy-authorization")
    realm = b"Proxy-Authenticate: Basic realm=%b" % sent
    wire.send(b"HTTP/1.1 407 %b\r\n%b\r\nContent-Length: %d\r\n\r\n%b" % (sent, realm, len(sent), sent))
    wire.close()


# -- the gateway among them ---------------------------------------------------------------------------------------


def everything_secret(known: Secrets, kind: str) -> dict[str, Any]:
    """An identity's keys, a secret of its own in each that may hold one."""
    return {
        "username": "y",
        "password": known.new(f"password for {kind}"),
        "client_auth": "post",
        "client_secret": known.new(f"client secret for {kind}"),
        "extra": {"pin": known.new(f"extra field for {kind}")},
        "headers": {"X-Gate-Key": known.new(f"header for {kind}")},
        "timeout": "1s",
    }


def leading(
    known: Secrets, folder: Path, sandbox: Sandbox, ways: Mapping[str, str], identities: Iterable[str]
) -> list[dict[str, Any]]:
    """A route for each identity, and some that quote, tunnel, or lead to who cannot be trusted."""
    api: dict[str, dict[str, Any]] = {
        name: {"path": f"/{name}", "upstream": sandbox.url, "identity": name} for name in identities if name != "quoted"
    }
    api["good"]["headers"] = {"set": {"X-Upstream-Key": known.new("upstream key")}}
    quoting = {"path": "/quoting", "upstream": ways["upstream"], "identity": "quoted"}
    (folder / "way.secret").write_text(known.new("password of a tunnel"))
    there = {"url": ways["proxy"], "username": "crm", "password_file": str(folder / "way.secret")}
    tunnelled = {"path": "/tunnelled", "upstream": "https://up.invalid", "identity": "good", "proxy": there}
    untrusted = {"path": "/untrusted", "upstream": ways["upstream"].replace("http:", "https:"), "identity": "good"}
    return [*api.values(), quoting, untrusted, tunnelled]


def configuration(
    known: Secrets, folder: Path, sandbox: Sandbox, ways: Mapping[str, str], kinds: Iterable[str]
) -> dict[str, Any]:
    """ways: URLs of relay, provider and upstream. kinds: of quoting providers."""
    token_url = ways["relay"] + urlsplit(sandbox.token_url).path

    def keycloak(client_id: str, **more: Any) -> dict[str, Any]:
        return {"system": "keycloak", "token_url": token_url, "client_id": client_id} | more

    (folder / "password").write_text(known.add("password", sandbox.password))
    (folder / "seed").write_text(known.add("seed", sandbox.refresh_token(client_id="ua-grant")))
    login = {"username": sandbox.username, "password_file": str(folder / "password")}
    (folder / "client.secret").write_text(known.known["client secret"])
    identities = {
        "good": keycloak(
            sandbox.client_id,
            **login,
            extra={"pin": known.new("extra field")},
            headers={"X-Gate-Token": known.new("header of token requests")},
        ),
        "locked": keycloak(sandbox.client_id, username="nobody", password=known.new("refused password", "p&=%/+")),
        "machine": keycloak(
            "machine", grant="client_credentials", client_auth="basic", client_secret_file=str(folder / "client.secret")
        ),
        "posted": keycloak(
            "machine", grant="client_credentials", client_auth="post", client_secret=known.new("wrong client secret")
        ),
        "seeded": keycloak("ua-grant", grant="refresh_token", refresh_token_file=str(folder / "seed")),
        "tls": keycloak("x", username="y", password=known.new("password over TLS"))
        | {"token_url": ways["provider"].replace("http:", "https:") + "/description", "timeout": "1s"},
        "rotating": keycloak("x", username="y", password=known.new("password that works"), timeout="1s")
        | {"token_url": f"{ways['provider']}/rotating"},
        "basic": keycloak(
            "crm",
            grant="client_credentials",
            client_auth="basic",
            client_secret=known.new("client secret in a header"),
        )
        | {"token_url": f"{ways['provider']}/description", "timeout": "1s"},
    }
    way = {"url": ways["proxy"], "username": "crm", "password": known.new("password of an HTTP proxy")}
    identities["proxied"] = keycloak("x", username="y", password=known.new("password by an HTTP proxy"), timeout="1s")
    identities["proxied"] |= {"token_url": "https://idp.invalid/token", "proxy": way}
    for kind in kinds:
        identities[kind] = keycloak("x", **everything_secret(known, kind)) | {"token_url": f"{ways['provider']}/{kind}"}
    # Its rejections are never cured, which would hold back the refreshes of another route's identity.
    identities["quoted"] = keycloak(sandbox.client_id, **login)
    return {
        "clients": {
            "basic": {"crm": {"password_file": known.file("client's password", folder)}},
            "api_keys": {"keys": [known.new("client's key")]},
        },
        "identities": identities,
        "routes": leading(known, folder, sandbox, ways, identities),
        "limits": {"head_size": "8KiB", "target_size": "4KiB", "head_time": "1s"},
        "log": {"level": "debug"},
    }


class Collected:
    """texts: all that came out, by where."""

    def __init__(self, gateway: Gateway, key: str) -> None:
        self.gateway = gateway
        self.texts: dict[str, str] = {}
        self.statuses: dict[str, int] = {}
        self._key = {"X-Api-Key": key}

    def take(self, where: str, text: str) -> None:
        self.texts[where] = self.texts.get(where, "") + text

    async def ask(self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, **how: Any) -> None:
        """A request to the gateway; its answer is kept when it is the gateway's own."""
        async with aiohttp.ClientSession() as http:
            try:
                url = self.gateway.url + path
                async with http.request(
                    method, url, headers=self._key if headers is None else headers, **how
                ) as answer:
                    text = f"{answer.headers}{(await answer.read()).decode('latin-1')}"
                    self.statuses[path] = answer.status
                    if "opentv-proxy" in answer.headers.get("Proxy-Status", ""):
                        self.take(f"answer to {path}", text)
            except aiohttp.ClientError:
                self.statuses[path] = 0  # broken off in the middle of what the upstream said

    async def raw(self, url: str, request: bytes) -> None:
        """Bytes of which little is right."""
        wire = await dial(url)
        wire.send(request)
        with contextlib.suppress(WireEndedError, TimeoutError):
            wire.end()
            text = (await wire.rest()).decode("latin-1")
            own = [
                each for each in text.split("HTTP/1.1 ") if "opentv-proxy; error=" in each or url != self.gateway.url
            ]
            self.take("answers to malformed requests", "".join(own))
        wire.close()

    async def admin(self, path: str, method: str = "GET", **headers: str) -> None:
        async with (
            aiohttp.ClientSession() as http,
            http.request(method, self.gateway.admin_url + path, headers=headers) as answer,
        ):
            self.take(f"admin port, {method} {path.partition('?')[0][:20]}", f"{answer.headers}{await answer.text()}")

    async def admin_port(self, secret: str) -> None:
        for path in ("/metrics", "/status", "/readyz?verbose", "/livez", "/", f"/x?token={secret}"):
            await self.admin(path, Authorization=f"Bearer {secret}")
        await self.admin("/metrics", Accept="application/openmetrics-text")
        names = ("good", "locked", "description", "deep", "seeded", "posted", "tls", "rotating", "rotating", "basic")
        await asyncio.gather(*(self.admin(f"/identities/{name}/refresh", "POST") for name in names))
        await self.raw(
            self.gateway.admin_url, f"GET /\x01 HTTP/1.1\r\nAuthorization: Bearer {secret}\x02\r\n\r\n".encode()
        )
        await self.raw(self.gateway.admin_url, f"Bearer {secret}\r\n\r\n".encode())


def malformed(known: Secrets) -> Iterator[bytes]:
    """Requests that are refused, each with credentials where something is wrong."""
    password = known.known["client's password"]
    basic = base64.b64encode(f"crm:{password}".encode()).decode()
    key, token, jwt = known.known["client's key"], known.new("another's token"), known.new("a JWT", "eyJ")
    good = f"Host: g\r\nX-Api-Key: {key}\r\nAuthorization: Bearer {token}\r\n"
    for head in (
        f"GET /good?password={token} HTTP/9.9\r\n{good}",
        f"GET /good HTTP/1.1\r\n{good}Authorization : Basic {basic}\r\n",
        f"GET /good HTTP/1.1\r\n{good}Authorization Basic {basic}\r\n",
        f"GET /good HTTP/1.1\r\n{good}X-Api-Key: {key}\x00\r\n",
        f"GET /good HTTP/1.1\r\n{good}Host: {token}@x\r\n",
        f"GET http://crm:{token}@elsewhere/ HTTP/1.1\r\n{good}",
        f"GET /good HTTP/1.1\r\n{good}Content-Length: {token}\r\n",
        f"POST /good HTTP/1.1\r\n{good}Transfer-Encoding: {token}, chunked\r\n",
        f"POST /good HTTP/1.1\r\n{good}Expect: {token}\r\nContent-Length: 2\r\n",
        f"GET /good HTTP/1.1\r\n{good}X-Long: {token * 300}\r\n",
        f"GET /good/{jwt * 150} HTTP/1.1\r\n{good}",
        f"GET /good/{jwt} HTTP/1.1\r\n{good}",
        f"GET /none/{jwt} HTTP/1.1\r\nHost: g\r\nAuthorization: Basic {basic}\r\n",
        f"TRACE /good HTTP/1.1\r\n{good}",
        f"Bearer {token}\r\n",
        f"GET /good HTTP/1.1\r\n {token}\r\n{good}",
    ):
        yield f"{head}\r\n".encode("latin-1")
    chunked = f"POST /good HTTP/1.1\r\n{good}Transfer-Encoding: chunked\r\n\r\n"
    yield f"{chunked}password={token}\r\n0\r\n\r\n".encode()
    yield f"{chunked}5;{token * 2000}\r\nabcde\r\n0\r\n\r\n".encode()
    yield f"POST /good HTTP/1.1\r\n{good}Content-Length: 900\r\n\r\npassword={token}".encode()
    yield f'POST /good HTTP/1.1\r\n{good}Content-Length: 2\r\n\r\nhi{{"password": "{token}"}} {token}\r\n\r\n'.encode()


def wrong_files(known: Secrets, right: dict[str, Any]) -> Iterator[str]:
    """Configurations with something wrong at, or next to, a secret."""
    text = yaml.safe_dump(right)

    def secret(name: str) -> str:
        return known.new(f"wrong file, {name}")

    yield f"{text}\npassword {secret('no colon')}\n  x: ["
    yield f'identities:\n  good:\n    password: "{secret("no closing quote")}\n    client_id: x\n'
    yield f"identities:\n  good:\n    password: {secret('tab')}\n\tclient_id: x\n"
    yield f"identities:\n  good:\n    password: *{secret('alias')}\n"
    yield f"identities:\n  good:\n    password: !{secret('tag')} x\n"
    yield f"identities:\n  good:\n    password: &x {secret('anchor')}\n    password: {secret('twice')}\n"
    for section in (
        {"identities": {"good": right["identities"]["good"] | {"password": [secret("list")]}}},
        {"identities": {"good": right["identities"]["good"] | {"password": {"is": secret("mapping")}}}},
        {"identities": {"good": right["identities"]["good"] | {"password": secret("and a file")}}},
        {"identities": {"good": right["identities"]["good"] | {"passwort": secret("unknown key")}}},
        {"identities": {"good": right["identities"]["good"] | {"refresh_token": secret("of another grant")}}},
        {"identities": {"good": right["identities"]["good"] | {"scope": [secret("scope")]}}},
        {"identities": {"good": right["identities"]["good"] | {"extra": {"pin": {"no": secret("extra")}}}}},
        {"identities": {"good": right["identities"]["good"] | {"headers": {"X-Key": secret("line\n break")}}}},
        {"identities": {"good": right["identities"]["good"] | {"token_url": f"https://crm:{secret('url')}@x/"}}},
        {"clients": {"api_keys": {"keys": secret("keys as text")}}},
        {"clients": {"basic": {"crm": secret("password in place of a mapping")}}},
        {"clients": secret("in place of clients")},
        {"store": {"redis": {"url": f"redis://:{secret('redis')}@x", "key_file": "/nowhere"}}},
        {"routes": [{"path": "/", "upstream": f"https://crm:{secret('upstream')}@x/"}]},
        {"routes": [{"path": "/", "upstream": "https://x", "headers": {"set": {"X-Key": [secret("header")]}}}]},
        {"limits": {"head_time": secret("a number")}},
    ):
        yield yaml.safe_dump(right | section)


@contextlib.asynccontextmanager
async def scene(
    known: Secrets, folder: Path, kinds: Iterable[str] = PROVIDERS
) -> AsyncIterator[tuple[Sandbox, Relay, Collected, dict[str, Any]]]:
    machine = Client("machine", secret=known.new("client secret", "s&=%/+"), service_account=True)
    settings = SandboxSettings(access_life=60, clients=(Client("crm_client"), Client("ua-grant"), machine))
    async with (
        Sandbox(settings) as sandbox,
        relay_to(sandbox) as relay,
        raw_server(quoting_provider(known)) as provider,
        raw_server(quoting_upstream) as upstream,
        raw_server(quoting_proxy) as proxy,
    ):
        ways = {"relay": relay.url, "provider": provider.url, "upstream": upstream.url, "proxy": proxy.url}
        # The seed must be the relay's: a token names its issuer.
        config = configuration(known, folder, sandbox, ways, kinds)
        async with running_gateway(config, folder) as gateway:
            yield sandbox, relay, Collected(gateway, known.known["client's key"]), config


async def go_wrong(known: Secrets, sandbox: Sandbox, out: Collected, config: dict[str, Any]) -> None:
    await until(lambda: sandbox.state.counters["logins"] == 2, 5, "both logins")
    body = json.dumps({"password": known.known["somebody's token"]})
    await asyncio.gather(
        *(out.ask(f"/{name}/x", "POST", data=body) for name in config["identities"] if name != "quoted"),
        *(out.ask(f"/quoting/{kind}") for kind in UPSTREAMS),
        out.ask("/untrusted/x"),
        out.ask("/tunnelled/x"),
    )
    sandbox.state.revoke_access_tokens()
    await out.ask("/good/x")
    sandbox.state.faults["token"].append(Fault("rotate-then-reset", grant="refresh_token"))
    sandbox.state.revoke_access_tokens()
    await out.ask("/good/x")
    nearly = known.known["client's password"][:-1] + "?"
    wrong = base64.b64encode(f"crm:{nearly}".encode()).decode()
    await out.ask("/good/wrong", headers={"Authorization": f"Basic {wrong}"})
    for _ in range(13):  # the last of them are held back
        await out.ask("/good/wrong", headers={"X-Api-Key": known.known["client's key"][:-1] + "?"})
    await asyncio.gather(*(out.raw(out.gateway.url, request) for request in malformed(known)))


async def test_no_secret_comes_out_of_a_running_gateway(tmp_path: Path) -> None:
    known = Secrets()
    known.new("somebody's token")
    async with scene(known, tmp_path) as (sandbox, relay, out, config):
        gateway = out.gateway
        cmdline = Path(f"/proc/{gateway.pid}/cmdline").read_bytes().decode()
        environ = Path(f"/proc/{gateway.pid}/environ").read_bytes().decode()
        await go_wrong(known, sandbox, out, config)
        await out.admin_port(known.known["somebody's token"])
        for text in wrong_files(known, config):
            refused = sum("send SIGHUP" in line for line in gateway.log)
            gateway.config_file.write_text(text)
            gateway.hup()
            await until(lambda refused=refused: sum("send SIGHUP" in line for line in gateway.log) > refused, 10, text)
        await out.admin_port(known.known["somebody's token"])
        assert await gateway.stop() == 0
        for number, token in enumerate(relay.tokens()):
            known.add(f"token {number}", token)
    out.texts |= {"stdout": "\n".join(gateway.out), "stderr": "\n".join(gateway.log)}
    out.texts |= {"argv": cmdline, "environment": environ}

    assert len(relay.tokens()) > 8  # or nothing was tried
    assert out.statuses["/good/x"] == 200
    assert {out.statuses[f"/{kind}/x"] for kind in PROVIDERS} <= {200, 403, 503}
    assert {out.statuses[f"/quoting/{kind}"] for kind in UPSTREAMS} == {200, 401, 502}
    assert out.statuses["/good/wrong"] == 401
    assert (out.statuses["/proxied/x"], out.statuses["/tunnelled/x"]) == (503, 502)
    assert all(json.loads(line) for line in gateway.log)
    known.assert_none_in(out.texts)


async def test_no_secret_comes_out_of_a_command(tmp_path: Path) -> None:
    known = Secrets()
    known.new("somebody's token")
    async with scene(known, tmp_path, ("description", "operator", "code", "deep")) as (_, relay, out, config):
        file = out.gateway.config_file
        (tmp_path / "wrong.yaml").write_text(list(wrong_files(known, config))[5])
        (tmp_path / "listed.yaml").write_text(
            yaml.safe_dump(config | {"clients": {"basic": known.new("not a mapping")}})
        )
        commands: tuple[tuple[str | Path, ...], ...] = (
            ("check", "-c", file),
            ("check", "--json", "-c", file),
            ("config", "-c", file),
            ("token", "good", "-c", file),
            ("token", "description", "-c", file),
            ("healthcheck", "-c", file, "--admin", out.gateway.admin_url.partition("://")[2]),
            ("run", "-c", tmp_path / "wrong.yaml"),
            ("run", "-c", tmp_path / "listed.yaml"),
        )
        for name, ended in zip(commands, await asyncio.gather(*(command(*each) for each in commands)), strict=True):
            assert "Traceback" not in ended.err, ended.err
            out.take(" ".join(map(str, name[:2])), ended.out + ended.err)
        for number, token in enumerate(relay.tokens()):
            known.add(f"token {number}", token)
    assert len(relay.tokens()) > 6
    known.assert_none_in(out.texts)


class Broken:
    """A transport with a bug: its exception quotes all that it was given."""

    async def exchange(
        self, request: TokenRequest, correlation_id: str, *, probing: bool = False, within: float | None = None
    ) -> Reply:
        fields = dict(request.headers)
        raise RuntimeError(f"cannot send {request} {request.body!r} {fields} {correlation_id} {probing} {within}")

    def reread_tls(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        pass


async def test_an_error_of_our_own_shows_its_frames_and_no_secret() -> None:
    known, stream = Secrets(), io.StringIO()
    logs.setup("debug", "json", "all", stream)
    identity = KeycloakIdentity.model_validate(
        {
            "system": "keycloak",
            "token_url": "http://127.0.0.1:1/token",
            "client_id": "crm_client",
            "client_auth": "basic",
            "client_secret": known.new("client secret"),
            "username": "crm_client_user",
            "password": known.new("password"),
        }
    )
    keeper = build_keeper(
        "opentv",
        identity,
        store=MemoryStore(),
        metrics=Metrics("test"),
        log=logs.get("proxy.tokens"),
        transport=Broken(),
    )
    await keeper.start()
    await until(lambda: "renewal broke" in stream.getvalue(), 5, "the internal error's line")
    said = {"log": stream.getvalue(), "status": json.dumps(keeper.status()), "repr": f"{identity!r} {keeper!r}"}
    await keeper.close()
    assert "RuntimeError: cannot send" in said["log"]
    known.assert_none_in(said)


class BrokenPool(MemoryPool):
    """A pool with a bug: its exception quotes the request that wanted a connection."""

    def __init__(self, metrics: Metrics, request: bytes) -> None:
        super().__init__(metrics)
        self._request = request

    def take(self, body: SendingBody) -> None:  # type: ignore[override]  # noqa: ARG002 - there is never one
        return None

    async def connect(self, body: SendingBody) -> UpstreamConnection:  # noqa: ARG002 - whoever asks
        raise RuntimeError(f"cannot connect for {self._request!r}, {self._request.decode()}")


async def test_an_error_on_a_requests_way_is_502_and_shows_its_frames_and_no_secret() -> None:
    known, stream = Secrets(), io.StringIO()
    logs.setup("debug", "json", "all", stream)
    token = known.new("token")
    source = FakeSource(Credential(b"Authorization", f"Authorization: Bearer {token}\r\n".encode(), 1, "00000001"))
    fields = (f"Authorization: Bearer {known.new('their token')}", f"Cookie: a={known.new('cookie')}")
    request = "\r\n".join(("GET /x HTTP/1.1", "Host: gw", f"X-Api-Key: {known.new('key')}", *fields, "", "")).encode()
    with InMemory(source) as there:
        there.route.pool = BrokenPool(there.metrics, request)
        client = there.dial()
        client.receive(request)
        await settled(5)
        said = {"log": stream.getvalue(), "answer": client.written.decode()}
    assert "HTTP/1.1 502" in said["answer"]
    assert "proxy_internal_error" in said["answer"]
    assert "RuntimeError: cannot connect for" in said["log"]
    known.assert_none_in(said)


async def test_the_search_finds_what_it_is_to_find() -> None:
    known = Secrets()
    value = known.new("a", "p&=%/+")
    texts = {"plain": f"x{value[:16]}y", "form": f"b={quote_plus(value)}", "none": value[:15]}
    texts["basic"] = base64.b64encode(f"crm:{value}".encode()).decode()
    assert known.found_in(texts) == ["basic: a", "form: a", "plain: a"]
