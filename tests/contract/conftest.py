"""The stores to test, each with what it needs."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.redis import RedisServer, need_redis
from tests.support.stores import Workshop, key_file


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests that leave it as it is."""
    need_redis()
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "file", "folder", "redis"])
async def workshop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Workshop]:
    """One store after the other; for those that are shared, several of the same."""
    keys = str(key_file(tmp_path))
    sections: dict[str, dict[str, Any]] = {
        "file": {"file": {"path": str(tmp_path / "tokens.json"), "key_file": keys}},
        "folder": {"file": {"path": f"{tmp_path / 'tokens'}/", "key_file": keys}},
    }
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        sections["redis"] = {"redis": {"url": server.url, "key_file": keys, "prefix": f"{uuid4()}:"}}
    workshop = Workshop(sections.get(request.param, "memory"))
    yield workshop
    await workshop.close()
