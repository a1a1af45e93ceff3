"""``opentv-proxy store``: what the token store holds, by fingerprint and times; ``--forget NAME`` drops one."""

import sys
import time
from collections.abc import Iterator
from typing import Final

from proxy.checks.finding import ago
from proxy.config import Config, Loaded, RemoteIdentity, TokenEndpointIdentity
from proxy.config.faults import nearest
from proxy.counters import StoreMetrics
from proxy.errors import StoreError
from proxy.tokens.factory import binding
from proxy.tokens.pair import fingerprint, rfc3339
from proxy.tokens.stores import build_store
from proxy.tokens.stores.base import Store, StoredPair

DONE: Final = 0
FAILED: Final = 1
MISCONFIGURED: Final = 2


async def store(loaded: Loaded, forget: str | None) -> int:
    """Prints to stdout; what is wrong goes to stderr. 0 done, 1 the store cannot be used or read, 2 no such identity.

    Raises ConfigError.
    """
    config = loaded.config
    if config.store.kind == "memory":
        _say("store memory: the tokens are inside the running gateway, and gone with it; /status shows them")
        return DONE if forget is None else FAILED
    kept = build_store(config.store, StoreMetrics(), _Speaker(), look_only=True)
    try:
        return await (_show(config, kept) if forget is None else _forget(config, kept, forget))
    except StoreError as error:
        _say(str(error))
        return FAILED
    finally:
        await kept.close()


class _Speaker:
    """What the store would write into the log, for the person who asked."""

    @staticmethod
    def warning(event: str, **fields: object) -> None:
        _say(str(fields.get("words", event)))


async def _show(config: Config, kept: Store) -> int:
    code, blocks = DONE, []
    for name in sorted({*await kept.names(), *config.identities}):
        try:
            pair = await kept.load(name)
        except StoreError as error:
            _say(str(error))
            code = FAILED
            continue
        if pair is not None:
            blocks.append("\n".join(_lines(config, name, pair, time.time())))
    if blocks:
        print("\n\n".join(blocks))
    elif code == DONE:
        print(f"store {kept.kind}: nothing is stored")
    return code


async def _forget(config: Config, kept: Store, name: str) -> int:
    known = [*await kept.names(), *config.identities]
    if name not in known:
        _say(f"nothing is stored for {name!r}, and no identity has the name{nearest(name, known)}")
        return MISCONFIGURED
    there = name in await kept.names()
    await kept.delete(name)
    print(f"{name}: {'forgotten' if there else 'nothing was stored'}")
    if there:
        identity = config.identities.get(name)
        if isinstance(identity, TokenEndpointIdentity) and identity.grant == "refresh_token":
            _say("a running gateway refreshes the token in its memory and stores that; without one, the next start")
            _say("needs a seed that is not spent yet")
        else:
            _say("a running gateway logs in anew at its next renewal and logs the old session out; without one, that")
            _say("stays open at the provider until it idles out")
    return DONE


def _lines(config: Config, name: str, pair: StoredPair, now: float) -> Iterator[str]:
    yield f"identity     {name}{_whose(config, name, pair)}"
    yield f"fingerprint  {fingerprint(pair.access)}"
    yield f"obtained     {_at(pair.obtained, now)}"
    yield f"expires      {_at(pair.expires, now)}"
    yield f"refresh      {_at(pair.refresh_expires, now) if pair.refresh else 'no refresh token'}"
    ends = pair.session_ends
    yield f"session      since {_at(pair.session_began, now)}"
    yield f"             {f'ends {_at(ends, now)}' if ends is not None else 'its absolute end is not told'}"


def _whose(config: Config, name: str, pair: StoredPair) -> str:
    identity = config.identities.get(name)
    if identity is None:
        return " (no identity has this name now)"
    if isinstance(identity, RemoteIdentity) and pair.binding != binding(identity):
        return " (of another configuration of it: not used)"
    return ""


def _at(when: float | None, now: float) -> str:
    return "no known end" if when is None else f"{rfc3339(when)}, {ago(when - now)}"


def _say(words: str) -> None:
    print(f"opentv-proxy: {words}", file=sys.stderr)
