"""Fixtures of the unit tests."""

from collections.abc import AsyncIterator

import pytest

from tests.support.tokens import Wing


@pytest.fixture
async def wing() -> AsyncIterator[Wing]:
    """The token wing on a hand-turned clock, closed when the test ends."""
    wing = Wing()
    yield wing
    wing.provider.recover()
    await wing.close()
