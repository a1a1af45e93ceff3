"""In front of a real Keycloak by HTTPS: its certificate of a private authority, and ours, which proves the client."""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.scene import OpenScene, Scene
from tests.support.checks import client_certificate
from tests.support.gateway import until
from tests.support.keycloak import KeycloakServer

pytestmark = pytest.mark.timeout(600)  # the first test on a machine pays for the download and the build

REFRESH = {"min_interval": "1s", "ahead": 0.6}
X509 = {"x509.subjectdn": "(.*?)CN=crm(.*?)", "x509.allow.regex.pattern.comparison": "true"}


@pytest.fixture
def secure(keycloak_server: KeycloakServer, tmp_path: Path) -> dict[str, str]:
    """``tls`` of an identity: the server's authority, and a certificate of it for the client crm."""
    if keycloak_server.ca is None:
        pytest.skip("the server in KEYCLOAK_URL is not ours: its TLS is not known")
    keycloak_server.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return {"ca_file": "ca.pem", **client_certificate(tmp_path, "crm", keycloak_server.ca)}


async def renewed(here: Scene, *types: str) -> None:
    """Wait until a CRM's traffic has seen two renewals, none of its requests failed and no token refused."""
    async with here.traffic() as traffic:

        async def there() -> bool:
            return await here.realm.count(*types) >= 2

        await until(there, 20.0, "two renewals")
    assert (traffic.failed, here.upstream.refused) == ([], [])


async def test_a_private_authority_is_trusted_for_login_refresh_and_logout(
    scene: OpenScene, secure: dict[str, str]
) -> None:
    identity: dict[str, Any] = {"tls": {"ca_file": secure["ca_file"]}, "refresh": REFRESH}

    async def by_tls(here: Scene) -> None:
        identity["token_url"] = here.realm.tls_token_url

    async with scene(identity=identity, prepare=by_tls) as here:
        await renewed(here, "REFRESH_TOKEN")
        assert await here.gateway.stop() == 0
        events = [event["type"] for event in await here.realm.events()]
        assert (events[0], events[-1]) == ("LOGIN", "LOGOUT")
        assert set(events[1:-1]) == {"REFRESH_TOKEN"}
        # Keycloak issues under the address that it was asked by.
        assert {seen.claims["iss"] for seen in here.upstream.admitted} == {
            here.realm.tls_token_url.partition("/protocol")[0]
        }


@pytest.mark.parametrize("grant", ["password", "client_credentials"])
async def test_a_client_proves_itself_by_its_certificate(scene: OpenScene, secure: dict[str, str], grant: str) -> None:
    identity: dict[str, Any] = {"tls": secure, "client_auth": "tls", "grant": grant, "refresh": REFRESH}
    if grant == "client_credentials":
        identity |= {"username": None, "password_file": None}

    async def certified(here: Scene) -> None:
        identity["token_url"] = here.realm.tls_token_url
        await here.realm.patch_client(
            publicClient=False, serviceAccountsEnabled=True, clientAuthenticatorType="client-x509", attributes=X509
        )
        if grant == "client_credentials":
            here.upstream.role = "offline_access"  # what Keycloak gives a service account by itself

    async with scene(identity=identity, prepare=certified) as here:
        await renewed(here, "CLIENT_LOGIN" if grant == "client_credentials" else "REFRESH_TOKEN")
        assert await here.gateway.stop() == 0
        events = [event["type"] for event in await here.realm.events()]
        assert not [kind for kind in events if kind.endswith("ERROR")]
        assert (events[-1] == "LOGOUT") == (grant == "password")
