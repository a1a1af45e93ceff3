"""The log: one JSON object a line whatever happens, and no secret in it."""

import asyncio
import io
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import structlog
from aiohttp.http_exceptions import BadHttpMessage, BadStatusLine

from proxy import logs
from proxy.accesslog import AccessLog
from proxy.redact import LONGEST, scrub, scrub_value

AT = 1_795_257_000.1239  # 2026-11-21T10:30:00.123Z
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjcm0ifQ.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Logging is the process's own: each test hands it back as it found it."""
    root = logging.getLogger()
    quiet = logging.getLogger("aiohttp.access")
    before = (root.handlers, root.level, quiet.propagate, quiet.handlers, structlog.get_config())
    yield
    root.handlers, level, quiet.propagate, quiet.handlers, config = before
    root.setLevel(level)
    structlog.configure(**config)


def started(level: logs.Level = "info", fmt: logs.Format = "json") -> io.StringIO:
    stream = io.StringIO()
    logs.setup(level, fmt, "all", stream, now=lambda: AT)
    return stream


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    assert stream.getvalue().endswith("\n")
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def raised(action: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (whatever it is; the test looks at how it is told)
        action()
    return caught.value


def test_a_line_begins_with_time_level_event_and_logger() -> None:
    """In this order, so that a person who reads raw JSON finds them."""
    stream = started()
    logs.get("proxy.tokens").warning("login suspended", identity="opentv", seconds=62.5)
    assert stream.getvalue() == (
        '{"timestamp":"2026-11-21T10:30:00.123Z","level":"warning","event":"login suspended","logger":"proxy.tokens",'
        '"identity":"opentv","seconds":62.5}\n'
    )


def test_lines_below_the_level_are_not_written() -> None:
    """For both of the ways into the log."""
    stream = started("warning")
    logs.get("a").info("no")
    logging.getLogger("b").info("no")
    logs.get("a").warning("yes")
    logging.getLogger("b").warning("yes %d", 2)
    assert [(r["logger"], r["event"]) for r in records(stream)] == [("a", "yes"), ("b", "yes 2")]


def test_a_second_setup_moves_loggers_that_exist() -> None:
    """A reload changes the level; nobody has to be told."""
    log = logs.get("a")
    started("error")
    stream = started("debug")
    log.debug("heard")
    assert [r["event"] for r in records(stream)] == ["heard"]


def test_an_event_with_line_breaks_and_odd_bytes_stays_one_line() -> None:
    """U+2028 and lone surrogates included: a log collector splits where it likes."""
    stream = started()
    logs.get("a").info("one\ntwo\u2028three\udc80", path="/\r\n")
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().isascii()
    assert records(stream)[0]["event"] == "one\ntwo\u2028three\udc80"


def test_a_traceback_is_one_bounded_field_with_its_cause() -> None:
    """Frames of code, the words of each exception, no local values."""

    def fail() -> None:
        local = "local-value"
        try:
            raise ConnectionResetError("peer " + "x" * 100_000)
        except ConnectionResetError as exc:
            raise RuntimeError("exchange failed") from exc if local else None

    stream = started()
    logs.get("a").error("oops", exc_info=raised(fail))
    (record,) = records(stream)
    assert record["exception"].index("ConnectionResetError: peer") < record["exception"].index("RuntimeError: exchange")
    assert "test_logs.py" in record["exception"]
    assert len(record["exception"]) < 17_000


def test_exception_groups_name_their_members() -> None:
    """A TaskGroup's failure is of no use without them."""
    stream = started()
    logs.get("a").error("oops", exc_info=ExceptionGroup("two", [ValueError("first"), KeyError("second")]))
    assert "ValueError: first" in records(stream)[0]["exception"]
    assert "KeyError: 'second'" in records(stream)[0]["exception"]


def test_a_recursive_cause_ends() -> None:
    """An exception can be its own ancestor."""
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    stream = started()
    logs.get("a").error("oops", exc_info=one)
    assert records(stream)[0]["exception"].count("ValueError") == 2


def test_logging_records_with_wrong_arguments_still_come_out() -> None:
    """A library's own mistake is no reason to lose its line, or to print a traceback to stderr raw."""
    stream = started()
    logging.getLogger("lib").error("%d of %d", 1)  # noqa: PLE1206 (the mistake that is tested)
    assert records(stream)[0]["event"] == "%d of %d"


SECRETS = [
    f"Bearer {JWT}",
    JWT,
    JWT[:20],
    "Authorization: Basic Y3JtOmh1bnRlcjI=",
    "authorization: hunter2-raw",
    "b'Authorization: Bearer hunter2-raw\\r\\nHost: x'",
    "b'GET / HTTP/1.1\\r\\nX-Api-Key: hunter2-raw\\r\\nCookie: a=hunter2-raw\\r\\n'",
    f"b'\\n{JWT}'",
    "nv-authorizations: hunter2-raw",
    "Cookie: session=hunter2-raw",
    "X-Api-Key: hunter2-raw",
    "grant_type=password&username=u&password=hunter2&client_id=c",
    "client_secret=hunter2%20x",
    '{"access_token": "hunter2-raw", "expires_in": 300}',
    '{"refresh_token":"a\\"hunter2-raw"}',
    '"{\\"password\\": \\"hunter2-raw\\"}"',
    "{'Authorization': 'hunter2-raw'}",
    "Credentials(password='hunter2 with blanks')",
    "redis://user:hunter2@cache:6379/0",
    "https://hunter2@idp.example.com/token",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("where", ["event", "field", "nested", "traceback", "cause", "logging", "console"])
def test_what_looks_like_a_secret_is_taken_out(secret: str, where: str) -> None:
    """Wherever it stands: this is the last line of defence."""
    stream = started(fmt="console" if where == "console" else "json")
    log = logs.get("a")
    if where == "event":
        log.info(f"answered {secret}")
    elif where in ("field", "console"):
        log.info("answered", words=f"it said {secret}")
    elif where == "nested":
        log.info("answered", reply={"headers": [("x", secret.encode())]})
    elif where == "traceback":
        log.error("answered", exc_info=ValueError(secret))
    elif where == "cause":
        exc = RuntimeError("outer")
        exc.__context__ = ValueError(secret)
        log.error("answered", exc_info=exc)
    else:
        logging.getLogger("aiohttp.client").warning("answered %s", secret, exc_info=ValueError(secret))
    text = stream.getvalue()
    assert "[redacted]" in text
    assert "hunter2" not in text
    assert "Y3JtOmh1bnRlcjI" not in text
    assert JWT[:20] not in text


def test_fields_with_a_secret_name_are_not_shown() -> None:
    """Their times, paths and booleans are."""
    stream = started()
    logs.get("a").info(
        "x", password="hunter2", access_token=b"hunter2", token=True, token_url="https://i/t", secret=None
    )
    record = records(stream)[0]
    assert (record["password"], record["access_token"]) == ("[redacted]", "[redacted]")
    assert (record["token"], record["token_url"], record["secret"]) == (True, "https://i/t", None)


@pytest.mark.parametrize(
    "words",
    [
        "identities.opentv.password: expected a string",
        "Basic authentication failed",
        "Bearer tokens are opaque here",
        "the refresh token of opentv was refused (invalid_grant): logging in again",
        "password_file=/run/secrets/opentv_password",
        "https://idp.example.com/realms/nagra",
        "store redis at cache:6379 cannot be reached",
    ],
)
def test_words_for_people_stay_as_they_are(words: str) -> None:
    """A log that is redacted to nothing helps nobody."""
    assert scrub(words) == words


@pytest.mark.parametrize("filler", ["a.", '"', "-token", "://", "password=", "\\", "bearer ", "eyJ"])
def test_redaction_is_bounded_whatever_the_text(filler: str) -> None:
    """A peer's megabytes are cut first, then looked at."""
    assert len(scrub(filler * 400_000)) <= LONGEST * 2


RUNS = [
    *"\\\"'=:;,.-_ \t/@a1&[{%\n",
    *(
        "://",
        "eyJ",
        "eyJ.",
        "bearer ",
        "password",
        "a-b.",
        "-a",
        "'a'",
        '"password',
        "password'",
        "pass",
        "api_",
        "\\'",
    ),
    *("cookie: \n", "secret=", "://a", "basic a "),
]
BEFORE = ["", "password", 'password"', 'password":', "password='", "bearer", "cookie:", "eyJhbGciOi", "://"]


def cpu(action: Callable[[], object]) -> float:
    """CPU seconds, the least of some tries: what it takes without the machine's other work."""

    def once() -> float:
        begun = time.process_time()
        action()
        return time.process_time() - begun

    return min(once() for _ in range(4))


@pytest.mark.parametrize("run", RUNS)
def test_no_run_of_characters_makes_redaction_slow(run: str) -> None:
    """Four times the text may take four times as long, and no sixteen."""
    for before in BEFORE:
        text = f"password{before}{run * LONGEST}"
        short, long = text[: LONGEST // 4], text[:LONGEST]
        assert cpu(partial(scrub, long)) < 8 * cpu(partial(scrub, short)) + 0.002


@pytest.mark.parametrize("run", RUNS)
def test_no_run_of_characters_makes_an_access_line_slow(run: str) -> None:
    """It was 66 ms once, for a request of 4 KB that was refused."""
    access = AccessLog(io.StringIO(), "all", now=lambda: AT, later=Soon())
    for before in BEFORE:
        text = f"/password{before}{run * LONGEST}"[:LONGEST]
        assert cpu(partial(write, access, path=text, correlation_id=text)) < 0.005


def test_a_field_that_holds_itself_ends() -> None:
    """Depth and width of a container are bounded."""
    endless: dict[str, object] = {}
    endless["again"] = endless
    assert len(json.dumps(scrub_value({"a": endless, "b": [0] * 100_000}))) < 2_000


@pytest.mark.parametrize("exc", [BadStatusLine("b'Authorization: zanzibar'"), BadHttpMessage("zanzibar")])
def test_parser_errors_that_quote_a_peer_are_no_error_lines(exc: Exception) -> None:
    """aiohttp logs each malformed request as ERROR, with the offending bytes. At level debug its kind is told."""
    stream = started("info")
    logging.getLogger("aiohttp.server").error("Error handling request from %s", "10.0.0.1", exc_info=exc)
    assert stream.getvalue() == ""
    stream = started("debug")
    logging.getLogger("aiohttp.server").error("Error handling request from %s", "10.0.0.1", exc_info=exc)
    assert type(exc).__name__ in records(stream)[0]["exception"]
    assert "zanzibar" not in stream.getvalue()


def test_aiohttps_own_access_log_is_silent() -> None:
    """Its lines hold the query and the Referer."""
    stream = started("debug")
    logging.getLogger("aiohttp.access").info("GET /?x=1")
    assert stream.getvalue() == ""


def test_console_lines_obey_no_control_characters() -> None:
    """A client must not move a terminal's cursor."""
    stream = started(fmt="console")
    logs.get("a").info("hello\x1b[2J\n", path="/\x9b2J")
    assert "\x1b" not in stream.getvalue()
    assert "\x9b" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


async def test_a_stream_that_fails_fails_nobody() -> None:
    """A closed pipe behind stderr must not stop the gateway."""

    class Broken(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    access = logs.setup("info", "json", "all", Broken(), now=lambda: AT)
    logs.get("a").info("x")
    logging.getLogger("b").error("x")
    write(access)
    access.flush()
    closed = io.StringIO()
    closed.close()
    logs.setup("info", "json", "all", closed)
    logs.get("a").info("x")


async def test_an_exception_nobody_awaits_becomes_one_line() -> None:
    """With the task's name, without the reprs that asyncio would print."""
    stream = started()
    loop = asyncio.get_running_loop()

    async def fail() -> None:
        raise ValueError("password=hunter2")

    task = asyncio.create_task(fail(), name="refresh opentv")
    await asyncio.wait([task])
    logs.loop_exception_handler(loop, {"message": "Task exception", "exception": task.exception(), "task": task})
    (record,) = records(stream)
    assert (record["task"], record["level"]) == ("refresh opentv", "error")
    assert "ValueError: password=[redacted]" in record["exception"]


@pytest.mark.parametrize(
    "crash",
    [
        "raise ValueError(secret)",
        "t = threading.Thread(target=lambda: int(secret)); t.start(); t.join()",
        "class A:\n  def __del__(self): raise ValueError(secret)\nA()",
        "import warnings; warnings.warn(secret)",
    ],
)
def test_a_process_that_crashes_still_writes_one_json_line(crash: str) -> None:
    """Its main thread, another thread, a finalizer; and a warning likewise."""
    # Python 3.13 shows the source lines of -c in tracebacks: the secret must not stand in one.
    start = "import threading\nfrom proxy import logs\nlogs.setup('info','json','all')\nlogs.install_hooks()\n"
    program = f"{start}secret = 'password=' + 'hunter' + str(2)\n{crash}\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603 (literals above)
    (line,) = done.stderr.splitlines()
    assert "[redacted]" in line
    assert "hunter2" not in line
    assert json.loads(line)["timestamp"]
    assert done.stdout == ""


def test_before_setup_only_warnings_come_out_and_not_on_stdout() -> None:
    """``check --json`` and its like write their answer to stdout."""
    program = "from proxy import logs\nlogs.get('a').info('quiet')\nlogs.get('a').warning('loud')\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603 (literals above)
    assert done.stdout == ""
    assert "loud" in done.stderr
    assert "quiet" not in done.stderr


REQUEST: dict[str, Any] = {
    "route": "/",
    "method": "POST",
    "path": "/adm/v1/devices",
    "status": 201,
    "duration_s": 0.0123456,
    "upstream_s": 0.0119,
    "token_wait_s": 0.0,
    "correlation_id": "c-1",
    "replayed": False,
    "client": "10.1.2.3",
    "bytes_in": 312,
    "bytes_out": 707,
}


def write(access: AccessLog, **other: Any) -> None:
    access.write(**{**REQUEST, **other})


class Soon:
    """Holds what should be called soon until the test says so."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def __call__(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def passes(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


def test_an_access_line_has_every_field_of_the_request() -> None:
    """Written at once with the lines around it, when the timer runs, and by one timer only."""
    stream, soon = io.StringIO(), Soon()
    access = AccessLog(stream, "all", now=lambda: AT, later=soon)
    write(access)
    write(access, route=None, upstream_s=None, replayed=True, token_wait_s=1.5)
    assert (stream.getvalue(), len(soon.calls)) == ("", 1)
    soon.passes()
    first, second = records(stream)
    stamp = {"timestamp": "2026-11-21T10:30:00.123Z", "level": "info", "event": "request", "logger": "access"}
    assert first == {**stamp, **REQUEST, "duration_s": 0.012346}
    assert second["route"] is None
    assert second["upstream_s"] is None
    assert (second["replayed"], second["token_wait_s"]) == (True, 1.5)
    write(access)
    soon.passes()
    assert len(records(stream)) == 3


def test_the_time_of_an_access_line_follows_the_clock() -> None:
    """Its prefix is kept for a second, forwards or backwards."""
    stream, soon, clock = io.StringIO(), Soon(), [AT, AT + 0.9, AT - 3600]
    access = AccessLog(stream, "all", now=lambda: clock.pop(0), later=soon)
    for _ in range(3):
        write(access)
    access.flush()
    assert [r["timestamp"][11:] for r in records(stream)] == ["10:30:00.123Z", "10:30:01.023Z", "09:30:00.123Z"]


def test_many_lines_do_not_wait_for_the_timer() -> None:
    """Memory stays bounded whatever the rate."""
    stream = io.StringIO()
    access = AccessLog(stream, "all", now=lambda: AT, later=Soon())
    for _ in range(1000):
        write(access)
    assert len(records(stream)) >= 1000 - 256


def test_a_client_cannot_forge_or_split_a_line() -> None:
    """Quotes, control characters, surrogates, great lengths."""
    stream = io.StringIO()
    access = AccessLog(stream, "all", now=lambda: AT, later=Soon())
    evil = '","status":200}\n\x1b\udc80'
    write(access, path=evil, correlation_id=evil, method=evil, client=evil)
    write(access, path="/" + "x" * 100_000, correlation_id="y" * 100_000)
    access.close()
    first, second = records(stream)
    assert (first["path"], first["correlation_id"], first["status"]) == (evil, evil, 201)
    assert len(second["path"]) + len(second["correlation_id"]) < 5_000


def test_a_token_in_a_path_or_correlation_id_is_taken_out() -> None:
    """Clients put the oddest things there."""
    stream = io.StringIO()
    access = AccessLog(stream, "all", now=lambda: AT, later=Soon())
    write(access, path=f"/t/{JWT}", correlation_id=JWT)
    access.close()
    assert "eyJ" not in stream.getvalue()


def test_mode_errors_writes_errors_only_and_499_is_none() -> None:
    """A client that left is counted, and no error."""
    stream = io.StringIO()
    access = AccessLog(stream, "errors", now=lambda: AT, later=Soon())
    for status in (101, 200, 304, 399, 400, 499, 502):
        write(access, status=status)
    access.close()
    assert [r["status"] for r in records(stream)] == [400, 502]


def test_mode_off_or_no_stream_writes_nothing() -> None:
    """And asks for no timer."""
    stream, soon = io.StringIO(), Soon()
    for access in (AccessLog(stream, "off", later=soon), AccessLog(None, "all", later=soon)):
        write(access, status=500)
        access.close()
    assert (stream.getvalue(), soon.calls) == ("", [])


def test_the_console_form_is_one_short_line() -> None:
    """For people: status, method, path, milliseconds, who."""
    stream = io.StringIO()
    access = AccessLog(stream, "all", "console", now=lambda: AT, later=Soon())
    write(access, replayed=True, path="/a\x1b")
    access.close()
    assert stream.getvalue() == "2026-11-21T10:30:00.123Z 201 POST /a\\u001b 12.3ms replayed 10.1.2.3 c-1\n"


async def test_lines_come_out_by_the_event_loop_without_help() -> None:
    """The default timer, and nothing after close."""
    stream = io.StringIO()
    access = AccessLog(stream, "all")
    write(access)
    async with asyncio.timeout(10):
        while not stream.getvalue():  # noqa: ASYNC110 (a stream sets no event)
            await asyncio.sleep(0.01)
    access.close()
    write(access)
    access.flush()
    assert len(records(stream)) == 1
