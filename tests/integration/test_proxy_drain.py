"""A person at the terminal who presses Ctrl-C twice does not want to wait for the drain."""

import os
import signal
from pathlib import Path

from tests.support.gateway import running_gateway, until
from tests.support.rawclient import client
from tests.support.rawserver import Wire, raw_server
from tests.support.relay import GET


async def silent(wire: Wire) -> None:
    await wire.head()
    await wire.ended.wait()


async def test_the_second_interrupt_ends_the_drain(tmp_path: Path) -> None:
    async with raw_server(silent) as raw:
        route = {"path": "/", "upstream": raw.url, "identity": None}
        config = {"routes": [route], "shutdown": {"drain": "60s"}}
        async with running_gateway(config, tmp_path) as gateway, client(gateway.url) as wire:
            wire.send(GET)
            await until(lambda: bool(raw.received), 5.0, "the request upstream")
            os.kill(gateway.pid, signal.SIGINT)
            await until(lambda: "shutting down" in gateway.words(), 5.0, "the end's beginning")
            os.kill(gateway.pid, signal.SIGTERM)  # orchestrators repeat themselves, and mean nothing by it
            assert not wire.ended.is_set()
            os.kill(gateway.pid, signal.SIGINT)
            await until(lambda: gateway.exit_code is not None, 5.0, "the end")
            assert (await wire.response()).status == 504
            assert gateway.exit_code == 0
