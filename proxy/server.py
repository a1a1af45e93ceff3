"""The composition root: the only place that wires things. Start, reload, drain.

What outlives a reload: the listeners, the numbers, every keeper whose identity did not change (a session is never lost
to a reload), every upstream pool whose route did not change. What a reload cannot change (addresses, the event loop,
the store) is said in the log.
"""

import asyncio
import gc
import signal
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from proxy import __version__, logs, tls
from proxy.admin import AdminServer
from proxy.assembly import Assembly, Parts, in_force, not_in_force
from proxy.config import Address, Config, ConfigFiles, Loaded, files_of, warnings
from proxy.descriptors import Descriptors
from proxy.errors import ConfigError, Fault, SecretError
from proxy.gateway.listener import Listener, listen
from proxy.gateway.service import Gateway
from proxy.metrics import Metrics
from proxy.overview import Overview
from proxy.sockets import bound, cannot_listen
from proxy.tokens.keeper import Keeper

WATCH_SECONDS: Final = 2.0
_NOTICE: Final = 0.2  # of shutdown.drain: not ready any more, yet accepting, until load balancers have seen it
_RETIRE_SECONDS: Final = 5.0  # requests signed by an identity that a reload took away may still be on their way


class Server:
    """One gateway process's content. ``load`` reads the configuration anew (SIGHUP).

    State, all of the event loop's thread: ``_parts``, what is at work; changed whole, under ``_changing``.
    """

    def __init__(self, loaded: Loaded, load: Callable[[], Loaded]) -> None:
        self._load = load
        self.metrics = Metrics(__version__)
        access_log = logs.setup(loaded.config.log.level, loaded.config.log.format, loaded.config.log.access)
        self._log = logs.get("proxy.server")
        self.gateway = Gateway(metrics=self.metrics, access_log=access_log, clock=time.monotonic)
        self._assembly = Assembly(self.metrics, loaded.config.store)
        self._parts = self._assembly.build(loaded.config)
        self._changing = asyncio.Lock()  # one start, reload or end at a time
        self._retiring: dict[str, Keeper] = {}
        self.files = ConfigFiles(self._log)
        self._descriptors = Descriptors()
        self._tls: ssl.SSLContext | None = None
        self._sockets: list[socket.socket] = []
        self._listeners: list[Listener] = []
        self._admin: AdminServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._overview = Overview(self, started_at=datetime.now(UTC))
        self.ready, self._ending, self.notice = False, False, _NOTICE
        self.reload_faults: Sequence[Fault] = ()  # of the last reload, if it was refused

    @property
    def config(self) -> Config:
        """What is in force."""
        return self._parts.config

    @property
    def keepers(self) -> dict[str, Keeper]:
        return self._parts.keepers

    # -- start --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Have the addresses, then begin to keep the tokens, then accept connections: a port that cannot be had must
        cost no login. Raises ConfigError or ProxyError."""
        asyncio.get_running_loop().set_exception_handler(self._descriptors.loop_exception)
        async with self._changing:
            try:
                await self._start(self.config)
            except BaseException:
                await self._end(drain=0)
                raise
        for words in (*warnings(self.config), *self._descriptors.provide(self.config)):
            self._log.warning("configuration", words=words)
        # What exists now lives as long as the process: not worth another look by the collector (docs/performance.md).
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 50, 50)

    async def _start(self, config: Config) -> None:
        if config.listen.tls is not None:
            self._tls = tls.server_context(config.listen.tls)
        self._sockets = await bound("listen", config.listen.address, reuse_port=config.listen.reuse_port)
        self._apply(self._parts)
        await self._start_admin(config.admin)
        for keeper in self.keepers.values():
            await keeper.start()
        await self._listen(config)
        self.files.watch(config)
        for work in (self.gateway.sweep_for_ever(), self._overview.sample_for_ever(), self._watch_files()):
            self._spawn(work)
        self.ready = True
        self.metrics.config_reload_at = time.time()

    async def _start_admin(self, address: Address) -> None:
        show = self._overview
        admin = AdminServer(*address, readiness=show, status=show, metrics=self.metrics, refresher=show)
        try:
            await admin.start()
        except OSError as exc:
            raise cannot_listen("admin", address, exc) from exc
        self._admin = admin

    async def _listen(self, config: Config) -> None:
        while self._sockets:
            try:
                listener = await listen(self.gateway, self._sockets.pop(0), self._tls)
            except OSError as exc:
                raise cannot_listen("listen", config.listen.address, exc) from exc
            self._listeners.append(listener)

    @property
    def urls(self) -> tuple[str, str]:
        """Where the proxied and the admin port listen."""
        host, port = self._listeners[0].sockets[0].getsockname()[:2] if self._listeners else self.config.listen.address
        admin_host, admin_port = self._admin.address if self._admin is not None else self.config.admin
        scheme = "https" if self.config.listen.tls is not None else "http"
        return f"{scheme}://{Address(host, port)}", f"http://{Address(admin_host, admin_port)}"

    # -- configuration ------------------------------------------------------------------------------------------

    def _apply(self, parts: Parts) -> None:
        self._parts = parts
        self.gateway.apply(parts.clients, parts.config.limits, parts.routes)
        self.metrics.retain([route.path for route in parts.config.routes], list(parts.keepers))

    async def _put_to_work(self, parts: Parts) -> None:
        """Instead of what is at work. Nothing here fails: what can was tried when the parts were built."""
        before = self.keepers
        for name in parts.new:
            await parts.keepers[name].start(before.get(name) or self._retiring.get(name))
        for pool, context in parts.renewed:
            pool.renew(context)
        self._apply(parts)
        for name, keeper in before.items():
            if parts.keepers.get(name) is not keeper:
                self._retiring[name] = keeper
                self._spawn(self._retire(name, keeper))

    async def _retire(self, name: str, keeper: Keeper) -> None:
        await asyncio.sleep(_RETIRE_SECONDS)
        await keeper.close()
        if self._retiring.get(name) is keeper:
            del self._retiring[name]

    async def reload(self) -> None:
        """SIGHUP. A wrong new configuration changes nothing and says why; a right one also ends every suspension."""
        async with self._changing:
            if self._ending:
                return
            try:
                wanted = self._load().config
                parts = self._assembly.build(in_force(wanted, self.config), self._parts)
                await self._put_to_work(parts)
            except ConfigError as error:
                self.metrics.config_reload_ok, self.reload_faults = False, error.faults
                for fault in error.faults:
                    self._log.error("reload refused", path=fault.path, words=fault.message)
                words = "the configuration in force stays; mend the file and send SIGHUP"
                self._log.error("reload refused", words=words)
                return
            except Exception as exc:  # noqa: BLE001 - whatever it is, the gateway serves on, and says so
                words = "an error inside the gateway; the configuration in force stays"
                self.metrics.config_reload_ok, self.reload_faults = False, [Fault("", words)]
                self._log.error("reload failed", words=words, exc_info=exc)
                return
            self._reloaded(wanted, parts.config)

    def _reloaded(self, wanted: Config, config: Config) -> None:
        self.metrics.config_reload_ok, self.reload_faults = True, ()
        self.metrics.config_reload_at = time.time()
        self.files.watch(config)
        self.gateway.access_log.flush()
        self.gateway.access_log = logs.setup(config.log.level, config.log.format, config.log.access)
        self._reload_listener_tls(config)
        for keeper in self.keepers.values():
            keeper.credentials_changed()
        for name in not_in_force(wanted, config):
            self._log.warning("reload", words=f"a change of {name} takes effect at the next start")
        for words in warnings(config):
            self._log.warning("configuration", words=words)
        self._log.info("reloaded", routes=len(config.routes), identities=len(config.identities))

    def _reload_listener_tls(self, config: Config) -> None:
        if self._tls is None or config.listen.tls is None:
            return
        try:
            tls.reload(self._tls, config.listen.tls)
        except ConfigError as error:
            self._log.error("listener certificate", words=str(error))

    # -- while it runs ------------------------------------------------------------------------------------------

    async def _watch_files(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            self._descriptors.look()
            changed = await asyncio.to_thread(self.files.poll)
            if changed:
                self._files_changed(changed)

    def _files_changed(self, changed: set[Path]) -> None:
        config = self.config
        if config.listen.tls is not None and changed & files_of(config.listen.tls):
            self._reload_listener_tls(config)
        if changed & files_of(config.clients):
            with suppress(SecretError):  # which of the files cannot be used has been told
                self._parts.clients.reload_secrets()
        for index, (route, at_work) in enumerate(zip(config.routes, self._parts.routes, strict=True)):
            try:
                at_work.files_changed(changed, f"routes.{index}")
            except (ConfigError, SecretError) as error:
                self._log.error("upstream certificate", route=route.path, words=str(error))
        for name, keeper in self.keepers.items():
            if changed & files_of(config.identities[name]):
                self._log.info("secret changed", identity=name)
                keeper.credentials_changed()

    def _spawn(self, work: Any) -> None:  # noqa: ANN401 - any coroutine
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the end ------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Readiness off, listeners closed, requests and refreshes finished, sessions of our own logged out (B13). Where
        anybody ever asked for readiness, the listeners close a share of the drain later than it goes."""
        self.ready, self._ending = False, True
        drain = self.config.shutdown.drain
        notice = self.notice * drain if self._overview.probed else 0.0
        self._log.info("shutting down", drain_s=drain)
        await self.gateway.give_notice(notice)
        self._close_listeners()
        async with self._changing:
            await self._end(drain - notice)
        self._log.info("stopped")

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        for sock in self._sockets:
            sock.close()

    async def _end(self, drain: float) -> None:
        self._close_listeners()
        await self.gateway.drain(drain)
        await asyncio.gather(*(keeper.close() for keeper in (*self.keepers.values(), *self._retiring.values())))
        await self._assembly.close()
        for task in list(self._tasks):
            task.cancel()
        if self._admin is not None:
            await self._admin.close()


async def serve(loaded: Loaded, load: Callable[[], Loaded] | None, announce: Callable[[Server], None]) -> None:
    """Run until SIGTERM or SIGINT. load: SIGHUP has it read the configuration again; None leaves SIGHUP what it is.
    announce is called once connections are accepted."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    server = Server(loaded, load or (lambda: loaded))

    def interrupted() -> None:
        """Ctrl-C: a person waits; once more ends the drain. A second SIGTERM means nothing: orchestrators repeat."""
        server.notice = 0.0
        server.gateway.hasten() if stop.is_set() else stop.set()

    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = loop.create_task(server.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    if load is not None:
        loop.add_signal_handler(signal.SIGHUP, reload)
    await server.start()
    try:
        if not stop.is_set():
            announce(server)
        await stop.wait()
    finally:
        await server.stop()
