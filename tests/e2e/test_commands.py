"""The commands from outside: real processes, their exit codes, and what they say."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy import __version__
from proxy.sandbox import Sandbox
from tests.support.cli import Ended, command, written
from tests.support.gateway import ROOT, Gateway, environment, running_gateway, until
from tests.support.process import Process, running

COMMANDS = ("run", "demo", "sandbox", "check", "config", "schema", "token", "healthcheck")
PROXY = r"^opentv-proxy: proxy listening on (http\S+)$"
ADMIN = r"^opentv-proxy: admin listening on (http\S+)$"


def tree(token_url: str, upstream: str, **identity: Any) -> dict[str, Any]:
    """A gateway on ports of its own, one identity, one route."""
    who = {"username": "crm_client_user", "password": "wrong"} | identity
    opentv = {"system": "keycloak", "token_url": token_url, "client_id": "crm_client", **who}
    return {
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "identities": {"opentv": opentv},
        "routes": [{"path": "/", "upstream": upstream, "identity": "opentv"}],
    }


def for_sandbox(sandbox: Sandbox, **sections: Any) -> dict[str, Any]:
    return tree(sandbox.token_url, sandbox.url, username=sandbox.username, password=sandbox.password) | sections


@pytest.fixture
def taken() -> Iterator[str]:
    """An address where something else listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.asynccontextmanager
async def run(config: Path, *options: str) -> AsyncIterator[Process]:
    async with running("run", "-c", config, *options) as gateway:
        await gateway.says(ADMIN)
        yield gateway


async def fetched(url: str, **how: Any) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(url, **how) as answer:
        return answer.status, await answer.text()


async def posted(url: str, **how: Any) -> Any:
    async with aiohttp.ClientSession() as http, http.post(url, **how) as answer:
        assert answer.ok, answer.status
        return await answer.json()


async def ended_well(process: Process, number: signal.Signals = signal.SIGTERM) -> None:
    process.send(number)
    assert await process.ended() == 0, process.words()


# -- argv ---------------------------------------------------------------------------------------------------------


async def test_help_is_everywhere_and_goes_to_stdout() -> None:
    for ended in await asyncio.gather(command("--help"), *(command(name, "--help") for name in COMMANDS)):
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith("usage: opentv-proxy")


WRONG_LINES: dict[tuple[str, ...], str] = {
    (): "COMMAND",
    ("bogus",): "invalid choice: 'bogus'",
    ("run", "--colour"): "unrecognized arguments: --colour",
    ("run", "--log", "debug"): "unrecognized arguments: --log",
    ("token",): "NAME",
    ("sandbox", "--token-life", "0"): "--token-life: expected a whole number of seconds, at least 1",
    ("sandbox", "--listen", "8081"): "--listen: expected host:port",
    ("sandbox", "--password-file", "nowhere"): "--password-file: the secret file nowhere does not exist",
    ("demo", "--listen", "127.0.0.1:8080", "--admin", "127.0.0.1:8080"): "admin: expected another port",
}


async def test_a_command_line_that_is_wrong_ends_with_2_and_names_the_word() -> None:
    all_ended = await asyncio.gather(*(command(*arguments) for arguments in WRONG_LINES))
    for ended, words in zip(all_ended, WRONG_LINES.values(), strict=True):
        assert (ended.code, ended.out) == (2, ""), ended
        assert words in ended.err
        assert "Traceback" not in ended.err


async def test_the_installed_command_and_the_module_are_the_same() -> None:
    script = Path(sys.executable).with_name("opentv-proxy")
    for arguments in (["--version"], ["run", "--help"]):
        started = await asyncio.create_subprocess_exec(script, *arguments, stdout=asyncio.subprocess.PIPE)
        by_name, _ = await started.communicate()
        assert by_name.decode() == (await command(*arguments)).out
    assert (await command("--version")).out == f"opentv-proxy {__version__}\n"


async def test_schema_prints_what_is_committed() -> None:
    ended = await command("schema")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (ROOT / "config/schema.json").read_text()


@pytest.mark.parametrize("arguments", [("--help",), ("schema",), ("config", "-c", "config/proxy.yaml")])
async def test_a_reader_that_has_read_enough_is_no_failure(arguments: tuple[str, ...]) -> None:
    async with running(*arguments, read=False) as process:
        assert await process.ended() == 0
    assert process.err == []


@pytest.mark.parametrize("options", [(), ("--json",)])
@pytest.mark.parametrize(("roles", "code"), [(["operatorRole"], 0), (["a role that is missing"], 3)])
async def test_check_ends_with_what_it_found_whoever_reads_it(
    roles: list[str], code: int, options: tuple[str, ...], tmp_path: Path
) -> None:
    async with Sandbox() as sandbox:
        config = for_sandbox(sandbox)
        config["identities"]["opentv"]["expect_roles"] = roles
        async with running("check", "-c", written(config, tmp_path), *options, read=False) as process:
            assert await process.ended() == code, process.words()
        assert process.err == []
        assert sandbox.state.counters["logout_requests"] == 1


async def test_output_that_cannot_be_written_is_a_failure_in_words() -> None:
    with Path("/dev/full").open("w") as full:
        for arguments in (["schema"], ["config", "-c", "config/proxy.yaml"]):  # one is still buffered at the end
            started = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "proxy", *arguments),
                stdout=full,
                stderr=asyncio.subprocess.PIPE,
                env=environment({"PYTHONUNBUFFERED": ""}),
                cwd=ROOT,
            )
            _, err = await started.communicate()
            assert (started.returncode, err) == (1, b"opentv-proxy: No space left on device\n")


# -- configuration ------------------------------------------------------------------------------------------------


async def test_config_shows_each_value_with_its_origin_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("0nly-In-The-File")
    config = tree("https://idp.example.com/token", "https://op.example.com", password="Hunter2-Hunter2")
    config["clients"] = {"basic": {"crm": {"password_file": "password"}}, "api_keys": {"keys": ["Key-Key-Key-Key"]}}
    config["routes"][0]["headers"] = {"set": {"X-Api-Key": "Upstream-Key-1234"}}
    config["identities"]["opentv"]["extra"] = {"pin": "Extra-Pin-12345"}
    env = {
        "OPENTV_PROXY__LOG__LEVEL": "debug",
        "OPENTV_PROXY__IDENTITIES__OPENTV__CLIENT_AUTH": "post",
        "OPENTV_PROXY__IDENTITIES__OPENTV__CLIENT_SECRET": "Env-Secret-12345",
    }
    ended = await command("config", "-c", written(config, tmp_path), env=env)
    assert (ended.code, ended.err) == (0, "")
    for line in (
        r"  level: debug +# env OPENTV_PROXY__LOG__LEVEL",
        r"  format: json +# default",
        r"    client_id: crm_client +# file",
        r'    password: "\*{8}" +# file',
        r'    client_secret: "\*{8}" +# env OPENTV_PROXY__IDENTITIES__OPENTV__CLIENT_SECRET',
        rf"      password_file: {tmp_path}/password +# file",
        r'        X-Api-Key: "\*{8}" +# file',
    ):
        assert re.search(f"^{line}$", ended.out, re.MULTILINE), (line, ended.out)
    for secret in ("0nly", "Hunter2", "Key-Key", "Upstream-Key", "Extra-Pin", "Env-Secret"):
        assert secret not in ended.out


WRONG: dict[str, Any] = {
    "listen": {"addres": "127.0.0.1:0"},
    "identities": {
        "opentv": {"system": "keycloak", "token_url": "ftp://x", "client_id": "a", "password_file": "missing"},
        "later": {"system": "ags"},
    },
    "routes": [{"path": "adm", "upstream": "https://op.example.com", "identity": "opentw"}],
    "limits": {"head_time": "soon"},
}
FAULTS = (
    r"listen\.addres: .*address",
    r"identities\.opentv\.token_url: expected .*",
    r"identities\.opentv\.username: .*",
    r"identities\.opentv\.password_file: .*missing does not exist",
    r"identities\.later\..*",
    r"routes\.0\.path: expected .*",
    r"routes\.0\.identity: .*opentv.*",
    r"limits\.head_time: expected .*",
)


async def test_every_fault_of_a_configuration_is_listed_with_its_path(tmp_path: Path) -> None:
    file = written(WRONG, tmp_path)
    names = (("run",), ("check", "--offline"))
    for ended in await asyncio.gather(*(command(*name, "-c", file) for name in names)):
        said = ended.out + ended.err  # check reports on stdout
        assert ended.code == 2, said
        assert "Traceback" not in said
        for fault in FAULTS:
            assert re.search(fault, said), (fault, said)


async def test_an_empty_secret_is_the_same_fault_for_each_command(tmp_path: Path) -> None:
    config = tree("https://idp.example.com/token", "https://op.example.com")
    config["identities"]["opentv"]["password"] = ""
    config["clients"] = {"basic": {"crm": {"password": ""}}, "api_keys": {"keys_file": "keys"}}
    (tmp_path / "keys").write_text("# nobody\n")
    file = written(config, tmp_path)
    places = ["clients.api_keys.keys_file", "clients.basic.crm.password", "identities.opentv.password"]
    for ended in await asyncio.gather(*(command(*name, "-c", file) for name in (["run"], ["check"], ["config"]))):
        said = ended.out + ended.err
        assert (ended.code, sorted(re.findall(r"(\S+): (?:is empty|the keys file)", said))) == (2, places), said


@pytest.mark.parametrize("name", ["config", "healthcheck"])
async def test_commands_that_need_no_secret_do_not_read_any(name: str, tmp_path: Path) -> None:
    config = tree("https://idp.example.com/token", "https://op.example.com", password_file="missing")
    del config["identities"]["opentv"]["password"]
    ended = await command(name, "-c", written(config, tmp_path))
    assert ended.code == (0 if name == "config" else 1)  # nothing runs there
    assert "missing does not exist" not in ended.err


async def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    names = (("run",), ("check",), ("healthcheck",))
    for ended in await asyncio.gather(*(command(*name, "-c", tmp_path / "proxy.yaml") for name in names)):
        assert ended.code == 2
        assert f"{tmp_path}/proxy.yaml does not exist" in ended.out + ended.err


async def test_without_any_configuration_it_says_where_one_may_be(tmp_path: Path) -> None:
    async with running("run", cwd=tmp_path) as process:
        assert await process.ended() == 2
    assert "$OPENTV_PROXY_CONFIG" in process.err[0]
    assert "config/proxy.yaml" in process.err[0]


# -- run ----------------------------------------------------------------------------------------------------------


async def test_run_prints_a_line_a_listener_and_logs_json_alone(tmp_path: Path) -> None:
    async with Sandbox() as sandbox, running_gateway(for_sandbox(sandbox), tmp_path) as gateway:
        status, _ = await fetched(f"{gateway.url}/adm/v1/x")
        code = await gateway.stop()
    assert (status, code) == (200, 0)
    assert [line.partition(" on http://127.0.0.1:")[0] for line in gateway.out] == [
        "opentv-proxy: proxy listening",
        "opentv-proxy: admin listening",
    ]
    assert {"request", "token obtained", "logged out", "stopped"} <= {record["event"] for record in gateway.records}


@pytest.mark.parametrize("which", ["listen", "admin"])
async def test_a_port_in_use_costs_no_login(which: str, taken: str, tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        ended = await command("run", "-c", written(for_sandbox(sandbox, **{which: taken}), tmp_path))
        assert dict(sandbox.state.counters) == {}
    assert (ended.code, ended.out) == (1, "")
    assert f"opentv-proxy: {which}: cannot listen on {taken}: something else listens there" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_that_is_not_ours_is_named(host: str, tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        ended = await command("run", "-c", written(for_sandbox(sandbox, listen=f"{host}:8080"), tmp_path))
        assert dict(sandbox.state.counters) == {}
    assert ended.code == 1
    assert f"listen: cannot listen on {host}:8080: " in ended.err


async def test_a_certificate_or_secret_that_cannot_be_used_costs_no_login(tmp_path: Path) -> None:
    (tmp_path / "not.pem").write_text("certainly no certificate")
    (tmp_path / "empty").write_text("")
    pem = str(tmp_path / "not.pem")
    async with Sandbox() as sandbox:
        listen = {"address": "127.0.0.1:0", "tls": {"cert_file": pem, "key_file": pem}}
        wrong: dict[str, dict[str, Any]] = {
            "listen.tls.cert_file": for_sandbox(sandbox, listen=listen),
            "routes.0.tls.ca_file": for_sandbox(sandbox),
            "identities.opentv.tls.ca_file": for_sandbox(sandbox),
            "clients.basic.crm.password_file": for_sandbox(
                sandbox, clients={"basic": {"crm": {"password_file": str(tmp_path / "empty")}}}
            ),
            "identities.opentv.password_file": for_sandbox(sandbox),
        }
        wrong["routes.0.tls.ca_file"]["routes"][0] |= {"upstream": "https://localhost", "tls": {"ca_file": pem}}
        opentv = wrong["identities.opentv.tls.ca_file"]["identities"]["opentv"]
        opentv |= {"token_url": "https://localhost/token", "tls": {"ca_file": pem}}
        opentv = wrong["identities.opentv.password_file"]["identities"]["opentv"]
        del opentv["password"]
        opentv["password_file"] = str(tmp_path)

        async def tried(number: int, config: dict[str, Any]) -> Ended:
            folder = tmp_path / str(number)
            folder.mkdir()
            return await command("run", "-c", written(config, folder))

        all_ended = await asyncio.gather(*(tried(*each) for each in enumerate(wrong.values())))
        assert dict(sandbox.state.counters) == {}
    for path, ended in zip(wrong, all_ended, strict=True):
        assert (ended.code, ended.out) == (2, ""), (path, ended)
        assert f"opentv-proxy: {path}: " in ended.err, (path, ended)


async def test_a_gateway_whose_output_nobody_reads_serves_on(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            port = reserved.getsockname()[1]
        file = written(for_sandbox(sandbox, admin=f"127.0.0.1:{port}"), tmp_path)
        async with running("run", "-c", file, read=False) as process:

            async def ready() -> bool:
                return (await command("healthcheck", "-c", file)).code == 0

            await until(ready, 15, "readiness")
            await ended_well(process)
    assert all(json.loads(line) for line in process.err)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_either_signal_ends_it_with_0_and_its_session_with_it(number: signal.Signals, tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        async with run(written(for_sandbox(sandbox), tmp_path)) as process:
            await until(lambda: sandbox.state.counters["logins"] == 1, 5, "the login")
            await ended_well(process, number)
        assert sandbox.state.sessions == {}


@pytest.mark.parametrize(("name", "number"), [("run", signal.SIGTERM), ("run", signal.SIGINT), ("demo", signal.SIGINT)])
async def test_a_signal_during_the_start_ends_it_at_once(name: str, number: signal.Signals, tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        arguments = {
            "run": ("-c", str(written(for_sandbox(sandbox), tmp_path))),
            "demo": ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
        }[name]

        async def interrupted(after: float) -> tuple[int, list[str], float]:
            async with running(name, *arguments) as process:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(after):  # the moment is the case: any is right
                        await process.ended(60)
                sent = asyncio.get_running_loop().time()
                process.send(number)
                return await process.ended(10), process.err, asyncio.get_running_loop().time() - sent

        found = await asyncio.gather(*(interrupted(after / 10) for after in (2, 4, 6)))
        await until(lambda: not sandbox.state.sessions, 5, "no session left")
    for code, err, seconds in found:
        # Before Python itself is up, the signal is the system's and Python's affair.
        assert code in (0, -number) or "proxy/cli.py" not in "".join(err), (code, err)
        assert seconds < 5


async def test_a_hangup_during_the_start_does_not_end_the_gateway(tmp_path: Path) -> None:
    async with Sandbox() as sandbox, running("run", "-c", written(for_sandbox(sandbox), tmp_path)) as process:
        ignored = 1 << (signal.SIGHUP - 1)

        def deaf_or_reloading() -> bool:
            status = Path(f"/proc/{process.pid}/status").read_text()
            masks = re.findall(r"^Sig(?:Ign|Cgt):\s*([0-9a-f]+)$", status, re.MULTILINE)
            return any(int(mask, 16) & ignored for mask in masks)

        await until(deaf_or_reloading, 10, "SIGHUP being taken care of")
        process.send(signal.SIGHUP)
        await process.says(ADMIN)
        await ended_well(process)


async def test_a_whole_gateway_is_configured_by_the_environment_alone(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        (tmp_path / "password").write_text(f"{sandbox.password}\n")
        prefix = "OPENTV_PROXY__IDENTITIES__OPENTV__"
        env = {
            "OPENTV_PROXY__LISTEN": "127.0.0.1:0",
            "OPENTV_PROXY__ADMIN": "127.0.0.1:0",
            f"{prefix}SYSTEM": "keycloak",
            f"{prefix}TOKEN_URL": sandbox.token_url,
            f"{prefix}CLIENT_ID": sandbox.client_id,
            f"{prefix}USERNAME": sandbox.username,
            f"{prefix}PASSWORD_FILE": str(tmp_path / "password"),
            "OPENTV_PROXY__ROUTES": json.dumps([{"path": "/", "upstream": sandbox.url, "identity": "opentv"}]),
            "OPENTV_PROXY__CLIENTS__API_KEYS__KEYS": '["the-only-client"]',
            "OPENTV_PROXY__LIMITS__HEAD_TIME": "5s",
        }
        empty = tmp_path / "empty"
        empty.mkdir()
        async with running("run", env=env, cwd=empty) as process:
            url = await process.says(PROXY)
            stranger, _ = await fetched(f"{url}/adm/v1/x")
            client, _ = await fetched(f"{url}/adm/v1/x", headers={"X-Api-Key": "the-only-client"})
            await process.says(ADMIN)
            await ended_well(process)
    assert (stranger, client) == (401, 200)


@pytest.mark.parametrize("how", ["default", "option", "file"])
async def test_uvloop_can_be_turned_off(how: str, tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        file = written(for_sandbox(sandbox, **({"uvloop": False} if how == "file" else {})), tmp_path)
        async with run(file, *(("--no-uvloop",) if how == "option" else ())) as process:
            status, _ = await fetched(f"{await process.says(PROXY)}/adm/v1/x")
            loaded = "uvloop" in Path(f"/proc/{process.pid}/maps").read_text()
            await ended_well(process)
    assert (status, loaded) == (200, how == "default")


# -- healthcheck --------------------------------------------------------------------------------------------------


def admin_port(gateway: Gateway) -> str:
    return gateway.admin_url.rpartition(":")[2]


async def test_healthcheck_says_whether_the_running_gateway_is_ready(tmp_path: Path) -> None:
    async with Sandbox() as sandbox:
        config = for_sandbox(sandbox)
        async with running_gateway(config, tmp_path) as gateway:
            port = admin_port(gateway)
            status, _ = await fetched(f"{gateway.url}/adm/v1/x")
            assert status == 200
            ready = await asyncio.gather(
                command("healthcheck", "-c", written(config | {"admin": f"127.0.0.1:{port}"}, tmp_path)),
                command("healthcheck", "--admin", f"0.0.0.0:{port}", env={"OPENTV_PROXY_CONFIG": "/nowhere"}),
                command("healthcheck", "-c", gateway.config_file, env={"OPENTV_PROXY__ADMIN": f"localhost:{port}"}),
            )
        gone = await command("healthcheck", "-c", gateway.config_file, "--admin", f"127.0.0.1:{port}")
        unknown = await command("healthcheck", "-c", written(config, tmp_path))
        wrong = await command("healthcheck", "--admin", "7071")
    assert (wrong.code, wrong.err.partition(", such as")[0]) == (2, "opentv-proxy: admin: expected host:port")
    assert set(ready) == {Ended(0, "", "")}
    assert gone.code == unknown.code == 1
    assert f"127.0.0.1:{port} does not answer: Connection refused" in gone.err
    assert "--admin" in unknown.err


async def test_healthcheck_says_why_a_gateway_is_not_ready(tmp_path: Path) -> None:
    async with Sandbox() as sandbox, running_gateway(tree(sandbox.token_url, sandbox.url), tmp_path) as gateway:
        await until(lambda: sandbox.state.counters["token_refusals"] == 1, 5, "the refused login")
        ended = await command("healthcheck", "-c", gateway.config_file, "--admin", f"127.0.0.1:{admin_port(gateway)}")
    assert (ended.code, ended.out) == (1, "")
    assert "identity opentv failed: login suspended until " in ended.err


# -- sandbox ------------------------------------------------------------------------------------------------------


async def test_the_sandboxes_printed_values_are_good_for_a_login() -> None:
    """At each of its token endpoints, and the life asked for is that of every system's token."""
    options = ("--listen", "127.0.0.1:0", "--token-life", "7", "--session-idle", "61")
    async with running("sandbox", *options) as process:
        names = ("client_id", "username", "password", "token_url", "ags_url", "veeam_token_url")
        value = {name: await process.says(rf"^{name}: (\S+)$") for name in names}
        user = {name: value[name] for name in ("username", "password")}
        form = {"grant_type": "password", "client_id": value["client_id"], **user}
        veeam = {"grant_type": "Password", "Username": user["username"], "Password": user["password"]}
        sign_on = {"parameters": [{"name": name, "value": word} for name, word in user.items()]}
        service = {"x-auth-service-id": "sso-1", "nv-tenant-id": "nagra"}
        pairs = [
            await posted(value["token_url"], data=form),
            await posted(value["ags_url"] + "/signOn", json=sign_on, headers=service),
            await posted(value["veeam_token_url"], data=veeam),
        ]
        await ended_well(process, signal.SIGINT)
    assert [pair["expires_in"] for pair in pairs] == [7, 7, 7]
    assert [pair["refresh_expires_in"] for pair in pairs[:2]] == [61, 61]
    assert process.err == []


async def test_a_password_given_to_the_sandbox_opens_it_and_is_not_printed(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("opened by a file\n")
    async with running("sandbox", "--listen", "127.0.0.1:0", "--password-file", file) as process:
        url = await process.says(r"^token_url: (\S+)$")
        form = {"grant_type": "password", "client_id": "crm_client", "username": "crm_client_user"}
        assert "access_token" in await posted(url, data={**form, "password": "opened by a file"})
        await ended_well(process, signal.SIGTERM)
    assert f"password: that in {file}" in process.out
    assert "opened by a file" not in process.words()


async def test_a_sandbox_whose_port_is_taken_says_so(taken: str) -> None:
    ended = await command("sandbox", "--listen", taken)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        f"opentv-proxy: --listen: cannot listen on {taken}: something else listens there; end it, or choose another"
        " address\n"
    )
