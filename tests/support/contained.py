"""A container without a container engine: an image's root, read-only, and in it one process, the image's user, that has
no capability and can gain none. It is process 1 of its namespace, as in a container; the network is the host's.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.support.image import Image
from tests.support.process import Process

# $1: the root; then pairs of a host's path and its place in the container, read-only; after "--" the command. As an
# engine does, it makes the places in the root before that is read-only.
_ENTER: Final = """
root=$1; shift
mount --bind "$root" "$root"
while [ "$1" != -- ]; do
    place=$root$2
    mkdir -p "$(dirname "$place")"
    if [ -d "$1" ]; then mkdir -p "$place"; else touch "$place"; fi
    mount --bind "$1" "$place"
    mount -o remount,bind,ro "$place"
    shift 2
done
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
shift
exec chroot "$root" "$@"
"""
_POWERLESS: Final = (
    "--clear-groups",
    "--no-new-privs",
    "--inh-caps=-all",
    "--ambient-caps=-all",
    "--bounding-set=-all",
)


class Contained(Process):
    """Signals reach the process inside, as ``docker stop``'s do."""

    @property
    def pid(self) -> int:
        """Of the process inside, as the host counts."""
        outer = super().pid
        children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        return int(children[0])

    def send(self, number: signal.Signals) -> None:
        if self.code is None:
            with contextlib.suppress(IndexError, ProcessLookupError, FileNotFoundError):
                os.kill(self.pid, number)


def _words(
    image: Image, arguments: Sequence[str], entrypoint: Sequence[str] | None, env: Mapping[str, str]
) -> list[str]:
    uid, gid = image.config["User"].split(":")
    command = [*image.config["Entrypoint"], *(arguments or image.config["Cmd"])]
    if entrypoint is not None:
        command = [*entrypoint, *arguments]
    variables = [*image.config["Env"], *(f"{name}={value}" for name, value in env.items())]
    user = (f"--reuid={uid}", f"--regid={gid}")
    return ["setpriv", *user, *_POWERLESS, "--", "env", "-i", *variables, *command]


@contextlib.asynccontextmanager
async def contained(
    image: Image,
    *arguments: str,
    entrypoint: Sequence[str] | None = None,
    mounts: Mapping[str, Path] | None = None,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Contained]:
    """As ``docker run``: the image's entrypoint with these arguments, or with the image's own; killed at the end.

    mounts: place in the container → the host's file or folder.
    """
    binds = [word for place, path in (mounts or {}).items() for word in (str(path), place)]
    started = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", _ENTER, "sh", str(image.root)),
        *binds,
        "--",
        *_words(image, arguments, entrypoint, env or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    process = Contained(started)
    try:
        yield process
    finally:
        process.send(signal.SIGKILL)
        await process.ended()
