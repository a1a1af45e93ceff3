"""What goes wrong with TLS towards upstreams and token endpoints: each in words, each counted, none a hang.

The listener's side of it is in test_attack_handshakes.py.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway import Gateway, running_gateway, until
from tests.support.rawclient import ask
from tests.support.relay import GET, problem
from tests.support.tlspeers import FAULTS, TlsPeer, tls_peer

WORDS = {
    "wrong name": "its certificate is not for 127.0.0.1",
    "expired": "its certificate has expired",
    "unknown authority": "put that authority into ca_file",
    "client certificate demanded": "a client certificate",
}


async def metric(gateway: Gateway, name: str) -> float:
    """The sum of the samples that begin so."""
    request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    lines = (await ask(gateway.admin_url, request)).body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"opentv_proxy_{name}"))


def opentv(peer: TlsPeer) -> dict[str, Any]:
    login = {"client_id": "crm", "username": "alice", "password": "secret-of-alice"}
    return {"system": "keycloak", "token_url": f"{peer.url}/token", "tls": peer.tls, **login}


@pytest.mark.parametrize("uvloop", [True, False], ids=["uvloop", "asyncio"])
async def test_an_upstream_whose_tls_is_wrong_is_502_in_words_and_counted(tmp_path: Path, uvloop: bool) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(tls_peer(fault, tmp_path)) for fault in ("", *FAULTS)]
        routes = [
            {"path": f"/{number}", "upstream": peer.url, "identity": None, "tls": peer.tls}
            for number, peer in enumerate(peers)
        ]
        async with running_gateway({"routes": routes, "uvloop": uvloop}, tmp_path) as gateway:
            assert (await ask(gateway.url, GET.replace(b"/ ", b"/0 "))).status == 204
            for number, fault in enumerate(FAULTS, 1):
                begun = asyncio.get_running_loop().time()
                found = [await ask(gateway.url, GET.replace(b"/ ", b"/%d " % number)) for _ in range(3)]
                assert asyncio.get_running_loop().time() - begun < 3.0, fault
                assert [each.status for each in found] == [502] * 3, fault
                if uvloop or fault != "client certificate demanded":  # asyncio meets the reset before the alert, or not
                    assert all(WORDS[fault] in problem(each)["detail"] for each in found), problem(found[0])
                    assert found[0].values(b"proxy-status") == [b"opentv-proxy; error=tls_protocol_error"]
                    errors = f'upstream_errors_total{{reason="tls",route="/{number}"'
                    assert await metric(gateway, errors) == 3, fault
            assert await metric(gateway, "upstream_errors_total") == 3 * len(FAULTS)
        assert [peer.asked for peer in peers] == [1, 0, 0, 0, 0]


async def test_a_token_endpoint_whose_tls_is_wrong_is_503_in_words_and_counted(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(tls_peer(fault, tmp_path)) for fault in FAULTS]
        names = [f"i{number}" for number in range(len(FAULTS))]
        config = {
            "identities": {name: opentv(peer) for name, peer in zip(names, peers, strict=True)},
            "routes": [{"path": f"/{name}", "upstream": "http://127.0.0.1:1", "identity": name} for name in names],
        }
        async with running_gateway(config, tmp_path) as gateway:
            for name, fault in zip(names, FAULTS, strict=True):
                await until(
                    lambda words=WORDS[fault]: words in "\n".join(gateway.log), 5.0, f"words in the log: {fault}"
                )
                begun = asyncio.get_running_loop().time()
                found = await ask(gateway.url, GET.replace(b"/ ", f"/{name} ".encode()))
                assert asyncio.get_running_loop().time() - begun < 3.0, fault
                assert found.status == 503, fault
                assert WORDS[fault] in problem(found)["detail"], problem(found)
                network = f'token_refreshes_total{{grant="login",identity="{name}",result="network"'
                assert await metric(gateway, network) >= 1, fault
                every = f'token_refreshes_total{{grant="login",identity="{name}"'
                assert await metric(gateway, every) == await metric(gateway, network), fault
        assert [peer.asked for peer in peers] == [0] * len(FAULTS)
