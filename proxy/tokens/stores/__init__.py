"""Where pairs are kept: one contract (``base``), three stores."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from proxy.config import FileStore as FileSection
from proxy.config import RedisStore as RedisSection
from proxy.config import Store as Section
from proxy.counters import StoreMetrics, StoreOperation
from proxy.errors import ConfigError, Fault, SecretError, StoreError
from proxy.tokens.stores.base import Note, Store
from proxy.tokens.stores.memory import MemoryStore

Warn = Callable[[str], None]


class Log(Protocol):
    """What a store needs of a structlog logger."""

    def warning(self, event: str, **fields: object) -> object: ...


def build_store(config: Section, metrics: StoreMetrics, log: Log, *, look_only: bool = False) -> Store:
    """The store that the configuration asks for. metrics: of its kind. look_only: for a command that shows it; makes
    nothing, and sets nothing aside that cannot be read (its key file may be the wrong one).

    Asks nothing of a Redis, which may be down. Raises ConfigError for keys, a place or a URL that cannot be used.
    """

    def note(operation: StoreOperation, identity: str, words: str) -> None:
        metrics.count_error(operation)
        if metrics.is_news(operation, identity, words):
            log.warning("store failed", identity=identity, operation=operation, words=words)

    def warn(words: str) -> None:
        log.warning("configuration", words=words)

    if config.file is not None:
        return _file(config.file, note, warn, look_only=look_only)
    if config.redis is not None:
        return _redis(config.redis, note, warn, look_only=look_only)
    return MemoryStore()


# What a store is made of is imported where it is asked for: most gateways need neither, and it takes time at start.


def _file(config: FileSection, note: Note, warn: Warn, *, look_only: bool) -> Store:
    from proxy.tokens.stores.file import FileStore
    from proxy.tokens.stores.sealing import Keyring, Sealer
    from proxy.tokens.stores.shelf import Shelf

    path = Path(config.path)
    try:
        sealer = Sealer(Keyring(config.key_file, warn))
    except SecretError as error:
        raise ConfigError([Fault("store.file.key_file", str(error))]) from error
    folder = config.path.endswith("/") or path.is_dir()
    shelf = Shelf(path, folder=folder, sealer=sealer, note=note, look_only=look_only)
    try:
        shelf.prepare()
    except StoreError as error:
        raise ConfigError([Fault("store.file.path", str(error))]) from error
    return FileStore(shelf, note)


def _redis(config: RedisSection, note: Note, warn: Warn, *, look_only: bool) -> Store:
    from proxy.tokens.stores.sealing import Keyring, Sealer

    try:
        from proxy.tokens.stores.link import Link
        from proxy.tokens.stores.redis import RedisStore
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] != "redis":
            raise
        words = "needs the library redis: pip install 'opentv-auth-proxy[redis]'"
        raise ConfigError([Fault("store.redis", words)]) from exc
    try:
        sealer = Sealer(Keyring(config.key_file, warn))
    except SecretError as error:
        raise ConfigError([Fault("store.redis.key_file", str(error))]) from error
    url, key = config.secret("url"), "url_file" if config.url_file else "url"
    assert url is not None  # noqa: S101 - for the type checker: exactly one of the two is configured

    def mono() -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    try:
        return RedisStore(Link(url, mono), sealer, config.prefix, note, mono=mono, look_only=look_only)
    except (SecretError, ValueError) as error:
        raise ConfigError([Fault(f"store.redis.{key}", str(error))]) from error
