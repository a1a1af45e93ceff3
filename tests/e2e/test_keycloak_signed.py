"""In front of a real Keycloak: a client that proves itself with a key, and a confidential client's offline seed."""

import json
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from tests.e2e.scene import OpenScene, Scene
from tests.support.gateway import until
from tests.support.keycloak import CLIENT, USER, USER_PASSWORD

pytestmark = pytest.mark.timeout(600)  # the first test on a machine pays for the download and the build

REFRESH = {"min_interval": "1s", "ahead": 0.6}
SECRET = "a%b+c:d é/=&"


def key_pair(algorithm: str, file: Path) -> str:
    """Writes the private key; the public one as a JWK set."""
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = ec.generate_private_key(ec.SECP256R1())
    if algorithm == "RS256":
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem, nothing = serialization.Encoding.PEM, serialization.NoEncryption()
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, nothing))
    if isinstance(key, rsa.RSAPrivateKey):
        public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return json.dumps({"keys": [{**public, "use": "sig", "alg": algorithm, "kid": "crm"}]})


@pytest.mark.parametrize("grant", ["password", "client_credentials"])
@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_client_that_signs_logs_in_renews_and_logs_out(scene: OpenScene, algorithm: str, grant: str) -> None:
    async def signing(here: Scene) -> None:
        public = key_pair(algorithm, here.folder / "key.pem")
        await here.realm.patch_client(
            publicClient=False,
            serviceAccountsEnabled=True,
            clientAuthenticatorType="client-jwt",
            attributes={
                "use.jwks.string": "true",
                "jwks.string": public,
                "token.endpoint.auth.signing.alg": algorithm,
            },
        )
        if grant == "client_credentials":
            here.upstream.role = "offline_access"  # what Keycloak gives a service account by itself

    identity: dict[str, object] = {
        "client_auth": "private_key_jwt",
        "private_key_file": "key.pem",
        "grant": grant,
        "refresh": REFRESH,
    }
    if grant == "client_credentials":
        identity |= {"username": None, "password_file": None}
    async with scene(identity=identity, prepare=signing) as here:
        async with here.traffic() as traffic:

            async def renewed() -> bool:
                return await here.realm.count("CLIENT_LOGIN", "REFRESH_TOKEN") >= 2

            await until(renewed, 20.0, "two renewals")
        assert (traffic.failed, here.upstream.refused) == ([], [])
        assert await here.gateway.stop() == 0
        events = [event["type"] for event in await here.realm.events()]
        assert not [kind for kind in events if kind.endswith("ERROR")]
        assert (events[-1] == "LOGOUT") == (grant == "password")


async def test_a_confidential_clients_offline_token_is_the_seed(scene: OpenScene) -> None:
    async def seed(here: Scene) -> None:
        await here.realm.patch_client(publicClient=False, secret=SECRET)
        form = {"grant_type": "password", "client_id": CLIENT, "client_secret": SECRET, "scope": "offline_access"}
        form |= {"username": USER, "password": USER_PASSWORD}
        async with aiohttp.ClientSession() as http, http.post(here.realm.token_url, data=form) as reply:
            (here.folder / "refresh-token.txt").write_text((await reply.json())["refresh_token"])

    identity = {
        "grant": "refresh_token",
        "refresh_token_file": "refresh-token.txt",
        "scope": "offline_access",
        "client_auth": "post",
        "client_secret": SECRET,
        "username": None,
        "password_file": None,
        "refresh": REFRESH,
    }
    async with scene(identity=identity, prepare=seed) as here:
        seeded = (here.folder / "refresh-token.txt").read_text()
        async with here.traffic() as traffic:

            async def rotated() -> bool:
                return await here.realm.count("REFRESH_TOKEN") >= 3

            await until(rotated, 20.0, "three rotations")
        assert (traffic.failed, here.upstream.refused) == ([], [])
        assert (here.folder / "refresh-token.txt").read_text() == seeded
        assert (await here.status())["refresh_expires_at"] is None
        assert await here.realm.count("REFRESH_TOKEN_ERROR") == 0
