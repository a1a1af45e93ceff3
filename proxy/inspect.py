"""``opentv-proxy token NAME``: one token, had for the purpose, and what it says of itself.

grant refresh_token: presenting the seed spends it where refresh tokens rotate, and with it the running gateway's
session. So it is presented only when asked for (``--spend-seed``).
"""

import json
import sys
from collections.abc import Iterator
from math import inf, isinf
from typing import Final

from proxy.checks.finding import ago, plain
from proxy.checks.visit import Visit, visit
from proxy.config import Config, IdentityBase, Loaded, RemoteIdentity, TokenEndpointIdentity
from proxy.config.faults import nearest
from proxy.config.web import without_query
from proxy.errors import ProxyError
from proxy.tokens import claims
from proxy.tokens.pair import TokenPair, rfc3339

DONE: Final = 0
FAILED: Final = 1
MISCONFIGURED: Final = 2


async def token(loaded: Loaded, name: str, *, raw: bool, spend_seed: bool = False) -> int:
    """Prints to stdout; words about the session go to stderr. 0 done, 1 no token, 2 no such identity.

    Raises ConfigError, SecretError.
    """
    config = loaded.config
    if name not in config.identities:
        _say(f"no identity has the name {name!r}{nearest(name, config.identities) or _listed(config)}")
        return MISCONFIGURED
    guest = visit(config, name)
    seed = guest.seed
    if seed is not None and not spend_seed:
        _say(
            f"the seed refresh token of {name} ({seed}) was not presented: where refresh tokens rotate, that would "
            "spend it and end the gateway's own session. The running gateway shows its token at /status; "
            "--spend-seed presents the seed all the same"
        )
        return FAILED
    try:
        return await _show(guest, raw=raw, seed=seed)
    finally:
        await guest.close()


async def _show(guest: Visit, *, raw: bool, seed: str | None) -> int:
    before = guest.identity.secret("refresh_token") if seed else None
    presented = before.read().strip() if before else None
    try:
        pair = await guest.login()
    except ProxyError as error:
        _say(str(error))
        return FAILED
    open_still = None if raw else await guest.logout()
    print(pair.access if raw else "\n".join(_lines(guest, pair)), flush=True)
    if seed is not None:
        kept = pair.refresh in (None, presented)
        _say("the seed stays good: the provider does not rotate it" if kept else f"the seed is spent: renew {seed}")
    elif raw and pair.refresh:
        _say("the session stays open, for the token to be used; it ends by itself after the provider's idle time")
    elif open_still:
        _say(f"the session stays open until it idles out: {open_still}")
    return DONE


def _lines(guest: Visit, pair: TokenPair) -> Iterator[str]:
    inside = claims.decode(pair.access)
    issued = claims.moment(inside, "iat") or pair.obtained.wall
    yield f"identity     {guest.name} ({_kind(guest.identity)})"
    yield f"fingerprint  {pair.fingerprint}"
    yield f"issued       {rfc3339(issued)}, {ago(issued - guest.now().wall)}"
    # The claim tells the second, the pair (which counts from the request) what is left of it.
    expires = claims.moment(inside, "exp") if pair.lifetime != inf else None
    left = ago(pair.expires - guest.now().mono)
    yield f"expires      {f'{rfc3339(expires)}, {left}' if expires else _until(guest, pair.expires, pair)}"
    yield f"refresh      {_until(guest, pair.refresh_expires, pair) if pair.refresh else 'no refresh token'}"
    ends = pair.session_ends
    yield f"session      {_until(guest, ends, pair) if ends is not None else 'its absolute end is not told'}"
    if pair.scope:
        yield f"scope        {plain(pair.scope, 1000)}"
    if not inside:
        yield "claims       none to be read: the token is opaque, no signed JWT"
        return
    yield f"roles        {', '.join(plain(role) for role in sorted(claims.roles(inside))) or 'none'}"
    yield f"claims       {json.dumps(inside, indent=2)}"


def _kind(identity: IdentityBase) -> str:
    match identity:
        case TokenEndpointIdentity():
            return f"grant {identity.grant}, client {identity.client_id}"
        case RemoteIdentity():
            return f"{identity.account} at {plain(without_query(identity.endpoint))}"
        case _:
            return "no provider is asked"


def _until(guest: Visit, end: float, pair: TokenPair) -> str:
    """end: on the pair's steady clock; shown as UTC and as seen from now."""
    if isinf(end):
        return "no known end"
    now = guest.now()
    return f"{rfc3339(pair.wall(end))}, {ago(end - now.mono)}"


def _listed(config: Config) -> str:
    return f"; there are: {', '.join(config.identities)}" if config.identities else "; none is configured"


def _say(words: str) -> None:
    print(f"opentv-proxy: {words}", file=sys.stderr)
