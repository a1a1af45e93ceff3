"""A Keycloak that boots in seconds: fetched, built and booted once, kept outside the checkout, copied for each use.

What costs time is paid once: the download (159 MB), the optimised build, and the first boot with its schema.
``python -m tests.support.keycloak_build`` does that ahead of a test run.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path

VERSION = "26.4.7"
BASE_PATH = "/keycloak/auth"
ADMIN = PASSWORD = "admin"
# A client certificate is asked for, so that a client may prove itself with one, and not demanded.
BUILD = ("build", "--db=dev-file", f"--http-relative-path={BASE_PATH}", "--https-client-auth=request")
START = (
    *("start", "--optimized", "--cache=local", "--http-enabled=true", "--http-host=127.0.0.1"),
    *("--hostname-strict=false", "--log-level=WARN"),
)
# A short-lived server gains nothing from the second compiler and from a parallel collector, and 2 cores lose by them.
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:-UseG1GC -XX:+UseSerialGC"
COPIED = ("bin", "conf", "data")
LINKED = ("lib", "providers", "themes", "version.txt")


class KeycloakMissingError(Exception):
    """There is no Keycloak to be had here; the words say what to install."""


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where the built server is kept; another version or other build options make another folder."""
    inputs = repr((VERSION, BUILD, START, JAVA_OPTIONS)).encode()
    base = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "opentv-auth-proxy" / f"keycloak-{VERSION}-{hashlib.sha256(inputs).hexdigest()[:12]}"


def ensure_built(environ: Mapping[str, str] = os.environ) -> Path:
    """The built server's folder; KeycloakMissingError when it cannot be made."""
    folder = cache_folder(environ)
    if shutil.which("java") is None:
        raise KeycloakMissingError("Keycloak needs Java 17 or newer: apt-get install openjdk-17-jre-headless")
    with _lock(folder.parent / f"{folder.name}.lock"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                home = _unpack(_fetch(Path(scratch)), Path(scratch))
                _run([str(home / "bin/kc.sh"), *BUILD], "build Keycloak")
                first = Process(home, [], home / "data")
                first.wait_ready(180.0)
                first.stop()
                home.rename(folder)
    return folder


@contextlib.contextmanager
def _lock(file: Path) -> Iterator[None]:
    """One test run builds, others wait for it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _fetch(folder: Path) -> Path:
    if shutil.which("mvn") is None:
        raise KeycloakMissingError("Keycloak is fetched by Maven: apt-get install maven")
    artifact = f"org.keycloak:keycloak-quarkus-dist:{VERSION}:tar.gz"
    command = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"]
    _run(command, "fetch Keycloak")
    return folder / f"keycloak-quarkus-dist-{VERSION}.tar.gz"


def _unpack(archive: Path, folder: Path) -> Path:
    # Not tarfile: its filters came with 3.11.4, and Debian 12 has 3.11.2.
    _run(["tar", "xzf", str(archive), "-C", str(folder)], "unpack Keycloak")
    archive.unlink()
    return folder / f"keycloak-{VERSION}"


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(  # noqa: S603 - the command is this file's own
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise KeycloakMissingError(f"could not {what}: {' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def copy_for_use(built: Path, folder: Path) -> Path:
    """An instance of its own in ``folder``: what changes is copied, what does not is linked."""
    folder.mkdir(parents=True)
    for name in COPIED:
        shutil.copytree(built / name, folder / name)
    for name in LINKED:
        (folder / name).symlink_to(built / name)
    return folder


class Process:
    """One running server. options: further ones of ``kc.sh start``. The log is in ``logs/keycloak.out``."""

    def __init__(self, home: Path, options: list[str], logs: Path, port: int | None = None) -> None:
        self.port = port or free_port()
        self.log = logs / "keycloak.out"
        environment = {
            **os.environ,
            "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN,
            "KC_BOOTSTRAP_ADMIN_PASSWORD": PASSWORD,
            "JAVA_OPTS_APPEND": JAVA_OPTIONS,
        }
        logs.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            # kc.sh stays as a shell above Java: only a group of their own lets a signal reach both.
            self._process = subprocess.Popen(  # noqa: S603 - the command is this file's own
                [str(home / "bin/kc.sh"), *START, f"--http-port={self.port}", *options],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def wait_ready(self, seconds: float) -> float:
        """Until it answers over HTTP; the seconds that took."""
        begun = time.monotonic()
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() - begun > seconds:
                self.kill()
                raise KeycloakMissingError(f"Keycloak did not start:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.1)
        return time.monotonic() - begun

    def answers(self) -> bool:
        """Does it serve its master realm now?"""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", f"{BASE_PATH}/realms/master")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to Java and the shell above it."""
        self._signal(signal.SIGKILL)
        self._process.wait(30)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def free_port() -> int:
    """A port that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.stdout.write(f"{ensure_built()}\n")
