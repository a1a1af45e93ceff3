"""One configured route, with everything worked out that does not depend on a request."""

from pathlib import Path
from typing import Final

from yarl import URL

from proxy import tls
from proxy.config import Route as RouteConfig
from proxy.config import files_of
from proxy.errors import ConfigError, Fault, SecretError
from proxy.gateway.detour import authorization
from proxy.gateway.headers import Origins, RequestRules
from proxy.gateway.paths import AllowList
from proxy.gateway.pool import UpstreamPool
from proxy.gateway.rejection import RejectionRules
from proxy.metrics import RouteMetrics
from proxy.tokens.source import TokenSource

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Route:
    """What the data path asks of a route. Immutable but for the pool and the numbers."""

    __slots__ = (
        "_asks_proxy",
        "_base",
        "_config",
        "_cut",
        "allow",
        "confined",
        "forwarded",
        "guarded",
        "host",
        "host_preserved",
        "idle_timeout",
        "label",
        "max_body",
        "metrics",
        "origins",
        "pool",
        "prefix",
        "rejected",
        "replay_limit",
        "response_timeout",
        "rules",
        "source",
    )

    def __init__(
        self, config: RouteConfig, *, source: TokenSource | None, pool: UpstreamPool, metrics: RouteMetrics
    ) -> None:
        url = URL(config.upstream)
        scheme, host, port = url.scheme, url.raw_host or "", url.port or _DEFAULT_PORTS[url.scheme]
        bare = f"[{host}]" if ":" in host else host
        base = url.raw_path.rstrip("/").encode("ascii")
        authority = bare if port == _DEFAULT_PORTS[scheme] else f"{bare}:{port}"
        self.label = config.path
        self.prefix = config.path.encode("ascii")
        # An HTTP proxy on the way is asked for the whole URL (RFC 9112 3.2.2); with TLS it only opens a tunnel.
        absolute = scheme == "http" and config.proxy.url is not None
        self._base = f"http://{authority}".encode("ascii") + base if absolute else base
        self._cut = len(self.prefix.rstrip(b"/")) if config.strip_prefix else 0
        self.host = authority.encode("ascii")
        self.host_preserved = config.host == "preserve"
        self.allow = AllowList(config.allow) if config.allow else None
        self.confined = bool(base) or self.prefix != b"/"
        self.guarded = self.allow is not None
        self.source = source
        self.pool = pool
        self.metrics = metrics
        self.rejected = RejectionRules(config.rejected.statuses, config.rejected.result_codes)
        self.replay_limit = config.replay_limit
        self.max_body = config.max_body
        self.response_timeout = config.timeouts.response
        self.idle_timeout = config.timeouts.idle
        self.forwarded = config.forwarded
        self._config = config
        self._asks_proxy = absolute
        self.rules = RequestRules(
            injected=source.header if source is not None else None,
            remove=[name.encode("ascii") for name in config.headers.remove],
            add=[(name.encode("ascii"), value.encode("latin-1")) for name, value in config.headers.set.items()],
        )
        try:
            self._read_proxy()
        except SecretError as error:
            raise ConfigError([Fault("routes", str(error))]) from None
        stripped = self.prefix.rstrip(b"/") if config.strip_prefix else b""
        self.origins = Origins(scheme, bare, port, base, stripped, host_preserved=self.host_preserved)

    def files_changed(self, changed: set[Path], where: str) -> None:
        """What files say of the way to the upstream is read anew where it changed. where: the route's place, for the
        faults. Raises ConfigError or SecretError, and keeps what it had, when one cannot be used."""
        if changed & files_of(self._config.tls):
            self.pool.renew(tls.client_context(self._config.tls, f"{where}.tls"))
        if changed & files_of(self._config.proxy):
            self._read_proxy()

    def _read_proxy(self) -> None:
        if self._asks_proxy:
            self.rules.for_proxy = authorization(self._config.proxy)

    def target(self, target: bytes) -> bytes:
        """The target for the upstream: the client's bytes, below the base path and without a stripped prefix."""
        if target == b"*":  # the server as a whole, which here is what lies below the base path
            return self._base or target
        if self._cut:
            target = target[self._cut :]
            if target[:1] != b"/":  # the prefix itself, or the prefix and a query
                target = b"/" + target
        return self._base + target if self._base else target
