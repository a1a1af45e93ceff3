"""The image, built by ``.ci/image`` and buildah on a Debian of our own making, as no registry is needed for that.

``python -m tests.support.image`` makes the base ahead of a test run: by debootstrap, from the mirror that this
machine's apt uses. It is kept outside the checkout, read-only for every build.
"""

import configparser
import contextlib
import fcntl
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from proxy import __version__

ROOT: Final = Path(__file__).resolve().parents[2]
BASE: Final = "localhost/debian-python"
IMAGE: Final = f"localhost/opentv-auth-proxy:{__version__}"
PACKAGES: Final = ("python3", "python3-venv", "ca-certificates")
# What a published base comes without; and, as python:*-slim, without bytecode, so that it is the image's own that is
# tried. The list of sources names this machine's mirror.
_EMPTIED: Final = (
    *("var/cache/apt", "var/lib/apt/lists", "var/log", "etc/apt/sources.list"),
    *("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man"),
)
_TOOLS: Final = ("buildah", "debootstrap", "unshare", "setpriv")
# pip's options that say where packages come from; a CA bundle is a file, and goes beside them.
_PIP_OPTIONS: Final = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout", "retries")
_CA_IN_BUILD: Final = "/run/secrets/ca.pem"


class ImageMissingError(Exception):
    """No image can be built here; the words say what is missing."""


class CommandError(Exception):
    """A command failed; the words are its last."""


class Image:
    """A built image. root: its file system. config: as ``docker inspect`` shows it. added: bytes beyond the base."""

    def __init__(self, root: Path, description: Mapping[str, Any], layer_sizes: list[int]) -> None:
        self.root = root
        self.config: dict[str, Any] = description["config"]
        self.history: list[dict[str, Any]] = description["history"]
        self.added = sum(layer_sizes[1:])


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where the base is kept; another Debian or other packages make another folder."""
    system = platform.freedesktop_os_release()
    inputs = repr((PACKAGES, _EMPTIED, system["ID"], system.get("VERSION_CODENAME"), platform.machine())).encode()
    base = Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "opentv-auth-proxy" / f"image-base-{hashlib.sha256(inputs).hexdigest()[:12]}"


def ensure_base(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of a storage that holds BASE; ImageMissingError when it cannot be made."""
    _require_tools()
    folder = cache_folder(environ)
    with _lock(folder.parent / f"{folder.name}.lock"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
                try:
                    _make_base(Path(scratch))
                except CommandError as exc:
                    raise ImageMissingError(f"no base could be made for the image: {exc}") from exc
                (Path(scratch) / "storage").rename(folder)
    return folder


def _require_tools() -> None:
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        raise ImageMissingError(f"the image's tests need {', '.join(missing)}: apt-get install buildah debootstrap")
    if os.geteuid() != 0:
        raise ImageMissingError("the image's tests need root, for debootstrap and for mounts of their own")


@contextlib.contextmanager
def _lock(file: Path) -> Iterator[None]:
    """One test run builds, others wait for it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _mirror(codename: str) -> str:
    """Where this machine's apt gets its main packages from."""
    wanted = ("apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(SITE)", "Created-By: Packages")
    for line in _run(*wanted).splitlines():
        release, component, site = line.split(" ", 2)
        if (release, component) == (codename, "main"):
            return site
    raise ImageMissingError(f"apt has no source for {codename} main, so there is nothing to make a base from")


def _make_base(scratch: Path) -> None:
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    tree = scratch / "tree"
    include = f"--include={','.join(PACKAGES)}"
    # In mounts of its own: were it to fail amid its work, its /proc would be in the way of the cleaning up.
    _run("unshare", "--mount", "debootstrap", "--variant=minbase", include, codename, str(tree), _mirror(codename))
    for name in _EMPTIED:
        if (tree / name).is_dir():
            shutil.rmtree(tree / name)
            (tree / name).mkdir()
        else:
            (tree / name).unlink()
    for bytecode in tree.rglob("*.pyc"):
        bytecode.unlink()
    environ = _storage(scratch / "storage", scratch / "run", None)
    container = _run("buildah", "from", "scratch", environ=environ).strip()
    _run("buildah", "add", "--quiet", container, str(tree), "/", environ=environ)
    _run("buildah", "commit", "--quiet", "--rm", container, BASE, environ=environ)


def _storage(graph: Path, run: Path, base: Path | None) -> dict[str, str]:
    """The environment of a buildah whose images are in ``graph``, over those of the folder ``base``."""
    lines = ["[storage]", 'driver = "vfs"', f'graphroot = "{graph}"', f'runroot = "{run}"']
    if base is not None:
        lines += ["[storage.options]", f'additionalimagestores = ["{base}"]']
    file = run.with_suffix(".conf")
    file.write_text("\n".join(lines) + "\n")
    return {"CONTAINERS_STORAGE_CONF": str(file), "BUILDAH_ISOLATION": "chroot"}


@contextlib.contextmanager
def built(folder: Path, confidential: str, environ: Mapping[str, str] = os.environ) -> Iterator[Image]:
    """The image of this checkout; all that it took is in ``folder`` and gone at the end.

    confidential: text that is part of what the build is told as a secret. ImageMissingError when there is nothing to
    build with; CommandError when the build fails.
    """
    ours = _storage(folder / "storage", folder / "run", ensure_base(environ))
    try:
        options = ("--pull-never", f"--build-arg=BASE={BASE}", *_pip_secrets(folder, confidential))
        _run(".ci/image", *options, environ={**ours, "BUILDER": "buildah"})
        description = json.loads(_run("buildah", "inspect", "--type=image", IMAGE, environ=ours))
        container = _run("buildah", "from", "--pull-never", IMAGE, environ=ours).strip()
        root = Path(_run("buildah", "mount", container, environ=ours).strip())
        sizes = [layer["size"] for layer in json.loads(description["Manifest"])["layers"]]
        yield Image(root, description["Docker"], sizes)
    finally:
        shutil.rmtree(folder)


def _pip_secrets(folder: Path, confidential: str) -> Iterator[str]:
    """Options that let pip inside the build do as pip on this machine: the same index, the same authorities."""
    listed = dict(
        line.split("=", 1) for line in _run(sys.executable, "-m", "pip", "config", "list").splitlines() if "=" in line
    )
    settings = configparser.RawConfigParser()
    settings.read_dict({"global": {}})
    for scope in ("global", "install", ":env:"):  # the later one wins, as with pip
        for name in _PIP_OPTIONS:
            if value := listed.get(f"{scope}.{name}"):
                settings["global"][name] = value[1:-1].replace("\\n", "\n ")
    authorities = next(
        (listed[f"{scope}.cert"][1:-1] for scope in (":env:", "global") if f"{scope}.cert" in listed), ""
    )
    if authorities:
        settings["global"]["cert"] = _CA_IN_BUILD
        yield f"--secret=id=ca,src={authorities}"
    text = io.StringIO(f"# {confidential}\n")
    text.seek(0, io.SEEK_END)
    settings.write(text)
    file = folder / "pip.conf"
    file.touch(mode=0o600)
    file.write_text(text.getvalue())
    yield f"--secret=id=pip,src={file}"


def _run(*command: str, environ: Mapping[str, str] | None = None) -> str:
    """What it writes to stdout. Raises CommandError."""
    done = subprocess.run(  # noqa: S603 - the command is this file's own
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise CommandError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def main() -> int:
    try:
        folder = ensure_base()
    except ImageMissingError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
