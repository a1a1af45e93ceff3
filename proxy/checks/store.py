"""The token store, looked at and left as it is: nothing of it is presented, locked or changed, for running gateways may
share it. What it holds is opened, to know that the keys fit; only a fingerprint and times of it are told."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from proxy.checks.finding import Finding, ago, hint, ok, problem
from proxy.config import Config, RemoteIdentity
from proxy.counters import StoreMetrics
from proxy.errors import StoreError
from proxy.tokens.factory import binding
from proxy.tokens.pair import fingerprint
from proxy.tokens.stores import build_store
from proxy.tokens.stores.base import Store, StoredPair

Tell = Callable[[Finding], None]
SUBJECT = "store"


class _Notes:
    """What the store has to say that is no failure: a key file that others may read."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def warning(self, event: str, **fields: object) -> None:
        finding, _, advice = str(fields.get("words", event)).partition("; ")
        self._tell(hint(SUBJECT, finding, advice=advice))


def opened(config: Config, tell: Tell) -> Store | None:
    """The store, of which nothing was asked yet; None for memory, and for one that cannot be used, after telling.

    Raises ConfigError where ``trial.unusable`` has faults.
    """
    if config.store.kind == "memory":
        return None
    kept = build_store(config.store, StoreMetrics(), _Notes(tell), look_only=True)
    found = list(_folder(config))
    for finding in found:
        tell(finding)
    return None if found else kept  # a file store has nothing open that would have to be closed


def _folder(config: Config) -> Iterator[Finding]:
    """Whether the file store's files can be made and replaced. A folder that is not there yet is made at start."""
    if config.store.file is None:
        return
    written = config.store.file.path
    path = Path(written).resolve()
    place = path if written.endswith("/") or path.is_dir() else path.parent
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if not there.is_dir():
        yield problem(SUBJECT, f"{there} is no folder", advice="name another place in store.file.path")
    elif not os.access(there, os.W_OK | os.X_OK, effective_ids=True):
        user = f"user {os.geteuid()}"
        yield problem(SUBJECT, f"{there} cannot be written", user, "give it to the user that the gateway runs as")
    elif not path.is_dir() and os.path.ismount(path):
        advice = "mount its folder: a file that is mounted by itself cannot be replaced"
        yield problem(SUBJECT, f"{path} is mounted by itself", advice=advice)


async def looked(config: Config, kept: Store, tell: Tell) -> dict[str, StoredPair]:
    """What is stored for the configured identities and would be used by them. ``kept`` is closed afterwards."""
    found: dict[str, StoredPair] = {}
    try:
        # Of no identity, so it changes nothing; but a Redis that takes no writes says so.
        if config.store.kind == "redis":
            await kept.delete(f"check-{token_hex(8)}")
        for name, identity in config.identities.items():
            pair = await kept.load(name)
            if pair is None or not isinstance(identity, RemoteIdentity):
                continue
            if pair.binding == binding(identity):
                found[name] = pair
            else:
                words = f"what is stored for {name} is of another endpoint, client or user: the gateway logs in anew"
                tell(hint(SUBJECT, words))
        tell(ok(SUBJECT, f"{_place(config)} can be used", _held(found)))
    except StoreError as error:
        finding, _, advice = str(error).partition("; ")
        tell(problem(SUBJECT, finding, advice=advice or f"check store.{config.store.kind}"))
    finally:
        with suppress(StoreError):
            await kept.close()
    return found


def _place(config: Config) -> str:
    return config.store.file.path if config.store.file is not None else config.store.kind.title()


def _held(found: dict[str, StoredPair]) -> str:
    now = time.time()
    told = (f"{name}: token {fingerprint(pair.access)}, {ago(pair.obtained - now)}" for name, pair in found.items())
    return "; ".join(told) or "no session is stored yet"
