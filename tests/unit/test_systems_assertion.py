"""private_key_jwt: what the assertion says, with which key, and by whose clock."""

from itertools import count
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from proxy.config import KeycloakIdentity
from proxy.errors import SecretError
from proxy.tokens.systems.assertion import Assertions
from proxy.tokens.systems.keycloak import Keycloak
from tests.support.tokens import TOKEN_URL, replied
from tests.unit.test_systems import form

NOW = 1_700_000_000.75  # Tue, 14 Nov 2023 22:13:20 GMT
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def pem(key: Any, password: bytes | None = None) -> str:
    cipher = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    return str(key.private_bytes(serialization.Encoding.PEM, form, cipher).decode())


def system(key: str, now: float = NOW, **changes: Any) -> Keycloak:
    values = {
        "system": "keycloak",
        "token_url": TOKEN_URL,
        "client_id": "crm",
        "grant": "client_credentials",
        "client_auth": "private_key_jwt",
        "private_key": key,
    }
    numbers = count()
    identity = KeycloakIdentity.model_validate(values | changes)
    return Keycloak(identity, Assertions(identity, lambda: now, lambda: f"id-{next(numbers)}"))


def claims(assertion: str, key: Any = RSA_KEY, algorithm: str = "RS256") -> dict[str, Any]:
    options = {"verify_aud": False, "verify_exp": False, "verify_iat": False}
    found: dict[str, Any] = jwt.decode(assertion, key.public_key(), algorithms=[algorithm], options=options)  # type: ignore[arg-type] # (its options are a TypedDict)
    return found


@pytest.mark.parametrize(("key", "algorithm"), [(RSA_KEY, "RS256"), (EC_KEY, "ES256")])
def test_every_request_carries_a_fresh_short_assertion(key: Any, algorithm: str) -> None:
    adapter = system(pem(key))
    logout = adapter.logout("a", "r")
    assert logout is not None
    seen = []
    for request in (adapter.login(), adapter.refresh("r-1"), logout):
        fields = form(request)
        assert fields["client_id"] == "crm"
        assert fields["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assert jwt.get_unverified_header(fields["client_assertion"]) == {"alg": algorithm, "typ": "JWT"}
        assert fields["client_assertion"] not in repr(request)
        assert fields["client_assertion"] in request.secrets
        seen.append(claims(fields["client_assertion"], key, algorithm))
    now = int(NOW)
    plain = {"iss": "crm", "sub": "crm", "aud": TOKEN_URL, "iat": now, "exp": now + 60}
    assert [found | {"jti": ""} for found in seen] == [plain | {"jti": ""}] * 3
    assert len({found["jti"] for found in seen}) == 3


def test_the_audience_is_one_and_as_configured() -> None:
    assertion = form(system(pem(RSA_KEY), audience="https://idp.example.com/realms/x").login())["client_assertion"]
    assert claims(assertion)["aud"] == "https://idp.example.com/realms/x"


@pytest.mark.parametrize(
    ("date", "issued"),
    [
        ("", int(NOW)),
        ("nonsense", int(NOW)),
        ("Tue, 14 Nov 2023 22:13:20 GMT", int(NOW)),
        ("Tue, 14 Nov 2023 22:13:19 GMT", int(NOW) - 1),
        ("Tue, 14 Nov 2023 22:03:20 GMT", int(NOW) - 600),
        ("Tue, 14 Nov 2023 22:23:20 GMT", int(NOW) + 600),
    ],
)
def test_it_is_issued_by_the_providers_clock_as_far_as_its_date_shows(date: str, issued: int) -> None:
    adapter = system(pem(RSA_KEY))
    good = replied(200, {"access_token": "x", "expires_in": 300, "token_type": "Bearer"}, date=date)
    adapter.read(good, adapter.login(), "login", NOW)
    found = claims(form(adapter.login())["client_assertion"])
    assert (found["iat"], found["exp"]) == (issued, issued + 60)


@pytest.mark.parametrize(
    ("key", "word"),
    [
        ("nonsense", "no private key"),
        (pem(RSA_KEY).replace("A", "B", 40), "no private key"),
        (pem(RSA_KEY, b"passphrase"), "without a passphrase"),
        (pem(ec.generate_private_key(ec.SECP384R1())), "neither RSA"),
        (pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)), "neither RSA"),  # noqa: S505 - refused, that is the point
        (pem(ed25519.Ed25519PrivateKey.generate()), "neither RSA"),
    ],
    ids=["nonsense", "broken", "passphrase", "P-384", "RSA 1024", "Ed25519"],
)
def test_a_key_that_cannot_be_used_is_refused_in_words(key: str, word: str) -> None:
    with pytest.raises(SecretError, match=word):
        system(key).login()


def test_the_key_file_is_read_at_each_use(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(pem(RSA_KEY))
    adapter = system(pem(RSA_KEY), private_key=None, private_key_file=str(file))
    claims(form(adapter.login())["client_assertion"])
    file.write_text(pem(EC_KEY))
    claims(form(adapter.login())["client_assertion"], EC_KEY, "ES256")
    file.unlink()
    with pytest.raises(SecretError, match=r"key\.pem does not exist"):
        adapter.login()
