"""SSP and token files: tokens that nobody is asked for, on literal bytes and on what a disk may hold."""

import base64
import hashlib
import hmac
import json
from math import inf
from pathlib import Path

import pytest

from proxy.config import SspIdentity, TokenFileIdentity
from proxy.errors import SecretError
from proxy.tokens.systems.ssp import Ssp
from proxy.tokens.systems.token_file import TokenFile
from tests.support.tokens import jwt

NOW = 1_700_000_000.25
KEY = base64.b64encode(b"k" * 32).decode()
CREDENTIALS = {
    "tenantId": "nagra",
    "credentialName": "Credential_CRM",
    "credentialId": "816794",
    "signingKey": KEY,
    "privilege": ["SMS"],
}


def ssp(folder: Path, content: object = CREDENTIALS, lifetime: str = "5m") -> Ssp:
    file = folder / "credentials.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return Ssp(SspIdentity.model_validate({"system": "ssp", "credentials_file": str(file), "lifetime": lifetime}))


def test_an_ssp_token_is_exactly_what_is_agreed(tmp_path: Path) -> None:
    grant = ssp(tmp_path).mint(NOW)
    header, payload, signature = grant.access.split(".")
    assert base64.urlsafe_b64decode(header + "==") == b'{"typ":"JWT","alg":"HS256","kid":"816794"}'
    assert base64.urlsafe_b64decode(payload + "==") == b'{"typ":"AuthN","ver":"1.0","exp":1700000300}'
    expected = hmac.digest(b"k" * 32, f"{header}.{payload}".encode(), hashlib.sha256)
    assert base64.urlsafe_b64decode(signature + "=") == expected
    assert (grant.lifetime, grant.refresh) == (299.75, None)
    assert "=" not in grant.access


def test_the_credentials_file_is_read_anew_for_each_token(tmp_path: Path) -> None:
    system = ssp(tmp_path)
    first = system.mint(NOW).access
    assert system.mint(NOW).access == first
    (tmp_path / "credentials.json").write_text(json.dumps(CREDENTIALS | {"credentialId": 7}) + "\n")
    header = json.loads(base64.urlsafe_b64decode(system.mint(NOW).access.split(".")[0] + "=="))
    assert header["kid"] == "7"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "is empty"),
        ("{", "is no JSON"),
        ("[" * 50_000, "is no JSON"),
        ("[]", "no credentialId"),
        ("null", "no credentialId"),
        (CREDENTIALS | {"credentialId": None}, "no credentialId"),
        (CREDENTIALS | {"credentialId": ""}, "no credentialId"),
        (CREDENTIALS | {"credentialId": True}, "no credentialId"),
        (CREDENTIALS | {"signingKey": None}, "no signingKey"),
        (CREDENTIALS | {"signingKey": ""}, "no signingKey"),
        (CREDENTIALS | {"signingKey": "not base64!"}, "no signingKey"),
        (CREDENTIALS | {"signingKey": "a"}, "no signingKey"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_credentials_that_cannot_be_used_are_refused_in_words(tmp_path: Path, content: object, word: str) -> None:
    system = ssp(tmp_path, content)
    with pytest.raises(SecretError, match=word) as caught:
        system.mint(NOW)
    assert str(tmp_path / "credentials.json") in str(caught.value)
    assert KEY not in str(caught.value)


def token_file(folder: Path, content: str | bytes | None) -> TokenFile:
    file = folder / "token"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return TokenFile(TokenFileIdentity.model_validate({"system": "token_file", "file": str(file)}))


@pytest.mark.parametrize(
    ("content", "token", "lifetime"),
    [
        ("opaque-1", "opaque-1", inf),
        ("opaque-1\n", "opaque-1", inf),
        ("  opaque-1\r\n\n", "opaque-1", inf),
        (jwt(exp=NOW + 90) + "\n", jwt(exp=NOW + 90), 90),
        (jwt(iat=NOW - 600, exp=NOW + 90), jwt(iat=NOW - 600, exp=NOW + 90), 90),
        (jwt(exp=(NOW + 90) * 1000), jwt(exp=(NOW + 90) * 1000), 90),
        (jwt(sub="x"), jwt(sub="x"), inf),
        (jwt(exp=0), jwt(exp=0), inf),
        ("eyJhbGciOiJkaXIifQ..aXY.Y2lwaGVy.dGFn", "eyJhbGciOiJkaXIifQ..aXY.Y2lwaGVy.dGFn", inf),
        ("a.b.c", "a.b.c", inf),
    ],
)
def test_a_token_in_a_file_is_taken_as_it_is_with_its_own_end(
    tmp_path: Path, content: str, token: str, lifetime: float
) -> None:
    grant = token_file(tmp_path, content).mint(NOW)
    assert (grant.access, grant.refresh, grant.lifetime) == (token, None, lifetime)


WHOLE = jwt(iat=NOW, exp=NOW + 300)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "does not exist"),
        ("", "is empty"),
        ("\n", "is empty"),
        (" \n", "is empty"),
        ("two words", "holds no token"),
        ("two\nlines", "holds no token"),
        ("tokén", "holds no token"),
        (b"\xff\xfe", "not UTF-8"),
        ("x" * 40_000, "holds no token"),
        ("x" * 70_000, "longer than"),
        (WHOLE[:20], "cut off"),
        (WHOLE[: WHOLE.index(".") + 10], "cut off"),
        (WHOLE[: WHOLE.rindex(".")], "cut off"),
        (WHOLE[: WHOLE.rindex(".") + 1], "cut off"),
        (jwt(exp=NOW - 1), "has expired"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_file_without_a_usable_token_is_refused_in_words(
    tmp_path: Path, content: str | bytes | None, word: str
) -> None:
    with pytest.raises(SecretError, match=word) as caught:
        token_file(tmp_path, content).mint(NOW)
    assert "eyJ" not in str(caught.value)


def test_what_is_read_is_what_a_swapped_symlink_points_at(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(f"token-{name}")
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "token").symlink_to("..data/token")
    system = token_file(tmp_path, None)
    assert system.mint(NOW).access == "token-one"
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert system.mint(NOW).access == "token-two"
