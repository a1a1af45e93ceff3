"""A balancer in front of a token endpoint: it passes everything on, remembers every call, and loses answers when told.

What it passes on reaches the provider byte for byte, so tokens name the balancer as their issuer: whoever uses it, uses
nothing else.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from tests.support.rawclient import dial
from tests.support.rawserver import Message, RawServer, Wire, WireEndedError, raw_server

Loss = Literal["reset", "half", "silence", "502"]
LOSSES: tuple[Loss, ...] = ("reset", "half", "silence", "502")

_BAD_GATEWAY = (
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 26\r\nConnection: close\r\n\r\n"
    b"<h1>502 Bad Gateway</h1>\r\n"
)


@dataclass
class Call:
    """One request to the provider. at: Unix seconds. grant: ``logout`` for a logout. status: the provider's, 0 before.

    passed: the caller was handed the answer whole.
    """

    at: float
    grant: str
    refresh_token: str = field(repr=False)
    status: int = 0
    passed: bool = False


class Balancer:
    """provider: ``http://host:port``. losses: how the next answers to a refresh or a login are lost, in this order.

    calls: all there were, in order. tokens: all that were handed out, by name.
    """

    def __init__(self, provider: str) -> None:
        self.calls: list[Call] = []
        self.losses: list[Loss] = []
        self._held: list[asyncio.Event] = []
        self.tokens: dict[str, str] = {}
        self.raw: RawServer
        self._provider = provider

    @property
    def url(self) -> str:
        return self.raw.url

    def before(self, url: str) -> str:
        """The provider's ``url`` by way of the balancer."""
        return urlsplit(url)._replace(netloc=urlsplit(self.url).netloc).geturl()

    def grants(self, *names: str) -> list[Call]:
        return [call for call in self.calls if call.grant in names]

    def hold(self) -> asyncio.Event:
        """The answer to the next refresh or login, which the provider will have handled, waits for this event."""
        event = asyncio.Event()
        self._held.append(event)
        return event

    def presented(self) -> Counter[str]:
        """How often each refresh token was presented for a new pair."""
        return Counter(call.refresh_token for call in self.grants("refresh_token"))

    async def behave(self, wire: Wire) -> None:
        request = await wire.request()
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        grant = "logout" if request.target.endswith(b"/logout") else form.get("grant_type", "")
        call = Call(time.time(), grant, form.get("refresh_token", ""))
        self.calls.append(call)
        there = await dial(self._provider)
        try:
            there.send(request.raw)
            answer = await there.response()
        except (WireEndedError, TimeoutError):
            wire.close()
            return
        finally:
            there.close()
        call.status = answer.status
        self._remember(answer)
        loss = self.losses.pop(0) if self.losses and grant != "logout" else None
        if self._held and grant != "logout":
            await self._held.pop(0).wait()
        if loss is not None:
            await _lost(wire, answer, loss)
        elif not wire.ended.is_set():
            wire.send(answer.raw)
            call.passed = True
        wire.close()

    def _remember(self, answer: Message) -> None:
        with contextlib.suppress(ValueError, AttributeError):
            found = json.loads(answer.body)
            for name in ("access_token", "refresh_token"):
                if name in found:
                    self.tokens[f"{name} {len(self.tokens)}"] = found[name]


async def _lost(wire: Wire, answer: Message, loss: Loss) -> None:
    match loss:
        case "reset":
            wire.reset()
        case "half":
            wire.send(answer.head + answer.body[: len(answer.body) // 2])
        case "silence":
            await wire.ended.wait()
        case "502":
            wire.send(_BAD_GATEWAY)


@contextlib.asynccontextmanager
async def balancer(provider: str) -> AsyncIterator[Balancer]:
    """A running ``Balancer`` in front of the server at this URL, of which only scheme, host and port count."""
    parts = urlsplit(provider)
    made = Balancer(f"{parts.scheme}://{parts.netloc}")
    async with raw_server(made.behave) as raw:
        made.raw = raw
        yield made
        assert not raw.faults, raw.faults
