"""The sandbox over TLS: a private CA, client certificates, and the faults that break connections off."""

import contextlib
import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest
import trustme

from proxy.sandbox import Client, Fault, Realm, Sandbox, SandboxSettings
from tests.support.sandbox import Clock, Platform, Sleeps

CA = trustme.CA()
SERVER = CA.issue_cert("127.0.0.1", "localhost")
CLIENT = CA.issue_cert("crm@example.com", common_name="crm")
STRANGER = CA.issue_cert("stranger@example.com", common_name="stranger")


def server_context(mode: ssl.VerifyMode) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    SERVER.configure_cert(context)
    if mode is not ssl.CERT_NONE:
        CA.configure_trust(context)
        context.verify_mode = mode
    return context


def client_context(certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


@contextlib.asynccontextmanager
async def over_tls(
    mode: ssl.VerifyMode = ssl.CERT_NONE, certificate: trustme.LeafCert | None = None
) -> AsyncIterator[Platform]:
    settings = SandboxSettings(
        clients=(Client("crm_client"), Client("by-certificate", certificate_name="crm", service_account=True)),
        realms=(Realm("nagra", require_https=True),),
    )
    sandbox = Sandbox(settings, clock=(clock := Clock()), sleep=(sleeps := Sleeps()))
    await sandbox.start(ssl_context=server_context(mode))
    connector = aiohttp.TCPConnector(ssl=client_context(certificate))
    try:
        async with aiohttp.ClientSession(connector=connector) as http:
            yield Platform(sandbox, clock, sleeps, http)
    finally:
        await sandbox.stop()


async def test_every_url_is_https_and_a_realm_that_wants_it_serves() -> None:
    async with over_tls() as platform:
        assert platform.sandbox.token_url.startswith("https://127.0.0.1:")
        assert platform.sandbox.veeam_token_url.startswith("https://")
        pair = await platform.login()
        assert (pair.status, (await platform.call(pair["access_token"])).status) == (200, 200)
        assert (await platform.refresh(pair["refresh_token"])).status == 200
        seed = platform.sandbox.refresh_token()
        assert (await platform.refresh(seed)).status == 200


async def test_whoever_does_not_know_the_ca_gets_no_answer() -> None:
    async with over_tls() as platform, aiohttp.ClientSession() as stranger:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await stranger.post(platform.sandbox.token_url)
        assert platform.state.counters["token_requests"] == 0


async def test_without_a_certificate_a_mutual_listener_answers_nobody() -> None:
    async with over_tls(ssl.CERT_REQUIRED) as platform:
        with pytest.raises((aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)):
            await platform.login()
    async with over_tls(ssl.CERT_REQUIRED, CLIENT) as platform:
        assert (await platform.login()).status == 200
        assert platform.state.token_calls[-1].certificate == "crm"


@pytest.mark.parametrize(("certificate", "status"), [(CLIENT, 200), (STRANGER, 401), (None, 401)])
async def test_a_client_can_be_known_by_its_certificate(certificate: trustme.LeafCert | None, status: int) -> None:
    async with over_tls(ssl.CERT_OPTIONAL, certificate) as platform:
        answer = await platform.login(client_id="by-certificate")
        assert answer.status == status
        service = await platform.token({"grant_type": "client_credentials", "client_id": "by-certificate"})
        assert service.status == status
        if status == 401:
            assert answer.refusal[1] == service.refusal[1] == "unauthorized_client"


@pytest.mark.parametrize("kind", ["rotate-then-reset", "half-json", "close"])
async def test_a_connection_breaks_off_over_tls_too(kind: str) -> None:
    async with over_tls() as platform:
        platform.state.add_fault("token", Fault(kind))  # type: ignore[arg-type] # all are kinds, parametrized as strings
        with pytest.raises((aiohttp.ClientError, ConnectionResetError)):
            await platform.login()
        assert (await platform.login()).status == 200


async def test_a_sandbox_can_go_on_without_tls_on_the_same_port() -> None:
    async with over_tls() as platform:
        await platform.sandbox.stop()
        await platform.sandbox.start(port=platform.sandbox.port)
        assert platform.sandbox.url.startswith("http://")
        refused = await platform.login()
        assert refused.refusal == (403, "invalid_request", "HTTPS required")
