"""The one place that knows redis-py: a client made from a URL, its commands, and its errors in words.

``redis://``, ``rediss://`` and ``unix://`` are redis-py's own, with its options in the query (``?ssl_ca_certs=``,
``?db=``, …). Of ours: ``redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/SERVICE[/DB]`` and
``redis+cluster://USER:PASSWORD@HOST:PORT,HOST:PORT``, both also with ``rediss``; ``sentinel_username`` and
``sentinel_password`` in the query are for the sentinels.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, urlsplit

from redis import exceptions as failures
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from proxy import tls
from proxy.config import SecretValue
from proxy.errors import SecretError, StoreError
from proxy.tokens.stores.sealing import file_stamp
from proxy.tokens.stores.turns import whole

T = TypeVar("T")

TIMEOUT: Final = 1.5
"""Seconds to connect, and again for an answer. After that Redis counts as down."""
QUIET: Final = 1.0
"""Seconds for which a Redis that did not answer is not asked again: a renewal asks often, and somebody waits."""
_URL: Final = re.compile(r"(rediss?)\+(sentinel|cluster)://(?:([^@/?#]*)@)?([^@/?#]+)(/[^?#]*)?(\?[^#]*)?")
# uvloop raises a RuntimeError for a write on a connection that was reset, where asyncio raises an OSError.
FAILURES: Final = (failures.RedisError, failures.RedisClusterException, OSError, RuntimeError)
_ERRNO: Final = re.compile(r"Error (\d+) connecting")
_CODE: Final = re.compile(r"[A-Z]{3,20}\b")
_WORDS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (failures.AuthenticationError, "it refuses the user name or the password"),
    (failures.NoPermissionError, "its ACL does not allow the user a command or a key that the store needs"),
    (failures.BusyLoadingError, "it is still loading its data"),
    (failures.ReadOnlyError, "it is a replica that takes no writes"),
    (failures.OutOfMemoryError, "its memory is full (maxmemory)"),
    (failures.ClusterDownError, "the cluster is down"),
    (failures.TimeoutError, "no answer in time"),
)


@dataclass(frozen=True)
class Place:
    """Where Redis is. hosts: of Sentinel or Cluster; else empty. options: redis-py's, the password among them."""

    kind: str
    shown: str
    url: str = field(default="", repr=False)
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    options: dict[str, Any] = field(default_factory=dict, repr=False)


def parse_place(url: str) -> Place:
    """Raises ValueError in words that do not repeat the URL: it may hold a password."""
    if match := _URL.fullmatch(url):
        scheme, kind, user, hosts, path, query = match.groups()
        parts = [part for part in (path or "").split("/") if part]
        if len(parts) != 1 and kind == "sentinel" and (len(parts) != 2 or not parts[1].isdigit()):
            raise ValueError("expected redis+sentinel://HOST:PORT,HOST:PORT/SERVICE, or /SERVICE/DB")
        if kind == "cluster" and parts:
            raise ValueError("expected no path: a cluster has one database")
        port = 26379 if kind == "sentinel" else 6379
        options = dict(_parsed(f"redis://{f'{user}@' if user else ''}host/{''.join(parts[1:])}{query or ''}"))
        options |= {"ssl": True} if scheme == "rediss" else {}
        del options["host"]
        found = tuple(_host(host, port) for host in hosts.split(","))
        return Place(kind, f"{kind} {hosts}", hosts=found, service="".join(parts[:1]), options=options)
    parts_of = _split(url)
    if parts_of.scheme not in ("redis", "rediss", "unix"):
        raise ValueError("expected redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
    _parsed(url)
    return Place("single", parts_of.path if parts_of.scheme == "unix" else parts_of.netloc.rpartition("@")[2], url)


def _host(text: str, port: int) -> tuple[str, int]:
    parts = _split(f"//{text}")
    if not parts.hostname:
        raise ValueError("expected host:port, several of them joined by commas")
    return parts.hostname, parts.port or port


def _split(url: str) -> SplitResult:
    """Raises ValueError in words of ours: Python's own quote what it could not read."""
    try:
        parts = urlsplit(url)
        if parts.port != 0:
            return parts
    except ValueError:
        pass
    raise ValueError("expected host:port, a port from 1 to 65535")


def _parsed(url: str) -> Mapping[str, Any]:
    """redis-py's reading of a URL. Raises ValueError for an option's value that cannot be one."""
    try:
        return parse_url(url)
    except ValueError as exc:
        raise ValueError("an option in its query, or the database, has a value that redis-py does not take") from exc


def make_client(place: Place) -> tuple[Any, ...]:
    """A client that has not connected yet (Redis or RedisCluster; their commands' types are of no use), and those of
    its sentinels, to be closed with it. Raises ValueError for options that redis-py does not know."""
    # A connection from the pool may have been closed by the other side: once more, on a new one. Never after a timeout.
    broken: Any = (failures.ConnectionError, RuntimeError)  # see FAILURES; redis-py takes any, and declares its own
    common: dict[str, Any] = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "retry": Retry(NoBackoff(), 1, supported_errors=broken),
        "protocol": 2,
    }
    try:
        if place.kind == "cluster":
            nodes = [ClusterNode(host, port) for host, port in place.hosts]
            return (RedisCluster(startup_nodes=nodes, **{**common, **place.options}),)
        if place.kind == "sentinel":
            options = {**common, **place.options}
            theirs = {key.removeprefix("sentinel_"): options.pop(key) for key in list(options) if "sentinel_" in key}
            same = {
                key: value for key, value in options.items() if key.startswith(("ssl", "socket_", "protocol", "retry"))
            }
            sentinel: Any = Sentinel  # its constructor has no types
            manager = sentinel(place.hosts, sentinel_kwargs={**same, **theirs}, **options)
            clients = (manager.master_for(place.service), *manager.sentinels)
        else:
            clients = (Redis.from_url(place.url, **common),)
        pool = clients[0].connection_pool
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, *FAILURES) as exc:
        raise ValueError("an option in its query is not one of redis-py's") from exc
    return clients


class Link:
    """Commands to Redis. Every method raises StoreError when it is down. A cancelled caller leaves no command half
    done: redis-py would give its connection to the next one.

    State, of the event loop's thread: the client, made anew when the URL's file changes, and since when Redis is
    silent. mono: seconds of a steady clock.
    """

    def __init__(self, url: SecretValue, mono: Callable[[], float]) -> None:
        self._url = url
        self._mono = mono
        self._stamp = file_stamp(url.path) if url.path else None
        self._text = url.read()
        self._place = parse_place(self._text)
        self._clients = make_client(self._place)
        self._quiet_until = 0.0

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Any:  # noqa: ANN401 - Lua's
        """What the script answers."""
        return await self._asked(lambda client: client.eval(script, len(keys), *keys, *arguments))

    async def read(self, key: str, limit: int) -> bytes:
        """At most ``limit`` bytes of the key's string; empty when there is none."""
        found: bytes = await self._asked(lambda client: client.getrange(key, 0, limit - 1))
        return found

    async def keys(self, pattern: str) -> list[str]:
        async def collect(client: Any) -> list[str]:  # noqa: ANN401 - see make_client
            return [key.decode("utf-8", "replace") async for key in client.scan_iter(match=pattern, count=500)]

        return await self._asked(collect)

    @asynccontextmanager
    async def listening(self, channel: str) -> AsyncIterator[Callable[[float], Awaitable[bool]] | None]:
        """What waits for a message, at most so many seconds, and says whether one came; None where nothing tells of
        one: a cluster, or a user without the right to subscribe."""
        client = await self._current()
        if self._place.kind == "cluster":
            yield None
            return
        channels = client.pubsub()
        try:
            try:
                await whole(channels.subscribe(channel))
                # Subscribed is who has the confirmation: a message before it would be missed.
                await channels.get_message(timeout=TIMEOUT)
            except failures.NoPermissionError:
                yield None
                return
            except FAILURES as exc:
                raise self._down(exc) from exc

            async def message(seconds: float) -> bool:
                try:
                    return await channels.get_message(ignore_subscribe_messages=True, timeout=seconds) is not None
                except FAILURES as exc:
                    raise self._down(exc) from exc

            yield message
        finally:
            with suppress(*FAILURES):
                await whole(channels.aclose())

    async def close(self) -> None:
        for client in self._clients:
            with suppress(*FAILURES):
                await whole(client.aclose())

    async def _asked(self, command: Callable[[Any], Awaitable[T]]) -> T:
        if self._mono() < self._quiet_until:
            raise StoreError(f"Redis at {self._place.shown} did not answer a moment ago")
        client = await self._current()

        async def ask() -> T:
            return await command(client)

        try:
            return await whole(ask())
        except FAILURES as exc:
            if isinstance(exc, failures.TimeoutError | TimeoutError):
                self._quiet_until = self._mono() + QUIET
            raise self._down(exc) from exc

    async def _current(self) -> Any:  # noqa: ANN401 - see make_client
        """The client, of the URL as it is now. A changed one that cannot be used leaves the former in place."""
        if self._url.path is None:
            return self._clients[0]
        stamp = await asyncio.to_thread(file_stamp, self._url.path)
        if stamp != self._stamp and stamp is not None:
            self._stamp = stamp
            with suppress(SecretError, ValueError):
                text = await asyncio.to_thread(self._url.read)
                if text != self._text:
                    place = parse_place(text)
                    clients = make_client(place)
                    await self.close()
                    self._text, self._place, self._clients = text, place, clients
        return self._clients[0]

    def _down(self, exc: Exception) -> StoreError:
        """In words. What Redis says is not repeated: it quotes the arguments of commands that it does not know."""
        words = next((words for kind, words in _WORDS if isinstance(exc, kind)), None)
        cause: BaseException | None = exc
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None and (number := _ERRNO.match(str(exc))):
            cause = OSError(int(number[1]), os.strerror(int(number[1])))
        if words is None and cause is not None:
            words = tls.explain(cause).replace("ca_file", "ssl_ca_certs in the URL's query")
        elif words is None and isinstance(exc, failures.ConnectionError | RuntimeError):
            words = "the connection cannot be made, or broke"
        elif words is None:
            code = _CODE.match(str(exc))
            words = f"it refused a command ({code[0] if code else type(exc).__name__})"
        return StoreError(f"Redis at {self._place.shown} cannot be used: {words}")
