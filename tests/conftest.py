"""What tests of every kind share."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, start_gateway

StartGateway = Callable[..., Awaitable[Gateway]]

# Run in the background or under nohup, we would hand "ignore Ctrl-C" down to every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[StartGateway]:
    """``await start(config, env=…)`` runs the gateway as a process; it is stopped when the test ends."""
    running: list[Gateway] = []

    async def start_one(config: Mapping[str, Any], env: Mapping[str, str] | None = None) -> Gateway:
        folder = tmp_path / f"gateway{len(running)}"
        folder.mkdir()
        gateway = await start_gateway(config, folder, env)
        running.append(gateway)
        return gateway

    yield start_one
    for gateway in running:
        if gateway.exit_code is None:
            await gateway.stop()
