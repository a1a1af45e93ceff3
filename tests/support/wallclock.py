"""A wall clock that a test sets, for a process of its own: a preload library, compiled when it is first needed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_suffix(".c")


class WallClock:
    """env: of a process whose CLOCK_REALTIME, and nothing else, is off by what was ``set`` last."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            if os.environ.get("CI"):
                raise AssertionError("a wall clock that can be set needs a C compiler (Debian: gcc, libc6-dev)")
            pytest.skip("no C compiler (Debian: apt-get install gcc libc6-dev)")
        library, self._file = folder / "wallclock.so", folder / "shift"
        subprocess.run(  # noqa: S603 - a program of the system, with words of our own
            [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE)], check=True
        )
        self.env = {"LD_PRELOAD": str(library), "WALLCLOCK_SHIFT": str(self._file)}
        self.set(0)

    def set(self, seconds: int) -> None:
        """From now on the process's time is ours plus this."""
        self._file.write_text(str(seconds))
