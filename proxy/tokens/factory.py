"""Builds a keeper from its configuration: the one place of the wing that knows all its parts."""

import random
import ssl
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from uuid import uuid4

from proxy.config import (
    AgsIdentity,
    IdentityBase,
    KeycloakIdentity,
    OAuth2Identity,
    RemoteIdentity,
    SspIdentity,
    TokenEndpointIdentity,
    TokenFileIdentity,
    VeeamIdentity,
    files_of,
)
from proxy.errors import ConfigError, Fault
from proxy.metrics import Metrics
from proxy.tls import client_context
from proxy.tokens.clock import Clock, SystemClock
from proxy.tokens.custody import Custody
from proxy.tokens.exchanges import Exchanges
from proxy.tokens.keeper import Keeper
from proxy.tokens.ledger import EventLog, Ledger
from proxy.tokens.minting import Minting
from proxy.tokens.pair import Margins
from proxy.tokens.plan import Life
from proxy.tokens.renewal import Renewal
from proxy.tokens.sessions import Sessions
from proxy.tokens.stores.base import Store
from proxy.tokens.systems.ags import Ags
from proxy.tokens.systems.base import Local, System
from proxy.tokens.systems.keycloak import Keycloak
from proxy.tokens.systems.oauth2 import OAuth2, Proof
from proxy.tokens.systems.ssp import Ssp
from proxy.tokens.systems.token_file import TokenFile
from proxy.tokens.systems.veeam import Veeam
from proxy.tokens.transport import HttpTransport, NoTransport, Transport


def build_system(name: str, identity: IdentityBase, clock: Clock) -> System | Local:
    """The adapter. Raises ConfigError for a system that there is none of."""
    match identity:
        case KeycloakIdentity():
            return Keycloak(identity, _assertions(identity, clock))
        case OAuth2Identity():
            return OAuth2(identity, _assertions(identity, clock))
        case AgsIdentity():
            return Ags(identity)
        case VeeamIdentity():
            return Veeam(identity)
        case SspIdentity():
            return Ssp(identity)
        case TokenFileIdentity():
            return TokenFile(identity)
        case _:
            raise ConfigError([Fault(f"identities.{name}.system", "this system is not available yet")])


def _assertions(identity: TokenEndpointIdentity, clock: Clock) -> Proof | None:
    if identity.client_auth != "private_key_jwt":
        return None
    from proxy.tokens.systems.assertion import Assertions

    return Assertions(identity, lambda: clock.now().wall, lambda: str(uuid4()))


def build_keeper(
    name: str,
    identity: IdentityBase,
    *,
    store: Store,
    metrics: Metrics,
    log: EventLog,
    tls: ssl.SSLContext | None = None,
    explain: Callable[[BaseException], str] = str,
    clock: Clock | None = None,
    draw: Callable[[], float] = random.random,
    transport: Transport | None = None,
) -> Keeper:
    """A keeper that has done nothing yet: ``await keeper.start()``. tls and explain: ``proxy.tls`` made for the
    identity's ``tls``. draw: random numbers in [0, 1). transport: instead of HTTP."""
    clock = clock or SystemClock()
    system = build_system(name, identity, clock)
    ledger = Ledger(name, metrics.identity(name), metrics.store(store.kind), log, frozenset(identity.expect_roles))
    renewal: Renewal | Minting
    if isinstance(system, Local):
        transport = NoTransport()
        renewal = Minting(system, ledger, clock, timeout=identity.timeout)
    else:
        transport = transport or http_transport(identity, tls, explain)
        bound = binding(identity)
        custody = Custody(store, ledger, clock, binding=bound)
        logout = isinstance(identity, RemoteIdentity) and identity.logout
        sessions = Sessions(system, transport, ledger, clock, enabled=logout)
        exchanges = Exchanges(system, transport, ledger, clock)
        renewal = Renewal(exchanges, custody, sessions, ledger, clock, timeout=identity.timeout)
    return Keeper(
        Life(margins(identity), draw, can_login=isinstance(system, Local) or system.seed is None),
        renewal,
        transport,
        ledger,
        clock,
        header=identity.inject.header,
        scheme=identity.inject.scheme,
        timeout=identity.timeout,
    )


def http_transport(
    identity: IdentityBase, tls: ssl.SSLContext | None, explain: Callable[[BaseException], str]
) -> HttpTransport:
    assert isinstance(identity, RemoteIdentity)  # noqa: S101 (for the type checker: only a Local has no endpoint)
    return HttpTransport(
        identity.timeout,
        tls=tls,
        server_name=identity.tls.server_name,
        explain=explain,
        read_tls=partial(client_context, identity.tls) if files_of(identity.tls) else None,
        proxy=identity.proxy,
    )


def margins(identity: IdentityBase) -> Margins:
    refresh = identity.refresh
    return Margins(refresh.ahead, refresh.ahead_max, refresh.jitter, refresh.min_interval, refresh.idle_interval)


def binding(identity: IdentityBase) -> str:
    """Whom the configuration logs in as. A stored pair of another binding is somebody else's."""
    parts = (type(identity).__name__, *identity.binding)
    return sha256("\0".join(part or "" for part in parts).encode()).hexdigest()
