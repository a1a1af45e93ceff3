"""``opentv-proxy check``: validates, logs in once, refreshes once, asks each upstream, logs out; says what it found."""

import os
import sys
import time
from collections.abc import Iterator
from typing import Final

from proxy.checks.finding import Finding, certificate_times, hint, ok
from proxy.checks.report import Report
from proxy.config import Config, Loaded, warnings
from proxy.trial import tls_files

DONE: Final = 0
FOUND: Final = 3


async def check(loaded: Loaded, *, offline: bool, as_json: bool) -> int:
    """0 when nothing is wrong (hints included), 3 when a problem was found."""
    report = Report(sys.stdout, sys.stderr, os.environ, as_json=as_json)
    for finding in _configuration(loaded):
        report.tell(finding)
    if offline:
        await _store_files(loaded.config, report)
    else:
        from proxy.checks.online import visit_all  # the token wing's libraries are slow to import

        await visit_all(loaded.config, report, os.environ)
    report.finish()
    return DONE if report.ok else FOUND


def _configuration(loaded: Loaded) -> Iterator[Finding]:
    """What can be said without asking anybody; who loaded it has refused what is wrong."""
    config = loaded.config
    counts = f"identities: {len(config.identities)}, routes: {len(config.routes)}"
    yield ok("configuration", f"{loaded.path or 'the environment'} is valid", counts)
    for words in warnings(config):
        finding, _, advice = words.partition("; ")
        yield hint("configuration", finding, advice=advice)
    yield from _certificates(config)


async def _store_files(config: Config, report: Report) -> None:
    from proxy.checks.store import opened

    kept = opened(config, report.tell)
    if kept is not None:
        await kept.close()


def _certificates(config: Config) -> Iterator[Finding]:
    """Of those that this side shows: others learn of a dead one by a handshake that fails."""
    from proxy.checks.certificates import of_file  # its library is slow to import

    shows = [("listen.tls", config.listen.tls), *tls_files(config)]
    for where, section in shows:
        path = section.cert_file if section is not None else None
        if path is not None and (found := of_file(path)) is not None:
            yield from certificate_times("configuration", f"{where}.cert_file: the", found, time.time())
