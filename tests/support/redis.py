"""A real Redis for tests: Debian's ``redis-server``, on a free port of the loopback address, its data in a folder."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

PROGRAM = "redis-server"


class RedisServer:
    """options: of its command line, without the dashes. url: for clients, once it has been started.

    Keeps its port over ``stop`` and ``start``, and its data with ``appendonly="yes"``.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder = folder
        self.port = 0
        self._options = options
        self._file: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> "RedisServer":
        """Returns when it answers."""
        self.folder.mkdir(exist_ok=True)
        for _ in range(5):  # another process may take the port between the finding and the binding
            port = self.port or _free_port()
            self._process = subprocess.Popen(  # noqa: S603 - a program of the system, with words of our own
                [PROGRAM, *self._words(port)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
            if self._answers(port):
                self.port = port
                return self
            self.stop()
        raise AssertionError(f"{PROGRAM} does not answer; see {self.folder}")

    def with_tls(self, files: dict[str, str]) -> "RedisServer":
        """Not started yet: it will speak TLS only. files: options of its command line."""
        self.port = _free_port()
        self._options |= files | {"port": "0", "tls-port": str(self.port), "tls-auth-clients": "no"}
        return self

    def as_cluster(self) -> "RedisServer":
        """Not started yet: it will be a cluster of one."""
        self._options |= {"cluster-enabled": "yes", "cluster-port": str(_free_port())}
        return self

    def as_sentinel(self, service: str, port: int) -> "RedisServer":
        """Not started yet: it will be a sentinel of the server on ``port``."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "sentinel.conf").write_text(f"sentinel monitor {service} 127.0.0.1 {port} 1\n")
        self._file = [str(self.folder / "sentinel.conf"), "--sentinel"]
        return self

    def stop(self) -> None:
        """SIGTERM: it writes what it keeps, and ends."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """It accepts connections (the kernel does) and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *words: str) -> Any:
        """One command over a connection of its own, in the oldest form of the protocol; for replies of one line, of
        one string, and of lists of strings."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as link, link.makefile("rwb") as stream:
            parts = [f"*{len(words)}\r\n", *(f"${len(word.encode())}\r\n{word}\r\n" for word in words)]
            stream.write("".join(parts).encode())
            stream.flush()
            return _reply(stream)

    def values(self) -> dict[str, bytes]:
        """Every key with its content as Redis would write it to disk or send it to a replica."""
        return {key: self.ask("GET", key) for key in self.ask("KEYS", "*")}

    def _words(self, port: int) -> list[str]:
        options = {"port": str(port), "bind": "127.0.0.1", "dir": str(self.folder), "save": "", "logfile": "log"}
        words = [word for name, value in (options | self._options).items() for word in (f"--{name}", value)]
        return [*self._file, *words]

    def _answers(self, port: int) -> bool:
        until = time.monotonic() + 10
        while time.monotonic() < until and self._process is not None and self._process.poll() is None:
            try:
                # A port with TLS resets who speaks plainly, which is an answer too.
                with socket.create_connection(("127.0.0.1", port), 1) as link:
                    link.sendall(b"PING\r\n")
                    if not link.recv(64).startswith(b"-LOADING"):
                        return True
            except ConnectionResetError:
                return True
            except OSError:
                pass
            time.sleep(0.02)
        return False

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def need_redis() -> None:
    """A skip with what to install; in CI, and with REQUIRE_REDIS, a failure."""
    if shutil.which(PROGRAM) is None:
        words = f"{PROGRAM} is not installed (Debian, Ubuntu: apt-get install redis-server)"
        if os.environ.get("CI") or os.environ.get("REQUIRE_REDIS"):
            pytest.fail(words)
        pytest.skip(words)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _reply(stream: Any) -> Any:
    line = stream.readline().rstrip(b"\r\n")
    kind, rest = line[:1], line[1:]
    if kind == b"$":
        return None if rest == b"-1" else stream.read(int(rest) + 2)[:-2]
    if kind == b"*":
        return [item.decode() for item in (_reply(stream) for _ in range(int(rest)))]
    return int(rest) if kind == b":" else line.decode()
