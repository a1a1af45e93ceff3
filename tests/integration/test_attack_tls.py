"""What goes wrong with TLS towards upstreams and token endpoints: each in words, each counted, none a hang.

The listener's side of it is in test_attack_handshakes.py.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, running_gateway, until
from tests.support.rawclient import ask
from tests.support.relay import GET, problem
from tests.support.tlspeers import FAULTS, tls_peer

WORDS = {
    "wrong name": "its certificate is not for 127.0.0.1",
    "expired": "its certificate has expired",
    "unknown authority": "put that authority into ca_file",
    "client certificate demanded": "the peer demands a client certificate",
}


async def metric(gateway: Gateway, name: str) -> float:
    """The sum of the samples that begin so."""
    request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    lines = (await ask(gateway.admin_url, request)).body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"opentv_proxy_{name}"))


@pytest.mark.parametrize("uvloop", [True, False], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_an_upstream_whose_tls_is_wrong_is_502_in_words_and_counted(
    tmp_path: Path, fault: str, uvloop: bool
) -> None:
    with tls_peer(fault, tmp_path) as peer:
        route = {"path": "/", "upstream": peer.url, "identity": None, "tls": peer.tls}
        async with running_gateway({"routes": [route], "uvloop": uvloop}, tmp_path) as gateway:
            begun = asyncio.get_running_loop().time()
            found = [await ask(gateway.url, GET) for _ in range(3)]
            assert asyncio.get_running_loop().time() - begun < 3.0
            assert [each.status for each in found] == [502] * 3
            if uvloop or fault != "client certificate demanded":  # asyncio meets the reset before the alert, or not
                assert all(WORDS[fault] in problem(each)["detail"] for each in found), problem(found[0])
                assert found[0].values(b"proxy-status") == [b"opentv-proxy; error=tls_protocol_error"]
                assert await metric(gateway, 'upstream_errors_total{reason="tls"') == 3
            assert await metric(gateway, "upstream_errors_total") == 3
        assert peer.asked == 0


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_token_endpoint_whose_tls_is_wrong_is_503_in_words_and_counted(tmp_path: Path, fault: str) -> None:
    with tls_peer(fault, tmp_path) as peer:
        opentv: dict[str, Any] = {
            "system": "keycloak",
            "token_url": f"{peer.url}/token",
            "client_id": "crm",
            "username": "alice",
            "password": "secret-of-alice",
            "tls": peer.tls,
        }
        route = {"path": "/", "upstream": "http://127.0.0.1:1", "identity": "opentv"}
        async with running_gateway({"identities": {"opentv": opentv}, "routes": [route]}, tmp_path) as gateway:
            await until(lambda: WORDS[fault] in "\n".join(gateway.log), 5.0, "words in the log")
            begun = asyncio.get_running_loop().time()
            found = await ask(gateway.url, GET)
            assert asyncio.get_running_loop().time() - begun < 3.0
            assert found.status == 503
            assert WORDS[fault] in problem(found)["detail"], problem(found)
            refused = await metric(gateway, "token_refreshes_total")
            assert refused >= 1
            network = 'token_refreshes_total{grant="login",identity="opentv",result="network"'
            assert await metric(gateway, network) == refused
        assert peer.asked == 0


async def test_where_nothing_is_wrong_it_works(tmp_path: Path) -> None:
    with tls_peer("", tmp_path) as peer:
        route = {"path": "/", "upstream": peer.url, "identity": None, "tls": peer.tls}
        async with running_gateway({"routes": [route]}, tmp_path) as gateway:
            assert (await ask(gateway.url, GET)).status == 204
        assert peer.asked == 1
