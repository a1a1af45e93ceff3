"""The parts that a configuration asks for, built and not yet at work. What can fail fails here, where nothing has
changed: a refused configuration leaves no keeper, no pool and no series behind."""

import ssl
from dataclasses import dataclass, field

from yarl import URL

from proxy import logs, tls
from proxy.config import ClientTls, Config, IdentityBase, ListenTls, RemoteIdentity, files_of
from proxy.config import Route as RouteConfig
from proxy.config import Store as StoreConfig
from proxy.config.safety import open_door
from proxy.errors import ConfigError
from proxy.gateway.clients import Clients
from proxy.gateway.pool import UpstreamPool
from proxy.gateway.route import Route
from proxy.metrics import Metrics
from proxy.tokens.factory import build_keeper
from proxy.tokens.keeper import Keeper
from proxy.tokens.stores import build_store


@dataclass
class Parts:
    """config: what is in force, which differs from what was read where a reload cannot follow (``in_force``). new:
    names of keepers that are to be started. renewed: for pools that stay, their TLS files as they are now. trusting:
    by ``verify``, the TLS context of all that have no files of their own: the system's authorities take 18 ms and
    0.6 MiB each time they are read."""

    config: Config
    clients: Clients
    keepers: dict[str, Keeper] = field(default_factory=dict)
    routes: list[Route] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    renewed: list[tuple[UpstreamPool, ssl.SSLContext]] = field(default_factory=list)
    trusting: dict[bool, ssl.SSLContext] = field(default_factory=dict)

    def context(self, settings: ClientTls, where: str) -> ssl.SSLContext:
        """For a client's side of TLS. Raises ConfigError."""
        if files_of(settings):
            return tls.client_context(settings, where)
        if settings.verify not in self.trusting:
            self.trusting[settings.verify] = tls.client_context(settings, where)
        return self.trusting[settings.verify]


class Assembly:
    """Builds ``Parts``. store: where tokens are kept, the same as long as the process lives. Raises ConfigError."""

    def __init__(self, metrics: Metrics, store: StoreConfig) -> None:
        self._metrics = metrics
        # Its series exist from the start, whether or not anything is kept in it.
        self._store = build_store(store, metrics.store(store.kind), logs.get("proxy.tokens"))

    def build(self, config: Config, running: Parts | None = None) -> Parts:
        """Parts for ``config``, with those of ``running`` that it leaves as they are. Raises ConfigError."""
        take_back = self._metrics.checkpoint()
        try:
            if config.listen.tls is not None:
                tls.server_context(config.listen.tls)
            certificates = config.listen.tls is not None and config.listen.tls.client_ca_file is not None
            parts = Parts(config, Clients(config.clients, listen_has_client_ca=certificates))
            for name, identity in config.identities.items():
                self._keep(name, identity, parts, running)
            for route in config.routes:
                self._route(route, parts, running)
        except BaseException:
            take_back()
            raise
        return parts

    async def close(self) -> None:
        """After the keepers."""
        await self._store.close()

    def _keep(self, name: str, identity: IdentityBase, parts: Parts, running: Parts | None) -> None:
        if running is not None and running.config.identities.get(name) == identity:
            parts.keepers[name] = running.keepers[name]
            return
        parts.keepers[name] = build_keeper(
            name,
            identity,
            store=self._store,
            metrics=self._metrics,
            log=logs.get("proxy.tokens"),
            tls=_token_tls(name, identity, parts),
            explain=tls.explain,
        )
        parts.new.append(name)

    def _route(self, config: RouteConfig, parts: Parts, running: Parts | None) -> None:
        url = URL(config.upstream)
        metrics = self._metrics.route(config.path)
        key = (config.path, config.upstream, config.tls, config.timeouts.connect, config.max_connections, config.proxy)
        pool = next((old.pool for old in (running.routes if running else ()) if old.pool.key == key), None)
        context = None
        if url.scheme == "https" and (pool is None or files_of(config.tls)):
            context = parts.context(config.tls, f"routes.{len(parts.routes)}.tls")
        if pool is None:
            pool = UpstreamPool(
                url.host or "",
                url.port or (443 if url.scheme == "https" else 80),
                key=key,
                context=context,
                server_name=config.tls.server_name,
                limit=config.max_connections,
                timeout=config.timeouts.connect,
                metrics=metrics,
                proxy=config.proxy if config.proxy.url is not None else None,
            )
        elif context is not None:
            parts.renewed.append((pool, context))
        source = parts.keepers[config.identity] if config.identity is not None else None
        parts.routes.append(Route(config, source=source, pool=pool, metrics=metrics))


def _token_tls(name: str, identity: IdentityBase, parts: Parts) -> ssl.SSLContext | None:
    """Reading the system's authorities takes time at start; plain HTTP needs none."""
    if isinstance(identity, RemoteIdentity) and identity.endpoint.startswith("https:"):
        return parts.context(identity.tls, f"identities.{name}.tls")
    return None


def in_force(wanted: Config, running: Config) -> Config:
    """``wanted`` as far as a running process can follow. Raises ConfigError when that would be an open door.

    Sockets, their asking for certificates, the store and the event loop stay. So ``wanted`` is judged again with the
    listener that there is: clients without a credential may be right for the loopback address that it names, and wrong
    for the one that still listens.
    """
    listen = running.listen.model_copy(update={"tls": _listener_tls(wanted.listen.tls, running.listen.tls)})
    if faults := open_door(listen, wanted.clients):
        raise ConfigError(faults)
    stays = {"listen": listen, "admin": running.admin, "store": running.store, "uvloop": running.uvloop}
    return wanted.model_copy(update=stays)


def not_in_force(wanted: Config, config: Config) -> list[str]:
    """Sections of which something takes effect only at the next start."""
    return [name for name in ("listen", "admin", "store", "uvloop") if getattr(wanted, name) != getattr(config, name)]


def _listener_tls(wanted: ListenTls | None, running: ListenTls | None) -> ListenTls | None:
    if wanted is None or running is None:
        return running
    if (wanted.client_ca_file is None) == (running.client_ca_file is None):
        return wanted
    return wanted.model_copy(update={"client_ca_file": running.client_ca_file})
