"""Clients that prove themselves by private_key_jwt at the sandbox's token endpoint, from outside."""

import uuid
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from proxy.sandbox import Client, SandboxSettings
from proxy.sandbox.signing import key_id
from tests.support.sandbox import START, Answer, Platform, running

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P256 = ec.generate_private_key(ec.SECP256R1())
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def pem(key: Key) -> str:
    encoding, layout = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, layout).decode()


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    clients = (
        Client("rsa", public_key=pem(RSA), service_account=True),
        Client("ec", public_key=pem(P256)),
        Client("backend", secret="s", service_account=True),
        Client("broken", public_key="no key"),
    )
    async with running(SandboxSettings(clients=clients)) as platform:
        yield platform


def claims(platform: Platform, client: str = "rsa", **change: Any) -> dict[str, Any]:
    now = int(START)
    made: dict[str, Any] = {"iss": client, "sub": client, "aud": platform.sandbox.token_url, "jti": str(uuid.uuid4())}
    made |= {"iat": now, "exp": now + 30, **change}
    return {name: value for name, value in made.items() if value is not None}


async def ask(platform: Platform, made: dict[str, Any], key: Key = RSA, algorithm: str = "RS256", **how: Any) -> Answer:
    assertion = jwt.encode(made, key, algorithm=algorithm, headers=how.pop("header", None))
    form = {"grant_type": "password", "username": platform.sandbox.username, "password": platform.sandbox.password}
    form |= {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion, **how}
    return await platform.token(form)


async def test_rs256_and_es256_assertions_prove_their_clients(platform: Platform) -> None:
    assert (await ask(platform, claims(platform))).status == 200
    assert (await ask(platform, claims(platform, "ec"), P256, "ES256")).status == 200
    assert (await ask(platform, claims(platform), client_id="rsa")).status == 200


@pytest.mark.parametrize("as_list", [False, True])
async def test_the_audience_is_the_issuer_or_the_token_url(platform: Platform, as_list: bool) -> None:
    for audience in (platform.sandbox.issuer, platform.sandbox.token_url):
        made = claims(platform, aud=[audience] if as_list else audience)
        assert (await ask(platform, made)).status == 200


async def test_every_grant_and_the_logout_ask_for_an_assertion(platform: Platform) -> None:
    service = await ask(platform, claims(platform), grant_type="client_credentials")
    assert (service.status, "refresh_token" in service.body) == (200, False)
    pair = await ask(platform, claims(platform))
    again = {"grant_type": "refresh_token", "refresh_token": pair["refresh_token"]}
    without = await platform.token({"client_id": "rsa", **again})
    assert without.refusal == (400, "invalid_client", "Parameter client_assertion_type is missing")
    renewed = await ask(platform, claims(platform), **again)
    assert renewed.status == 200
    assert (await platform.logout(renewed["refresh_token"], client_id="rsa")).status == 400


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"aud": ["{token}", "{issuer}"]}, "Multiple audiences not allowed"),
        ({"aud": "https://other.example.com"}, "Invalid token audience"),
        ({"aud": None}, "Invalid token audience"),
        ({"jti": None}, "Token jti claim is required"),
        ({"exp": None}, "Token exp claim is required"),
        ({"exp": int(START) - 1}, "Token is not active"),
        ({"iat": int(START) + 20, "exp": int(START) + 50}, "Token was issued in the future"),
        ({"iat": int(START) - 61}, "Token was issued too far in the past to be used now"),
        ({"iat": None, "exp": int(START) + 61}, "Token expiration is too far in the future"),
        ({"iss": "other"}, "Issuer mismatch"),
        ({"sub": None, "iss": None}, "Issuer mismatch"),
    ],
)
async def test_what_is_wrong_with_an_assertion_is_a_400_in_keycloaks_words(
    platform: Platform, change: dict[str, Any], words: str
) -> None:
    urls = {"token": platform.sandbox.token_url, "issuer": platform.sandbox.issuer}
    if isinstance(change.get("aud"), list):
        change = {"aud": [text.format(**urls) for text in change["aud"]]}
    status, error, description = (await ask(platform, claims(platform, **change))).refusal
    assert (status, error) == (400, "invalid_client")
    assert words in description


async def test_a_few_seconds_ahead_are_forgiven(platform: Platform) -> None:
    assert (await ask(platform, claims(platform, iat=int(START) + 15))).status == 200
    platform.state.settings.assertion_skew = 3
    assert (await ask(platform, claims(platform, iat=int(START) + 4))).status == 400


async def test_an_assertion_serves_once(platform: Platform) -> None:
    made = claims(platform)
    assert (await ask(platform, made)).status == 200
    assert (await ask(platform, made)).refusal == (400, "invalid_client", "Token reuse detected")
    other = claims(platform, "ec", jti=made["jti"])
    assert (await ask(platform, other, P256, "ES256")).status == 200


async def test_no_kid_is_fine_and_a_wrong_one_is_not(platform: Platform) -> None:
    right = {"kid": key_id(RSA.public_key())}
    assert (await ask(platform, claims(platform), header=right)).status == 200
    wrong = await ask(platform, claims(platform), header={"kid": "other"})
    assert wrong.refusal == (400, "invalid_client", "Unable to load public key")


async def test_another_key_or_algorithm_proves_nothing(platform: Platform) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    forged = await ask(platform, claims(platform), stranger)
    assert forged.refusal[:2] == (400, "invalid_client")
    assert "failed validation" in forged["error_description"]
    other = await ask(platform, claims(platform), RSA, "RS512")
    assert other.refusal == (400, "invalid_client", "Invalid signature algorithm")


async def test_the_form_must_agree_with_the_assertion(platform: Platform) -> None:
    assert (await ask(platform, claims(platform), client_id="ec")).refusal[:2] == (400, "invalid_client")
    assert (await ask(platform, claims(platform), client_assertion_type="jwt")).refusal[:2] == (400, "invalid_client")
    assert (await ask(platform, claims(platform), client_assertion="x")).refusal[:2] == (400, "invalid_client")


async def test_a_client_without_a_key_and_an_unknown_one_are_told_so(platform: Platform) -> None:
    assert (await ask(platform, claims(platform, "backend"))).refusal[:2] == (401, "unauthorized_client")
    assert (await ask(platform, claims(platform, "nobody"))).refusal[:2] == (401, "invalid_client")
    broken = await ask(platform, claims(platform, "broken"))
    assert broken.refusal == (400, "invalid_client", "Unable to load public key")


async def test_clients_can_be_added_and_their_credentials_taken_away_while_the_sandbox_runs(
    platform: Platform,
) -> None:
    form = {"grant_type": "client_credentials", "client_id": "second", "client_secret": "s"}
    assert (await platform.token(form)).refusal[1] == "invalid_client"
    added = await platform.ask("PUT", "/_sandbox/clients/second", json={"secret": "s", "service_account": True})
    assert (added.status, added["client_id"]) == (200, "second")
    assert (await platform.token(form)).status == 200
    listed = (await platform.ask("GET", "/_sandbox"))["clients"]
    assert "second" in [client["client_id"] for client in listed]
    for field in ("secret", "public_key", "certificate_name"):
        assert (await platform.ask("PUT", "/_sandbox/clients/second", json={field: None})).status == 200
    refused = (await platform.token(form)).refusal
    assert refused == (401, "unauthorized_client", "Public client not allowed to retrieve service account")
    assert (await platform.ask("PUT", "/_sandbox/clients/third", json={"secret": 7})).status == 400
    assert "third" not in platform.state.clients
    await platform.ask("POST", "/_sandbox/reset")
    assert "second" not in platform.state.clients


async def test_a_key_can_be_given_while_the_sandbox_runs(platform: Platform) -> None:
    answer = await platform.ask("PUT", "/_sandbox/clients/backend", json={"public_key": pem(P256)})
    assert answer.status == 200
    assert (await ask(platform, claims(platform, "backend"), P256, "ES256")).status == 200
