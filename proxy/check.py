"""``opentv-proxy check``: validates, logs in once, refreshes once, asks each upstream, logs out; says what it found."""

import os
import sys
import time
from collections.abc import Iterator
from typing import Final

from proxy import tls
from proxy.checks.finding import Finding, certificate_times, faults, hint, ok
from proxy.checks.report import Report
from proxy.config import ClientTls, Config, Loaded, RemoteIdentity, files_of, warnings
from proxy.errors import ConfigError

DONE: Final = 0
FOUND: Final = 3


async def check(loaded: Loaded, *, offline: bool, as_json: bool) -> int:
    """0 when nothing is wrong (hints included), 3 when a problem was found."""
    report = Report(sys.stdout, sys.stderr, os.environ, as_json=as_json)
    for finding in _configuration(loaded, offline=offline):
        report.tell(finding)
    if offline:
        await _store_files(loaded.config, report)
    else:
        from proxy.checks.online import visit_all  # the token wing's libraries are slow to import

        await visit_all(loaded.config, report, os.environ)
    report.finish()
    return DONE if report.ok else FOUND


def _configuration(loaded: Loaded, *, offline: bool) -> Iterator[Finding]:
    """What can be said without asking anybody; ``load_config`` has refused what is wrong in itself."""
    config = loaded.config
    counts = f"identities: {len(config.identities)}, routes: {len(config.routes)}"
    yield ok("configuration", f"{loaded.path or 'the environment'} is valid", counts)
    for words in warnings(config):
        finding, _, advice = words.partition("; ")
        yield hint("configuration", finding, advice=advice)
    try:
        if config.listen.tls is not None:
            tls.server_context(config.listen.tls)
    except ConfigError as error:
        yield from faults("configuration", error)
    for where, section in _tls_files(config) if offline else ():  # else those who use them say so
        try:
            tls.client_context(section, where)
        except ConfigError as error:
            yield from faults("configuration", error)
    yield from _certificates(config)


async def _store_files(config: Config, report: Report) -> None:
    from proxy.checks.store import opened

    kept = opened(config, report.tell)
    if kept is not None:
        await kept.close()


def _certificates(config: Config) -> Iterator[Finding]:
    """Of those that this side shows: others learn of a dead one by a handshake that fails."""
    from proxy.checks.certificates import of_file  # its library is slow to import

    shows = [("listen.tls", config.listen.tls), *_tls_files(config)]
    for where, section in shows:
        path = section.cert_file if section is not None else None
        if path is not None and (found := of_file(path)) is not None:
            yield from certificate_times("configuration", f"{where}.cert_file: the", found, time.time())


def _tls_files(config: Config) -> Iterator[tuple[str, ClientTls]]:
    sections = [(f"routes.{index}.tls", route.tls) for index, route in enumerate(config.routes)]
    for name, identity in config.identities.items():
        if isinstance(identity, RemoteIdentity):
            sections.append((f"identities.{name}.tls", identity.tls))
    yield from ((where, section) for where, section in sections if files_of(section))
