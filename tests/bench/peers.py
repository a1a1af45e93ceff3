"""The proxies that are measured, and one running instance of each."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, Unpack

from tests.bench import interpreters, tools
from tests.bench.configs import Setup, caddy, gateway, haproxy, naive, nginx
from tests.bench.envoy import envoy
from tests.bench.proc import PROXY_CORE, Proc, free_port, spawn, wait_for
from tests.bench.upstream import REPOSITORY, Rig


class GatewaySettings(TypedDict, total=False):
    """What only a gateway is told, as in ``Setup``."""

    refresh: dict[str, object]
    routes: int
    shared: Path


@dataclass(frozen=True)
class Peer:
    """name: as in the tables. configure: writes the configuration into the folder, returns the command line."""

    name: str
    version: str
    configure: Callable[[Setup], list[str]]
    streams: bool = True
    env: dict[str, str] = field(default_factory=dict)

    def start(
        self,
        rig: Rig,
        *,
        upstream: int = 0,
        access_log: bool = False,
        core: int = PROXY_CORE,
        port: int = 0,
        **gateway: Unpack[GatewaySettings],
    ) -> "Running":
        """Starts an instance. upstream: another port than the fixed answers'. port: not just any free one."""
        folder = rig.folder / f"{self.name}-{free_port()}"
        folder.mkdir(mode=0o777, exist_ok=True)  # a port may come again
        folder.chmod(0o777)  # nginx's worker drops root and writes its log here
        log = folder / "access.log" if access_log else None
        setup = Setup(folder, port or free_port(), free_port(), upstream or rig.upstream, rig, log, **gateway)
        env = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), **self.env}
        argv = self.configure(setup)
        proc = spawn(argv, core=core, output=folder / "output", env=env, cwd=REPOSITORY)
        return Running(self, proc, setup.listen, log, setup.admin)


@dataclass(frozen=True)
class Running:
    """One instance. access_log: where it writes, when it does."""

    peer: Peer
    proc: Proc
    port: int
    access_log: Path | None
    admin: int

    def ready(self, path: str = "/", want: frozenset[int] = frozenset({200})) -> float:
        """Waits for the first good answer through the proxy; seconds."""
        return wait_for(self.proc, self.port, path, want)


def available(pythons: dict[str, str]) -> tuple[list[Peer], list[str]]:
    """The peers that can run here, and why each of the others cannot. pythons: name in the tables -> interpreter."""
    peers: list[Peer] = []
    absent: list[str] = []
    for name, configure in (("nginx", nginx), ("haproxy", haproxy), ("caddy", caddy), ("envoy", envoy)):
        reason = tools.missing(name)
        if reason:
            absent.append(reason)
        else:
            peers.append(Peer(name, tools.version(name), configure))
    for label, python in pythons.items():
        suffix = f" ({label})" if len(pythons) > 1 else ""
        packages = interpreters.versions(python)
        peers.append(
            Peer(
                f"naive{suffix}",
                f"aiohttp {packages['aiohttp']}",
                naive(python),
                streams=False,
                env=interpreters.ENVIRONMENT,
            )
        )
        if "proxy" in packages:
            peers.append(Peer(f"gateway{suffix}", packages["proxy"], gateway(python), env=interpreters.ENVIRONMENT))
        else:
            absent.append(f"the gateway does not start with {python}: python -m proxy --version failed")
    return peers, absent
