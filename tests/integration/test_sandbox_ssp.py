"""The sandbox's SSP verification from outside: a token the caller signs itself, and nothing but what was agreed on."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest

from proxy.sandbox import Sandbox, SandboxSettings, SspSettings
from tests.support.sandbox import START, Answer, Platform, running

PAYLOAD = {"typ": "AuthN", "ver": "1.0", "exp": int(START) + 300}


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with running() as platform:
        yield platform


def signed(platform: Platform, payload: dict[str, Any] | None = None, **header: Any) -> str:
    file = platform.sandbox.ssp_credentials
    wanted = {"typ": "JWT", "kid": file["credentialId"], **header}
    algorithm = wanted.pop("alg", "HS256")
    return jwt.encode(payload or PAYLOAD, base64.b64decode(file["signingKey"]), algorithm=algorithm, headers=wanted)


async def use(platform: Platform, token: str) -> Answer:
    return await platform.ask("GET", "/ssp-api/adm/v1/devices", headers={"nv-authorizations": token})


async def test_a_token_signed_with_the_credentials_file_serves_until_it_expires(platform: Platform) -> None:
    token = signed(platform)
    assert (await use(platform, token)).status == 200
    platform.clock.time += 301
    assert (await use(platform, token))["result"] == "Access token is expired"
    assert platform.state.counters["ssp_api_requests"] == 2


async def test_the_credentials_file_has_the_vendors_fields_and_can_be_asked_for(platform: Platform) -> None:
    answer = await platform.ask("POST", "/_sandbox/ssp-credentials")
    assert answer.body == platform.sandbox.ssp_credentials
    assert list(answer.body) == ["tenantId", "credentialName", "credentialId", "signingKey", "privilege"]
    assert len(base64.b64decode(answer["signingKey"], validate=True)) == 32
    overview = str((await platform.ask("GET", "/_sandbox")).body) + repr(platform.state.settings)
    assert answer["signingKey"] not in overview


async def test_the_signing_key_is_random_unless_one_is_given() -> None:
    assert Sandbox().ssp_credentials["signingKey"] != Sandbox().ssp_credentials["signingKey"]
    settings = SandboxSettings(ssp=SspSettings(signing_key="a" * 44, credential_id="7", privilege=("SMS", "OPS")))
    file = Sandbox(settings).ssp_credentials
    assert (file["signingKey"], file["credentialId"], file["privilege"]) == ("a" * 44, "7", ["SMS", "OPS"])


@pytest.mark.parametrize(
    ("payload", "header", "words"),
    [
        (PAYLOAD, {"kid": "1"}, "agreed"),
        (PAYLOAD, {"typ": "jwt"}, "agreed"),
        (PAYLOAD, {"cty": "JWT"}, "agreed"),
        ({**PAYLOAD, "typ": "DevAuthN"}, {}, "agreed"),
        ({**PAYLOAD, "ver": 1.0}, {}, "agreed"),
        ({**PAYLOAD, "iat": int(START)}, {}, "agreed"),
        ({**PAYLOAD, "exp": str(PAYLOAD["exp"])}, {}, "agreed"),
        ({**PAYLOAD, "exp": float(int(START) + 300)}, {}, "agreed"),
        ({"typ": "AuthN", "ver": "1.0"}, {}, "agreed"),
        ({**PAYLOAD, "exp": 0}, {}, "expired"),
        ({**PAYLOAD, "exp": int(START) - 1}, {}, "expired"),
    ],
)
async def test_another_header_or_other_claims_are_refused(
    platform: Platform, payload: dict[str, Any], header: dict[str, str], words: str
) -> None:
    answer = await use(platform, signed(platform, payload, **header))
    assert answer.status == 403
    assert words in answer["result"]


async def test_another_key_a_scheme_word_and_another_header_are_refused(platform: Platform) -> None:
    token = signed(platform)
    assert (await use(platform, f"Bearer {token}"))["result"] == "The credential is not in the scheme asked for"
    bearer = await platform.call(token, "/ssp-api/adm/v1/devices")
    assert bearer["result"] == "Access token is missing"
    platform.state.settings.ssp.signing_key = base64.b64encode(b"k" * 32).decode()
    assert (await use(platform, token))["result"] == "Access token is invalid"
    assert (await use(platform, signed(platform))).status == 200
    assert (await use(platform, "nonsense")).status == 403


async def test_another_algorithm_is_refused_even_with_the_right_key(platform: Platform) -> None:
    platform.state.settings.ssp.signing_key = base64.b64encode(b"k" * 64).decode()
    assert (await use(platform, signed(platform))).status == 200
    assert (await use(platform, signed(platform, alg="HS512")))["result"] == "Access token is invalid"
    _, payload, _ = signed(platform).split(".")
    assert (await use(platform, f"eyJhbGciOiJub25lIn0.{payload}."))["result"] == "Access token is invalid"


async def test_a_token_that_lives_too_long_is_refused_when_there_is_a_limit(platform: Platform) -> None:
    platform.state.settings.ssp.max_life = 300
    assert (await use(platform, signed(platform))).status == 200
    assert (await use(platform, signed(platform, {**PAYLOAD, "exp": int(START) + 302}))).status == 403
