"""Who could reach what: the refusal to start as an open door, and what a running configuration warns of."""

import stat
from collections.abc import Iterator
from ipaddress import IPv6Network, collapse_addresses
from pathlib import Path
from urllib.parse import urlsplit

from proxy.config.identities import RemoteIdentity
from proxy.config.model import Clients, Config, Limits, Listen
from proxy.config.types import Address, Network, format_size
from proxy.errors import Fault

_SITE_LOCAL = (IPv6Network("fc00::/7"), IPv6Network("fe80::/10"))


def open_to_the_world(networks: list[Network]) -> bool:
    """Whether they hold more of the Internet than any one owner has: wider than an IPv4 /8 or an IPv6 /16.

    Neighbours are joined first, so that two halves of the world are the world.
    """
    four = collapse_addresses(network for network in networks if network.version == 4)
    six = collapse_addresses(network for network in networks if network.version == 6)
    return any(network.prefixlen < 8 for network in four) or any(
        network.prefixlen < 16 and not any(network.subnet_of(local) for local in _SITE_LOCAL) for network in six
    )


def has_credential(listen: Listen, clients: Clients) -> bool:
    """Whether a client has to show something: a password, a key, or a certificate."""
    certificates = listen.tls is not None and listen.tls.client_ca_file is not None
    return bool(clients.basic) or clients.api_keys is not None or certificates


def open_door(listen: Listen, clients: Clients) -> list[Fault]:
    """The gateway lends operator rights to whoever reaches it, so it refuses to start where everybody does."""
    if listen.address.is_loopback or clients.open or has_credential(listen, clients):
        return []
    words = (
        f"would let anyone use the gateway, as it listens on {listen.address} and asks for no credential: narrow it, "
        "configure clients.basic, clients.api_keys or listen.tls.client_ca_file, or set clients.open: true if meant"
    )
    return [
        Fault(f"clients.{name}", words)
        for name in ("allow_from", "trusted_proxies")
        if open_to_the_world(getattr(clients, name))
    ]


def same_port(listen: Listen, admin: Address) -> list[Fault]:
    """Status and refresh are never served on the proxied port."""
    address = listen.address
    overlap = address.host == admin.host or {"0.0.0.0", "::"} & {address.host, admin.host}  # noqa: S104 - compared
    if address.port and address.port == admin.port and overlap:
        return [Fault("admin", f"expected another port than that of listen ({address})")]
    return []


def sizes(limits: Limits) -> list[Fault]:
    """The request line is part of the head."""
    if limits.target_size > limits.head_size:
        return [Fault("limits.target_size", f"expected at most limits.head_size ({format_size(limits.head_size)})")]
    return []


def warnings(config: Config) -> list[str]:
    """What works but should not stay as it is, in words for the log at start and for ``check``."""
    return [*_client_side(config), *_identity_side(config), *_upstream_side(config)]


def open_key_file(path: Path) -> str:
    """Words for a store's key file that others may read now; "" where they may not, or it cannot be looked at.

    Group may read: that is how Kubernetes hands a secret to a process that is not root (fsGroup).
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return ""
    if not mode & 0o037:
        return ""
    words = f"the key file {path} is open to others (mode {mode:04o}): whoever reads it and the store has the tokens"
    return f"{words}; chmod 600 it (Kubernetes: defaultMode 0400, or 0440 with fsGroup)"


def _plain(url: str) -> bool:
    """Whether tokens or passwords sent to this URL can be read on the way."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not Address(parts.hostname or "", 0).is_loopback


def _client_side(config: Config) -> Iterator[str]:
    clients, listen = config.clients, config.listen
    if clients.open and not has_credential(listen, clients):
        yield "clients.open is true: whoever reaches the gateway from clients.allow_from uses it without a credential"
    if listen.tls is None and not listen.address.is_loopback and (clients.basic or clients.api_keys):
        yield f"listen: clients' passwords and keys cross the network in the clear to {listen.address}; set listen.tls"


def _identity_side(config: Config) -> Iterator[str]:
    used = {route.identity for route in config.routes}
    for name, identity in config.identities.items():
        path = f"identities.{name}"
        if isinstance(identity, RemoteIdentity) and not identity.tls.verify:
            yield f"{path}.tls.verify is false: whoever answers in the provider's place gets the credentials"
        if isinstance(identity, RemoteIdentity) and _plain(identity.endpoint):
            yield f"{path}: credentials and tokens cross the network in the clear over http://; use https://"
        if name not in used:
            yield f"{path} is used by no route"


def _upstream_side(config: Config) -> Iterator[str]:
    for index, route in enumerate(config.routes):
        path = f"routes.{index}"
        if not route.tls.verify:
            yield f"{path}.tls.verify is false: whoever answers in the upstream's place gets requests and tokens"
        if route.host == "preserve" and route.proxy.url is not None and route.upstream.startswith("http:"):
            yield f"{path}.host preserve: an HTTP proxy sends the name in the upstream's URL, whatever Host says"
        if route.identity is not None and _plain(route.upstream):
            yield f"{path}.upstream: the token crosses the network in the clear over http://; use https://"
        if "identity" not in route.model_fields_set and config.identities:
            yield f"{path} names no identity and forwards unsigned; write null there if that is meant"
