"""Processes under measurement: started pinned to one core, their CPU and memory read for the whole process tree."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

PROXY_CORE = 0
LOAD_CORE = 1

# Linux builds the id of another process's CPU clock as ~pid << 3 with CPUCLOCK_SCHED (2) in the low bits, as
# clock_getcpuclockid(3) does: nanoseconds over all threads, dead ones included, not the 10 ms ticks of /proc/PID/stat.
_CPUCLOCK_SCHED = 2


class BenchError(Exception):
    """A measurement cannot be taken; the words say what was missing or went wrong."""


class Faults:
    """Who fell out of the run and why. A peer that failed once is left out of the rest of its scenario."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._out: set[tuple[str, str]] = set()

    def out(self, scenario: str, name: str) -> bool:
        return (scenario, name) in self._out

    @contextmanager
    def surviving(self, scenario: str) -> Iterator[None]:
        """Whatever goes wrong in one scenario is said, and the others are measured all the same."""
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - an hour's run must not be lost to one figure
            self.words.append(f"{scenario}: {type(exc).__name__}: {exc}")
            print(f"left out: {self.words[-1]}", file=sys.stderr, flush=True)

    @contextmanager
    def noting(self, scenario: str, name: str) -> Iterator[None]:
        try:
            yield
        except (BenchError, OSError, ValueError) as exc:
            self._out.add((scenario, name))
            self.words.append(f"{scenario}, {name}: {exc}")
            print(f"left out: {self.words[-1]}", file=sys.stderr, flush=True)


def spawn(
    argv: Sequence[str],
    *,
    core: int,
    output: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> "Proc":
    """Starts argv pinned to core, standard output and error appended to output."""
    with output.open("ab") as sink:
        child = subprocess.Popen(  # noqa: S603 - a benchmark runs fixed commands of its own, no one's input
            ["/usr/bin/taskset", "-c", str(core), *argv],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
    return Proc(child, output)


def run(argv: Sequence[str], *, core: int = LOAD_CORE, timeout: float = 120.0, cwd: Path | None = None) -> str:
    """Runs argv to its end on core and returns its standard output; BenchError with the end of its errors otherwise."""
    try:
        done = subprocess.run(  # noqa: S603 - fixed commands of the benchmark's own
            ["/usr/bin/taskset", "-c", str(core), *argv],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            cwd=cwd,
        )
    except subprocess.TimeoutExpired as exc:
        raise BenchError(f"{argv[0]} took longer than {timeout:g} s") from exc
    if done.returncode != 0:
        raise BenchError(f"{' '.join(argv[:3])} ended with {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout


class Proc:
    """One started process with its descendants. Owned by whoever spawned it, who must call ``stop``."""

    def __init__(self, child: "subprocess.Popen[bytes]", output: Path) -> None:
        self._child = child
        self.output = output

    @property
    def pid(self) -> int:
        return self._child.pid

    def tree(self) -> list[int]:
        """Process ids of this process and of everything below it."""
        found: list[int] = []
        queue = [self._child.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    queue.extend(int(word) for word in children.read_text().split())
                except OSError:
                    continue
        return found

    def cpu_ns(self) -> int:
        """CPU time of the tree, user and system, in nanoseconds."""
        total = 0
        for pid in self.tree():
            try:
                total += time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
            except OSError:
                continue
        return total

    def memory(self) -> tuple[int, int]:
        """Bytes of the tree: resident, and anonymous ones. Only the second are its own doing: the share of a library's
        pages falls when another process maps the same library."""
        resident = anonymous = 0
        for pid in self.tree():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            kib = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
            resident += kib["Rss:"] * 1024
            anonymous += kib["Pss_Anon:"] * 1024
        return resident, anonymous

    def alive(self) -> bool:
        return self._child.poll() is None

    def stop(self) -> None:
        """Ends the process: SIGTERM, after three seconds SIGKILL to what is left of the tree."""
        pids = self.tree()
        if self.alive():
            self._child.send_signal(signal.SIGTERM)
            try:
                self._child.wait(3)
            except subprocess.TimeoutExpired:
                for pid in pids:
                    _kill(pid)
        self._child.wait()

    def last_words(self) -> str:
        return self.output.read_text(errors="replace")[-1500:]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def ask(port: int, path: str, timeout: float = 2.0) -> int:
    """Status of one GET on a connection of its own; 0 where there is no answer."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            head = sock.recv(4096)
    except OSError:
        return 0
    words = head.split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def fetch(port: int, path: str) -> str:
    """The body of one GET."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def wait_for(proc: Proc, port: int, path: str, want: frozenset[int], timeout: float = 20.0) -> float:
    """Seconds until GET path answers with a status in want; BenchError with the process's last words otherwise."""
    began = time.monotonic()
    status = 0
    while time.monotonic() - began < timeout:
        status = ask(port, path)
        if status in want:
            return time.monotonic() - began
        if not proc.alive():
            break
        time.sleep(0.001)
    raise BenchError(f"no usable answer on port {port} (last status {status}): {proc.last_words()}")
