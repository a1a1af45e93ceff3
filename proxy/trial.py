"""What of a configuration only shows when it is put to use: files that hold no certificate or no key, a URL that the
store's library refuses. The same hands as at start, with nothing made and nobody asked."""

from collections.abc import Callable, Iterator
from functools import partial

from proxy import tls
from proxy.config import ClientTls, Config, RemoteIdentity, files_of
from proxy.counters import StoreMetrics
from proxy.errors import ConfigError, Fault
from proxy.tokens.stores import build_store


class _Silent:
    """What is no fault is said by who uses the store."""

    def warning(self, event: str, **fields: object) -> None:
        pass


def unusable(config: Config) -> list[Fault]:
    """Every fault that a start would end with, besides those of the configuration's own rules."""
    faults: list[Fault] = []
    for use in _uses(config):
        try:
            use()
        except ConfigError as error:
            faults += error.faults
    return faults


def tls_files(config: Config) -> Iterator[tuple[str, ClientTls]]:
    """The sections that name files, with their dotted paths."""
    found = [(f"routes.{index}.tls", route.tls) for index, route in enumerate(config.routes)]
    for name, identity in config.identities.items():
        if isinstance(identity, RemoteIdentity):
            found.append((f"identities.{name}.tls", identity.tls))
    yield from ((where, section) for where, section in found if files_of(section))


def _uses(config: Config) -> Iterator[Callable[[], object]]:
    if (listen := config.listen.tls) is not None:
        yield partial(tls.server_context, listen)
    for where, section in tls_files(config):
        yield partial(tls.client_context, section, where)
    if config.store.kind != "memory":
        yield partial(build_store, config.store, StoreMetrics(), _Silent(), look_only=True)
