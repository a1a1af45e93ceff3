"""The real Keycloak, one for the whole run."""

import functools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.scene import OpenScene, open_scene
from tests.support.keycloak import Administrator, KeycloakServer, OwnServer, Realm, named_server
from tests.support.keycloak_build import KeycloakMissingError
from tests.support.verifying_upstream import VerifyingUpstream


def own_server(factory: pytest.TempPathFactory) -> OwnServer:
    """A server of our own; where none can be had, a failure in CI and a skip that says what to install elsewhere."""
    try:
        return OwnServer(factory.mktemp("keycloak"))
    except KeycloakMissingError as exc:
        if os.environ.get("CI") or os.environ.get("REQUIRE_KEYCLOAK"):
            raise
        pytest.skip(f"{exc}; or name a running server in KEYCLOAK_URL")


@pytest.fixture(scope="session")
def keycloak_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeycloakServer]:
    """The server that all tests share, each with a realm of its own."""
    server = named_server() or own_server(tmp_path_factory)
    yield server
    server.close()


@pytest.fixture
def mortal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """A server for one test alone, which may kill it."""
    server = own_server(tmp_path_factory)
    yield server
    server.close()


@pytest.fixture
def scene(keycloak_server: KeycloakServer, tmp_path: Path) -> OpenScene:
    """``async with scene(...) as here``: realm, verifying upstream and gateway on the shared server."""
    return functools.partial(open_scene, keycloak_server, tmp_path)


@pytest.fixture
async def realm(keycloak_server: KeycloakServer) -> AsyncIterator[Realm]:
    """A realm as a site has it: tokens of 6 s, rotation without reuse, brute force protection, events."""
    async with Administrator(keycloak_server) as administrator:
        realm = await administrator.create_realm()
        yield realm
        await realm.delete()


@pytest.fixture
async def upstream(realm: Realm) -> AsyncIterator[VerifyingUpstream]:
    """An operator API that verifies every token against the realm's keys."""
    async with VerifyingUpstream(realm.certs_url) as upstream:
        yield upstream
