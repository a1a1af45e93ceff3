"""The README does what it says: its commands are run, word for word, in a fresh copy of the checkout.

Only what a person's machine decides is set from outside: ports (another program may hold 8080), and which tests
``make test`` runs (these ones are among them; ``.ci/run`` runs that command whole). The environment that runs this
test stands in for the ``.venv`` that make would set up; ``.ci/run`` sets that one up from nothing.
"""

import asyncio
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import aiohttp
import jsonschema
import pytest
import yaml

from proxy.config import json_schema, load_config, warnings
from proxy.sandbox import Sandbox
from tests.support.gateway import environment, until

ROOT: Final = Path(__file__).resolve().parents[2]
README: Final = (ROOT / "README.md").read_text()
SITE: Final = "https://operator.example.com"

pytestmark = pytest.mark.timeout(600)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


COMMANDS: Final = [line for block in blocks("sh") for line in block.splitlines()]


def files(folder: Path) -> set[str]:
    """All files but the environment and what Python compiles."""
    return {
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and not {".venv", "__pycache__"} & set(file.relative_to(folder).parts)
    }


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What git knows or would take, in a place of its own."""
    copy = tmp_path / "opentv-auth-proxy"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    unpacked = (str(file.relative_to(ROOT)) for file in ROOT.rglob("*") if not {".git", ".venv"} & set(file.parts))
    for name in filter(None, listed.stdout.split("\0") if listed.returncode == 0 else unpacked):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    if sys.prefix != sys.base_prefix:
        venv = copy / ".venv"
        venv.mkdir()
        for entry in Path(sys.prefix).iterdir():
            if entry.suffix != ".installed":
                (venv / entry.name).symlink_to(entry)
        # A folder of its own, so that nothing make does to it reaches the environment it stands for.
        shutil.copy(copy / "requirements.lock", venv / "runtime.installed")
        shutil.copy(copy / "requirements-dev.lock", venv / "dev.installed")
    return copy


class Terminal:
    """One command as a person runs it: its lines as they come, and Ctrl-C."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.lines: list[str] = []
        self._process = process
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            self.lines.append(raw.decode().rstrip("\n"))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def says(self, pattern: str, seconds: float = 30) -> re.Match[str]:
        """Wait for a line."""
        expression = re.compile(pattern, re.MULTILINE)

        def there() -> bool:
            ended = self._reader.done()
            found = expression.search(self.text) is not None
            assert found or not ended, f"it ended without {pattern!r}:\n{self.text}"
            return found

        await until(there, seconds, f"a line {pattern!r}")
        found = expression.search(self.text)
        assert found is not None
        return found

    def ctrl_c(self) -> None:
        """A terminal tells the whole foreground process group."""
        os.killpg(self._process.pid, signal.SIGINT)

    async def ended(self, seconds: float = 60) -> int:
        """Its exit code, negative for the signal that ended it."""
        try:
            async with asyncio.timeout(seconds):
                await self._reader
                return await self._process.wait()
        except TimeoutError:
            raise AssertionError(f"not ended within {seconds} s:\n{self.text}") from None

    async def leave(self) -> None:
        """Whatever happened, nothing stays behind."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._reader
        await self._process.wait()


TypeIn = Callable[[str, Mapping[str, str]], Awaitable[Terminal]]


@pytest.fixture
async def type_in(checkout: Path) -> AsyncIterator[TypeIn]:
    """``await type_in(line, env)`` runs one command line in the checkout."""
    terminals: list[Terminal] = []

    async def typed(line: str, env: Mapping[str, str]) -> Terminal:
        # Without this run's own settings: pytest's, and those of a make that may have started it.
        mine = ("PYTEST", "MAKE", "MFLAGS", "ARGS", "VIRTUAL_ENV", "PYTHONPATH")
        inherited = {name: value for name, value in environment().items() if not name.startswith(mine)}
        process = await asyncio.create_subprocess_exec(
            *shlex.split(line),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=checkout,
            env={**inherited, **env},
            start_new_session=True,
        )
        terminals.append(Terminal(process))
        return terminals[-1]

    yield typed
    for terminal in terminals:
        await terminal.leave()


def configuration(site: str) -> str:
    (block,) = blocks("yaml")
    return block.replace(SITE, site)


def test_the_readme_holds_these_commands_and_no_other() -> None:
    """Each is run below; whoever adds one adds a test."""
    assert COMMANDS == [
        "make demo",
        "make test",
        ".venv/bin/python -m proxy check -c proxy.yaml",
        ".venv/bin/python -m proxy run -c proxy.yaml",
    ]
    inline = re.findall(r"`((?:make|curl|opentv-proxy|python3?|pip|\.venv/bin/\w+|kill|docker) [^`]+)`", README)
    assert [command for command in inline if command not in COMMANDS] == []


def test_its_configuration_has_ten_lines_and_is_valid(tmp_path: Path) -> None:
    """It loads without a fault and without a warning, and editors that know the schema agree."""
    file = tmp_path / "proxy.yaml"
    file.write_text(configuration(SITE))
    (tmp_path / "opentv_password").write_text("correct horse\n")
    loaded = load_config(file, {}, {})
    assert warnings(loaded.config) == []
    assert loaded.config.routes[0].upstream == SITE
    jsonschema.validate(yaml.safe_load(file.read_text()), json_schema())
    assert len(configuration(SITE).splitlines()) == 10


@pytest.mark.skipif(shutil.which("curl") is None, reason="the demo prints curl lines: apt-get install curl")
async def test_make_demo_prints_what_the_readme_shows_and_leaves_nothing(
    checkout: Path, type_in: TypeIn, tmp_path: Path
) -> None:
    """Every curl line it prints works when pasted, a refused token included; Ctrl-C ends it, and no file is left."""
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    before = files(checkout)
    places = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    demo = await type_in("make demo", {**places, "ARGS": "--listen 127.0.0.1:0 --admin 127.0.0.1:0"})
    await demo.says(r"^Ctrl-C ends it", seconds=300)
    await demo.says(r"token obtained")

    (shown,) = (block for block in blocks("text") if "Ctrl-C" in block)
    printed = demo.text[demo.text.index("opentv-proxy: proxy listening") :]
    assert without_ports(printed).startswith(without_ports(shown.rstrip()))

    answers = await asyncio.gather(*(pasted(type_in, line) for line in re.findall(r"curl -.*", shown_by(demo))))
    assert len(answers) == 4
    assert answers[0].startswith("HTTP/1.1 200 OK")
    assert '"resultCode":"0"' in answers[0]
    again = await pasted(type_in, re.findall(r"curl -i .*", shown_by(demo))[0])
    assert again.startswith("HTTP/1.1 200 OK"), "the sandbox has forgotten the token; a client must not notice"

    demo.ctrl_c()
    # make dies of the signal itself; how the gateway ended, its last lines say.
    assert await demo.ended() in (0, -signal.SIGINT)
    assert "Traceback" not in demo.text
    assert " stopped " in demo.lines[-1]
    assert files(checkout) == before
    assert files(tmp_path / "tmp") == set()
    assert [name for name in files(tmp_path / "home") if not name.startswith(".cache/")] == []


def shown_by(demo: Terminal) -> str:
    return demo.text[: demo.text.index("Ctrl-C ends it")]


def without_ports(text: str) -> str:
    return re.sub(r"(127\.0\.0\.1):\d+", r"\1:PORT", text)


async def pasted(type_in: TypeIn, line: str) -> str:
    """What a curl line prints, the answer's head included where it asks for it."""
    curl = await type_in(line, {})
    assert await curl.ended() == 0, curl.text
    text = curl.text
    return text[text.index("HTTP/1.1") :] if " -i " in line else text


async def test_make_test_collects_every_test(type_in: TypeIn) -> None:
    """The README's line, told by ``ARGS`` to stop before the tests run: this one is among them."""
    test = await type_in("make test", {"ARGS": "--collect-only -q --no-header"})
    assert await test.ended(500) == 0, test.text[-2000:]
    assert "tests/e2e/test_readme.py::test_make_test_collects_every_test" in test.lines
    assert {line.split("/")[1] for line in test.lines if "::" in line} >= {"unit", "contract", "integration", "e2e"}


def test_ci_runs_the_readmes_test_command_whole() -> None:
    assert "make test" in (ROOT / ".ci/run").read_text().splitlines()


async def test_check_and_run_serve_the_readmes_configuration(checkout: Path, type_in: TypeIn) -> None:
    """Against a platform of the same shape: check finds nothing wrong, run signs a request, Ctrl-C ends it with 0."""
    check_line, run_line = COMMANDS[2:]
    any_port = {"OPENTV_PROXY__LISTEN": "127.0.0.1:0", "OPENTV_PROXY__ADMIN": "127.0.0.1:0"}
    async with Sandbox() as sandbox, aiohttp.ClientSession() as client:
        (checkout / "proxy.yaml").write_text(configuration(sandbox.url))
        (checkout / "opentv_password").write_text(sandbox.password + "\n")
        check = await type_in(check_line, any_port)
        assert await check.ended() == 0, check.text
        assert "logged in as crm_client_user" in check.text

        run = await type_in(run_line, any_port)
        url = (await run.says(r"proxy listening on (\S+)"))[1]
        async with client.get(f"{url}/adm/v1/accounts/4711") as answer:
            assert answer.status == 200, await answer.text()
        run.ctrl_c()
        assert await run.ended() == 0, run.text
