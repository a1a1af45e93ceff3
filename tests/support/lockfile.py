"""Do the locks satisfy pyproject.toml, exact, hashed and without an address? ``python -m tests.support.lockfile``."""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13")

_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>.+))?")
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


class Lock:
    """One lock as pins by name (canonical), and what is wrong with its lines."""

    def __init__(self, text: str) -> None:
        self.pins: dict[str, list[tuple[str, Requirement]]] = {}
        self.faults: list[str] = []
        code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
        for entry in filter(None, code.replace("\\\n", " ").splitlines()):
            self._take(entry.split(" --hash=", 1)[0].strip(), entry)
        if "://" in text:
            self.faults.append("names an address")

    def _take(self, head: str, entry: str) -> None:
        pin = _PIN.fullmatch(head)
        if pin is None:
            self.faults.append(f"not an exact pin: {head}")
            return
        hashes = entry.split()[len(head.split()) :]
        if not hashes or not all(_HASH.fullmatch(word) for word in hashes):
            self.faults.append(f"not hashed with sha256: {head}")
        name = canonicalize_name(pin["name"])
        self.pins.setdefault(name, []).append((pin["version"], Requirement(head)))

    def version(self, name: str, python: str) -> str | None:
        """The version of ``name`` that an installer on Linux with this Python takes."""
        environment = _environment(python)
        for version, requirement in self.pins.get(canonicalize_name(name), []):
            if requirement.marker is None or requirement.marker.evaluate(environment):
                return version
        return None

    def unmet(self, wanted: list[str]) -> Iterator[str]:
        """Which requirement of pyproject.toml no pin meets, in words."""
        for requirement in map(Requirement, wanted):
            for python in PYTHONS:
                if requirement.marker is not None and not requirement.marker.evaluate(_environment(python)):
                    continue
                version = self.version(requirement.name, python)
                if version is None or not requirement.specifier.contains(version, prereleases=True):
                    yield f"pyproject.toml asks for {requirement}, the lock has {version or 'none'} on Python {python}"


def _environment(python: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
    }


def faults(root: Path = ROOT) -> list[str]:
    """Everything wrong with the two locks under ``root``, one line of words each."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    to_run = [*project["dependencies"], *extras["redis"]]
    runtime = Lock((root / "requirements.lock").read_text())
    dev = Lock((root / "requirements-dev.lock").read_text())
    found = [f"requirements.lock: {fault}" for fault in (*runtime.faults, *runtime.unmet(to_run))]
    wanted = [*to_run, *extras["dev"]]
    found += [f"requirements-dev.lock: {fault}" for fault in (*dev.faults, *dev.unmet(wanted))]
    found += [
        f"requirements-dev.lock: {name} differs from requirements.lock on Python {python}"
        for name in runtime.pins
        for python in PYTHONS
        if runtime.version(name, python) != dev.version(name, python)
    ]
    return found


def main() -> int:
    found = faults()
    for fault in found:
        sys.stderr.write(f"{fault}\n")
    if found:
        sys.stderr.write('The locks do not fit pyproject.toml: run "make lock" and commit what it writes.\n')
        return 1
    sys.stdout.write("The locks satisfy pyproject.toml.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
