"""One configured route, with everything worked out that does not depend on a request."""

from typing import Final

from yarl import URL

from proxy.config import Route as RouteConfig
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
        "_base",
        "_cut",
        "allow",
        "confined",
        "forwarded",
        "guarded",
        "host",
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
        self.label = config.path
        self.prefix = config.path.encode("ascii")
        self._base = base
        self._cut = len(self.prefix.rstrip(b"/")) if config.strip_prefix else 0
        # None: the client's own Host is preserved.
        authority = bare if port == _DEFAULT_PORTS[scheme] else f"{bare}:{port}"
        self.host = authority.encode("ascii") if config.host == "upstream" else None
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
        self.rules = RequestRules(
            injected=source.header if source is not None else None,
            remove=[name.encode("ascii") for name in config.headers.remove],
            add=[(name.encode("ascii"), value.encode("latin-1")) for name, value in config.headers.set.items()],
        )
        self.origins = Origins(scheme, bare, port, base, self.prefix.rstrip(b"/") if config.strip_prefix else b"")

    def target(self, target: bytes) -> bytes:
        """The target for the upstream: the client's bytes, below the base path and without a stripped prefix."""
        if target == b"*":  # the server as a whole, which here is what lies below the base path
            return self._base or target
        if self._cut:
            target = target[self._cut :]
            if target[:1] != b"/":  # the prefix itself, or the prefix and a query
                target = b"/" + target
        return self._base + target if self._base else target
