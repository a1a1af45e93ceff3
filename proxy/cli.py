"""argv in, exit code out. 0 done; 1 failed while running; 2 the configuration is wrong; 3 ``check`` found a problem."""

import argparse
import asyncio
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from proxy import __version__
from proxy.errors import ConfigError, Fault, ProxyError

DONE: Final = 0
FAILED: Final = 1
MISCONFIGURED: Final = 2
FOUND: Final = 3

# What the command line can say of the configuration: option -> dotted path.
_FLAGS: Final = {"listen": "listen.address", "admin": "admin", "log_level": "log.level", "log_format": "log.format"}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``opentv-proxy``."""
    options = argparse.Namespace(endless=False)
    try:
        _parser().parse_args(argv, options)
        _end_at_once(options)
        # A crash must not write tokens and passwords to a disk.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code: int = options.run(options)
        if sys.stdout is not None:
            with suppress(BrokenPipeError):  # whoever read our output has read enough; what was found stays
                sys.stdout.flush()
    except ConfigError as error:
        for fault in error.faults:
            _say(fault)
        _say(f"the configuration has {len(error.faults)} fault{'s' if len(error.faults) > 1 else ''}")
        return MISCONFIGURED
    except ProxyError as error:
        _say(error)
        return FAILED
    except BrokenPipeError:  # of a command that only shows something
        return DONE
    except OSError as error:
        _say(error.strerror or error)
        return FAILED
    except KeyboardInterrupt:
        return DONE if options.endless else FAILED
    finally:
        _let_go_of_stdout()
    return code


def _end_at_once(options: argparse.Namespace) -> None:
    """On a signal, as long as nothing has begun that has an end of its own. An exception would come amid an import,
    which a library in Rust tells as a crash of its own."""

    def end(_number: int, _frame: object) -> None:
        os._exit(DONE if options.endless else FAILED)

    signal.signal(signal.SIGINT, end)
    if options.endless:
        signal.signal(signal.SIGTERM, end)


def _say(words: object) -> None:
    with suppress(OSError):
        print(f"opentv-proxy: {words}", file=sys.stderr)


def _let_go_of_stdout() -> None:
    """What could not be written Python would try again at exit, to end with a traceback and a code of its own."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="opentv-proxy",
        description="Authenticating reverse proxy: adds and keeps the tokens that a CRM knows nothing of.",
        epilog="Exit codes: 0 done, 1 failed while running, 2 the configuration is wrong, 3 check found a problem.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"opentv-proxy {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = _command(commands, "run", "the gateway, in the foreground", _run, endless=True)
    _config_option(run)
    run.add_argument("--listen", metavar="HOST:PORT", help="instead of the configuration's")
    run.add_argument("--admin", metavar="HOST:PORT", help="instead of the configuration's")
    run.add_argument("--log-level", choices=["debug", "info", "warning", "error"])
    run.add_argument("--log-format", choices=["json", "console"])
    run.add_argument("--no-uvloop", action="store_true", help="use asyncio's own event loop")

    demo = _command(
        commands, "demo", "the gateway in front of a sandbox platform, nothing to configure", _demo, endless=True
    )
    demo.add_argument("--listen", metavar="HOST:PORT", default="127.0.0.1:8080")
    demo.add_argument("--admin", metavar="HOST:PORT", default="127.0.0.1:9090")
    demo.add_argument("--traffic", action="store_true", help="send requests through the gateway itself")

    words = "only the sandbox platform: token endpoints and an operator API"
    sandbox = _command(commands, "sandbox", words, _sandbox, endless=True)
    sandbox.add_argument("--listen", metavar="HOST:PORT", default="127.0.0.1:8081")
    sandbox.add_argument("--token-life", metavar="SECONDS", type=_seconds, default=300, help="of an access token")
    sandbox.add_argument("--session-idle", metavar="SECONDS", type=_seconds, default=1800, help="of a refresh token")
    sandbox.add_argument("--password-file", metavar="FILE", type=Path, help="the user's; default: a random one")

    check = _command(commands, "check", "validates, logs in once, refreshes once, logs out, asks each upstream", _check)
    _config_option(check)
    check.add_argument("--offline", action="store_true", help="stop after validation")
    check.add_argument("--json", action="store_true", help="for machines")

    config = _command(commands, "config", "the effective configuration and where each value comes from", _config)
    _config_option(config)

    _command(commands, "schema", "the JSON Schema of the configuration", _schema)

    token = _command(commands, "token", "logs in and shows the token's claims and lifetimes", _token)
    token.add_argument("name", metavar="NAME", help="the identity")
    _config_option(token)
    token.add_argument("--raw", action="store_true", help="the raw access token, and nothing else")
    token.add_argument(
        "--spend-seed", action="store_true", help="grant refresh_token: present the seed, which may end it"
    )

    store = _command(commands, "store", "what the token store holds: fingerprints and times, never a token", _store)
    _config_option(store)
    store.add_argument("--forget", metavar="NAME", help="drop what is stored for this identity")

    health = _command(commands, "healthcheck", "exit 0 when the running gateway is ready", _healthcheck)
    _config_option(health)
    health.add_argument("--admin", metavar="HOST:PORT", help="instead of a configuration's, which is not read")
    return parser


def _command(
    commands: Any,  # noqa: ANN401 - argparse's subparsers have no public type
    name: str,
    words: str,
    run: Callable[[argparse.Namespace], int],
    *,
    endless: bool = False,
) -> argparse.ArgumentParser:
    """endless: it runs until it is told to end, so ending is no failure."""
    description = words[0].upper() + words[1:]
    parser: argparse.ArgumentParser = commands.add_parser(name, help=words, description=description, allow_abbrev=False)
    parser.set_defaults(run=run, endless=endless)
    return parser


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10**9):
        raise argparse.ArgumentTypeError("expected a whole number of seconds, at least 1")
    return int(text)


def _config_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        metavar="FILE",
        help="default: $OPENTV_PROXY_CONFIG, /etc/opentv-proxy/proxy.yaml, config/proxy.yaml",
    )


def _flags(options: argparse.Namespace) -> Mapping[str, object]:
    flags: dict[str, object] = {path: getattr(options, name, None) for name, path in _FLAGS.items()}
    if getattr(options, "no_uvloop", False):
        flags["uvloop"] = False
    return flags


def run_loop(main: Coroutine[Any, Any, int], *, uvloop: bool) -> int:
    """On uvloop where it is installed and wanted, else on asyncio's own event loop."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if uvloop:
        with suppress(ImportError):
            from uvloop import new_event_loop

            factory = new_event_loop
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def _run(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can reload: what it is about to read is new enough
    from proxy.config import Loaded, load_config
    from proxy.server import Server, serve
    from proxy.trial import unusable

    def load() -> Loaded:
        return load_config(options.config, os.environ, _flags(options), judge=unusable)

    def announce(server: Server) -> None:
        proxy, admin = server.urls
        with suppress(OSError):  # a gateway serves on whether or not anybody reads its output
            print(f"opentv-proxy: proxy listening on {proxy}", flush=True)
            print(f"opentv-proxy: admin listening on {admin}", flush=True)

    loaded = load()
    logs_hooks()

    async def run() -> int:
        await serve(loaded, load, announce)
        return DONE

    return run_loop(run(), uvloop=loaded.config.uvloop)


def logs_hooks() -> None:
    """From here on crashes and warnings are log lines."""
    from proxy import logs

    logs.install_hooks()


def _demo(options: argparse.Namespace) -> int:
    from proxy.demo import demo

    return run_loop(demo(options.listen, options.admin, traffic=options.traffic), uvloop=True)


def _sandbox(options: argparse.Namespace) -> int:
    from proxy.demo import sandbox

    work = sandbox(
        options.listen,
        token_life=options.token_life,
        session_idle=options.session_idle,
        password_file=options.password_file,
    )
    return run_loop(work, uvloop=True)


def _check(options: argparse.Namespace) -> int:
    from proxy.check import check
    from proxy.config import load_config
    from proxy.trial import unusable

    loaded = load_config(options.config, os.environ, _flags(options), judge=unusable)
    return run_loop(check(loaded, offline=options.offline, as_json=options.json), uvloop=False)


def _config(options: argparse.Namespace) -> int:
    from proxy.config import load_config, render_effective
    from proxy.trial import unusable

    loaded = load_config(options.config, os.environ, _flags(options), read_secrets=False, judge=unusable)
    print(render_effective(loaded), end="")
    return DONE


def _schema(_options: argparse.Namespace) -> int:
    from proxy.config import schema_text

    print(schema_text(), end="")
    return DONE


def _token(options: argparse.Namespace) -> int:
    from proxy.config import load_config
    from proxy.inspect import token

    loaded = load_config(options.config, os.environ, _flags(options))
    work = token(loaded, options.name, raw=options.raw, spend_seed=options.spend_seed)
    return run_loop(work, uvloop=False)


def _store(options: argparse.Namespace) -> int:
    from proxy.config import load_config
    from proxy.store_command import store

    loaded = load_config(options.config, os.environ, _flags(options), read_secrets=False)
    return run_loop(store(loaded, options.forget), uvloop=False)


def _healthcheck(options: argparse.Namespace) -> int:
    from proxy.config import load_config
    from proxy.config.types import parse_address
    from proxy.healthcheck import healthcheck

    if options.admin is None:
        admin = load_config(options.config, os.environ, {}, read_secrets=False).config.admin
    else:  # all there is to know: no configuration needs to be here
        try:
            admin = parse_address(options.admin)
        except ValueError as error:
            raise ConfigError([Fault("admin", f"{error} (set by --admin)")]) from None
    return healthcheck(admin.host, admin.port)
