"""The Python interpreters that carry the gateway and the naive proxy: made ready, described, compared."""

import hashlib
import json
import sys
from pathlib import Path

from tests.bench.proc import PROXY_CORE, BenchError, run
from tests.bench.tools import CACHE
from tests.bench.upstream import REPOSITORY

# Compiled modules are kept, whatever the caller's environment says about it, and outside the checkout.
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(CACHE / "bytecode")}

_INTERPRETER = """
import json, platform, sysconfig, time
def spin():
    began = time.perf_counter(); total = 0
    for i in range(1000000): total += i & 7
    return time.perf_counter() - began
print(json.dumps({"version": platform.python_version(), "arguments": sysconfig.get_config_var("CONFIG_ARGS") or "",
                  "prefix": sysconfig.get_config_var("prefix"), "spin": min(spin() for _ in range(5))}))
"""


def describe(python: str) -> str:
    """Version, how it was built, and the time of a fixed loop, which shows the difference without trusting words."""
    found = json.loads(run([python, "-c", _INTERPRETER], core=PROXY_CORE))
    if "--enable-optimizations" in found["arguments"]:
        built = "built with --enable-optimizations"
    elif found["prefix"] == "/usr" and Path("/etc/debian_version").exists():
        built = "Debian's, which is built with profile-guided optimisation"
    else:
        built = "built without optimisations"
    return f"{found['version']}, {built}; a loop of 10⁶ additions takes {found['spin'] * 1000:.0f} ms"


def prepare(python: str) -> str:
    """An interpreter of python's kind with what the lock says and nothing more, as an image has it.

    What a contributor's environment holds beside (an editable install's finder, rich) would count against the start.
    """
    lock = REPOSITORY / "requirements.lock"
    mark = hashlib.sha256(f"{Path(python).resolve()}\n{lock.read_text()}".encode()).hexdigest()[:12]
    folder = CACHE / f"venv-{mark}"
    made = str(folder / "bin" / "python")
    if not (folder / "complete").exists():
        uv = str(Path(sys.executable).parent / "uv")
        run([uv, "venv", "-q", "--clear", "--python", python, str(folder)], timeout=300)
        run([uv, "pip", "install", "-q", "--python", made, "--require-hashes", "-r", str(lock)], timeout=600)
        (folder / "complete").touch()
    return made


def versions(python: str) -> dict[str, str]:
    """Versions of what the interpreter runs: aiohttp, and the gateway where ``python -m proxy --version`` works."""
    found = {"aiohttp": run([python, "-c", "import aiohttp; print(aiohttp.__version__)"]).strip()}
    try:
        found["proxy"] = run([python, "-m", "proxy", "--version"], cwd=REPOSITORY).split()[-1]
    except (BenchError, IndexError):
        return found
    return found
