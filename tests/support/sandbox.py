"""A running sandbox with a client that talks to it over real sockets, and its clock in the test's hand."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from yarl import URL

from proxy.sandbox import Sandbox, SandboxSettings

START = 1_800_000_000.25
START_DATE = "Fri, 15 Jan 2027 08:00:00 GMT"


class Clock:
    """Unix seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> float:
        return self.time


class Sleeps:
    """The sandbox's ``sleep``: notes the seconds asked for and holds the sleeper until ``wake`` is set."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.wake = asyncio.Event()
        self.wake.set()
        self.entered = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.entered.set()
        await asyncio.sleep(0)
        await self.wake.wait()


class Answer:
    """Status, headers and parsed JSON of one answer (None without a body)."""

    def __init__(self, status: int, headers: Mapping[str, str], body: Any) -> None:
        self.status, self.headers, self.body = status, headers, body

    def __getitem__(self, name: str) -> Any:
        return self.body[name]

    @property
    def refusal(self) -> tuple[int, str, str]:
        return self.status, self.body["error"], self.body.get("error_description", "")


class Platform:
    """The sandbox, its clock, its sleeps, and requests to it."""

    def __init__(self, sandbox: Sandbox, clock: Clock, sleeps: Sleeps, http: aiohttp.ClientSession) -> None:
        self.sandbox, self.clock, self.sleeps, self.http = sandbox, clock, sleeps, http
        self.state = sandbox.state

    async def ask(self, method: str, url: str, **how: Any) -> Answer:
        target = url if url.startswith("http") else self.sandbox.url + url
        async with self.http.request(method, URL(target, encoded=True), allow_redirects=False, **how) as reply:
            raw = await reply.read()
            json = raw and reply.content_type == "application/json"
            return Answer(reply.status, reply.headers, await reply.json() if json else None)

    async def token(self, form: Mapping[str, str], realm: str = "nagra", **how: Any) -> Answer:
        url = self.sandbox.token_url.replace("/nagra/", f"/{realm}/")
        return await self.ask("POST", url, data=form, **how)

    def password_form(self, **extra: str) -> dict[str, str]:
        who = {"username": self.sandbox.username, "password": self.sandbox.password}
        return {"grant_type": "password", "client_id": "crm_client", **who, **extra}

    async def login(self, **extra: str) -> Answer:
        return await self.token(self.password_form(**extra))

    async def refresh(self, token: str, **extra: str) -> Answer:
        form = {"grant_type": "refresh_token", "client_id": "crm_client", "refresh_token": token, **extra}
        return await self.token(form)

    async def logout(self, token: str, **extra: str) -> Answer:
        url = self.sandbox.token_url.removesuffix("token") + "logout"
        return await self.ask("POST", url, data={"client_id": "crm_client", "refresh_token": token, **extra})

    async def call(self, token: str, path: str = "/adm/v1/devices", method: str = "GET", **how: Any) -> Answer:
        headers = {"Authorization": f"Bearer {token}", **how.pop("headers", {})}
        return await self.ask(method, path, headers=headers, **how)


@contextlib.asynccontextmanager
async def running(settings: SandboxSettings | None = None) -> AsyncIterator[Platform]:
    clock, sleeps = Clock(), Sleeps()
    async with Sandbox(settings, clock=clock, sleep=sleeps) as sandbox, aiohttp.ClientSession() as http:
        yield Platform(sandbox, clock, sleeps, http)
