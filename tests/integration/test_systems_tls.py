"""An appliance with an address for a name and a certificate of a private authority, as Veeam's are."""

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from proxy import tls
from proxy.config import VeeamIdentity
from proxy.errors import TokenUnavailableError
from proxy.metrics import Metrics
from proxy.sandbox import Sandbox
from proxy.tokens.factory import build_keeper
from proxy.tokens.stores.memory import MemoryStore
from tests.support.tokens import Journal


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_private_authority_is_trusted_where_it_is_configured(tmp_path: Path, trusted: bool) -> None:
    authority = trustme.CA()
    (tmp_path / "ca.pem").write_bytes((authority if trusted else trustme.CA()).cert_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    sandbox = Sandbox()
    await sandbox.start(ssl_context=context)
    try:
        values: dict[str, Any] = {"token_url": sandbox.veeam_token_url, "tls": {"ca_file": str(tmp_path / "ca.pem")}}
        values |= {"system": "veeam", "username": sandbox.username, "password": sandbox.password}
        identity = VeeamIdentity.model_validate(values)
        parts: dict[str, Any] = {"store": MemoryStore(), "metrics": Metrics("test"), "log": Journal()}
        context = tls.client_context(identity.tls)
        keeper = build_keeper("veeam", identity, tls=context, explain=tls.explain, **parts)
        await keeper.start()
        if trusted:
            assert (await keeper.obtain()).line.startswith(b"Authorization: Bearer eyJ")
        else:
            with pytest.raises(TokenUnavailableError, match="no TLS connection"):
                await keeper.obtain()
        await keeper.close()
    finally:
        await sandbox.stop()
