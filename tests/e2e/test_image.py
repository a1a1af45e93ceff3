"""The image: really built, then run from its own root as an engine runs it that gives it nothing."""

import contextlib
import filecmp
import json
import os
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import distributions
from pathlib import Path
from signal import SIGTERM

import aiohttp
import pytest
from packaging.utils import canonicalize_name

from proxy import __version__
from tests.support import compose
from tests.support import image as images
from tests.support.contained import Contained, contained
from tests.support.gateway import ROOT
from tests.support.image import Image, ImageMissingError
from tests.support.keycloak_build import free_port
from tests.support.lockfile import Lock

# The first of them waits for the build, and without `.ci/run` before it for the base too.
pytestmark = pytest.mark.timeout(600)

CONFIDENTIAL = uuid.uuid4().hex
UID = 10001


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Where none can be built, a failure in CI and a skip that says what is missing elsewhere."""
    with contextlib.ExitStack() as stack:
        try:
            built = stack.enter_context(images.built(tmp_path_factory.mktemp("image"), CONFIDENTIAL))
        except ImageMissingError as exc:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(exc))
        yield built


def site_packages(image: Image) -> Path:
    [found] = (image.root / "opt/opentv-proxy/lib").glob("python3.*/site-packages")
    return found


async def ran(process: Contained) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    code = await process.ended(30)
    return code, "\n".join(process.out), "\n".join(process.err)


# -- what it is ---------------------------------------------------------------------------------------------------


def test_it_says_how_it_is_to_be_run(image: Image) -> None:
    config = image.config
    assert config["User"] == f"{UID}:{UID}"
    assert (config["Entrypoint"], config["Cmd"]) == (["opentv-proxy"], ["run"])
    assert config["Healthcheck"]["Test"] == ["CMD", "opentv-proxy", "healthcheck"]
    assert config["StopSignal"] == "SIGTERM"
    assert set(config["ExposedPorts"]) == {"8080/tcp", "9090/tcp"}
    assert [variable.partition("=")[0] for variable in config["Env"]] == ["PATH"]
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels["version"] == __version__
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", labels["revision"])
    assert (labels["title"], labels["licenses"]) == ("opentv-auth-proxy", "Apache-2.0")
    assert labels["base.name"] == images.BASE


def test_it_holds_what_the_lock_names_and_nothing_that_builds_or_tests(image: Image) -> None:
    site = site_packages(image)
    python = site.parent.name.removeprefix("python")
    lock = Lock((ROOT / "requirements.lock").read_text())
    found = distributions(path=[str(site)])
    installed = {str(canonicalize_name(one.metadata["Name"])): one.version for one in found}
    assert installed.pop("opentv-auth-proxy") == __version__
    assert {name for name in lock.pins if lock.version(name, python)} <= installed.keys()
    assert [name for name, version in installed.items() if version not in {pin for pin, _ in lock.pins[name]}] == []
    unwanted = ("usr/bin/cc", "usr/bin/gcc", "usr/bin/make", "opt/opentv-proxy/bin/pip", "build", "root/.cache")
    assert [name for name in unwanted if (image.root / name).exists()] == []
    assert not list((image.root / "tmp").iterdir())


def test_the_whole_package_is_in_it(image: Image) -> None:
    """Also what is no Python: an installer takes that only when told to."""
    ours = [file for file in (ROOT / "proxy").rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    names = [str(file.relative_to(ROOT)) for file in ours]
    _, different, missing = filecmp.cmpfiles(ROOT, site_packages(image), names, shallow=False)
    assert (different, missing) == ([], [])


def test_nothing_in_it_tells_what_the_build_was_told_in_confidence(image: Image) -> None:
    """Where pip gets its packages: the file is mounted for one step, and is in no layer and no history."""
    assert CONFIDENTIAL not in json.dumps([image.config, image.history])
    assert not (image.root / "etc/pip.conf").exists()
    files = (path for path in image.root.rglob("*") if path.is_file() and not path.is_symlink())
    assert [path for path in files if CONFIDENTIAL.encode() in path.read_bytes()] == []


def test_its_files_belong_to_root_but_for_one_folder_to_keep_tokens_in(image: Image) -> None:
    own = [path for path in image.root.rglob("*") if path.lstat().st_uid == UID]
    assert own == [image.root / "var/lib/opentv-proxy"]
    assert own[0].stat().st_mode & 0o777 == 0o700


def test_the_documented_size_is_what_it_adds_to_its_base(image: Image) -> None:
    [stated] = re.findall(r"adds (\d+) MiB to its base", (ROOT / "docs/deploy.md").read_text())
    assert image.added / 2**20 == pytest.approx(int(stated), rel=0.1)


# -- how it runs --------------------------------------------------------------------------------------------------


async def test_other_commands_are_arguments(image: Image) -> None:
    async with contained(image, "--version") as process:
        assert await ran(process) == (0, f"opentv-proxy {__version__}", "")
    gateway = compose.SERVICES["gateway"]
    async with contained(image, "check", "--offline", mounts=compose.mounts(gateway)) as process:
        code, _, err = await ran(process)
        assert code == 0, err


async def test_without_a_configuration_it_says_what_is_missing(image: Image) -> None:
    async with contained(image) as process:
        code, out, err = await ran(process)
    assert (code, out) == (2, "")
    assert "routes: is required" in err


async def test_no_module_is_compiled_at_start(image: Image) -> None:
    """A read-only root would have it done again each time, as the health check is a start too."""
    code = (
        "import proxy.healthcheck, proxy.server, sys; from pathlib import Path; "
        "print([m.__name__ for m in list(sys.modules.values())"
        " if (c := getattr(m, '__cached__', None)) and not Path(c).exists() and m.__name__ != '__main__'])"
    )
    async with contained(image, "-c", code, entrypoint=["python3"]) as process:
        assert await ran(process) == (0, "[]", "")


@contextlib.asynccontextmanager
async def sandbox(image: Image) -> AsyncIterator[Contained]:
    """That of compose.yaml, on a port of its own."""
    service = compose.SERVICES["sandbox"]
    command = ["127.0.0.1:0" if word.startswith("0.0.0.0:") else word for word in service["command"]]
    async with contained(image, *command, mounts=compose.mounts(service)) as process:
        await process.says(r"^token_url: (\S+)$")
        yield process


async def gateway_environment(platform: Contained) -> dict[str, str]:
    """What compose.yaml's gateway is told here: the addresses of this test in place of the compose network's."""
    return {
        "OPENTV_PROXY__LISTEN": "127.0.0.1:0",
        "OPENTV_PROXY__ADMIN": f"127.0.0.1:{free_port()}",
        "OPENTV_PROXY__CLIENTS__ALLOW_FROM": '["127.0.0.0/8"]',
        "OPENTV_PROXY__IDENTITIES__OPENTV__TOKEN_URL": await platform.says(r"^token_url: (\S+)$"),
        "OPENTV_PROXY__ROUTES__0__UPSTREAM": await platform.says(r"sandbox listening on (\S+)$"),
    }


async def test_the_sandbox_of_the_compose_file_is_well_by_the_check_that_its_gateway_waits_for(image: Image) -> None:
    command, *words = compose.SERVICES["sandbox"]["healthcheck"]["test"][1:]
    async with sandbox(image) as platform:
        url = await platform.says(r"sandbox listening on (\S+)$")
        asked = [word.replace("http://127.0.0.1:8081", url) for word in words]
        assert asked != words
        async with contained(image, *asked, entrypoint=[command]) as check:
            assert await ran(check) == (0, "", "")
    async with contained(image, *asked, entrypoint=[command]) as check:
        assert (await ran(check))[0] == 1


def powers(process: Contained) -> dict[str, str]:
    """What the kernel says of its rights."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return {name: " ".join(value.split()) for name, _, value in (line.partition(":") for line in lines)}


def root_mount(process: Contained) -> str:
    """The options of its root, as it is mounted for it."""
    table = Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()
    return next(fields[5] for line in table if (fields := line.split())[4] == "/")


async def test_it_serves_from_a_read_only_root_without_any_right_and_ends_well(image: Image) -> None:
    mounts = compose.mounts(compose.SERVICES["gateway"])
    asked = image.config["Healthcheck"]["Test"][1:]
    async with sandbox(image) as platform, aiohttp.ClientSession() as http:
        env = await gateway_environment(platform)
        async with contained(image, mounts=mounts, env=env) as gateway:
            url = await gateway.says(r"proxy listening on (\S+)$")
            status = powers(gateway)
            assert [status[name] for name in ("Uid", "Gid")] == [" ".join([str(UID)] * 4)] * 2
            assert {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
            assert (status["NoNewPrivs"], status["NSpid"].split()[-1]) == ("1", "1")
            assert "ro" in root_mount(gateway).split(",")
            async with http.get(f"{url}/adm/v1/accounts/4711") as answer:
                assert (answer.status, (await answer.json())["resultCode"]) == (200, "0")
            async with contained(image, entrypoint=asked, mounts=mounts, env=env) as check:
                assert await ran(check) == (0, "", "")
            gateway.send(SIGTERM)
            assert await gateway.ended() == 0, gateway.words()
        async with contained(image, entrypoint=asked, mounts=mounts, env=env) as check:
            code, _, words = await ran(check)
            assert (code, "does not answer" in words) == (1, True)
    assert any("logged out" in line for line in gateway.err)
