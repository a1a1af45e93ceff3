"""Sealed texts and the keys that open them."""

import os
import re
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from proxy.config.secrets import read_keys
from proxy.errors import SecretError
from proxy.tokens.stores import codec
from proxy.tokens.stores.sealing import DamagedError, Keyring, Sealer, UnknownKeyError
from tests.support.stores import PAIR, key_file, key_line


def sealer(folder: Path, *numbers: int) -> Sealer:
    return Sealer(Keyring(key_file(folder, *numbers), silent))


def silent(words: str) -> None:
    raise AssertionError(words)


def test_what_was_sealed_opens_and_no_two_texts_are_alike(tmp_path: Path) -> None:
    ours = sealer(tmp_path)
    texts = {ours.seal("opentv", b"secret") for _ in range(100)}
    assert len(texts) == 100
    assert {ours.open("opentv", text) for text in texts} == {b"secret"}


def test_a_text_shows_no_piece_of_what_is_in_it(tmp_path: Path) -> None:
    data = codec.encode(PAIR)
    text = sealer(tmp_path).seal("opentv", data)
    raw = urlsafe_b64decode(text.rpartition(".")[2])
    for start in range(len(data) - 15):
        piece = data[start : start + 16]
        assert piece not in raw
        assert piece not in text.encode()


def test_a_text_opens_only_for_its_identity(tmp_path: Path) -> None:
    ours = sealer(tmp_path)
    with pytest.raises(DamagedError):
        ours.open("other", ours.seal("opentv", b"secret"))


def test_a_text_with_any_one_character_changed_does_not_open(tmp_path: Path) -> None:
    ours = sealer(tmp_path)
    text = ours.seal("opentv", b"8 bytes.")  # no spare bits in the base64
    for place, letter in enumerate(text):
        changed = text[:place] + ("A" if letter != "A" else "B") + text[place + 1 :]
        with pytest.raises((DamagedError, UnknownKeyError)):
            ours.open("opentv", changed)


@pytest.mark.parametrize("cut", [0, 1, 8, 17, 18, 30, 45])
def test_a_text_that_was_cut_off_does_not_open(tmp_path: Path, cut: int) -> None:
    ours = sealer(tmp_path)
    with pytest.raises(DamagedError):
        ours.open("opentv", ours.seal("opentv", b"secret")[:cut])


def test_a_key_that_is_not_there_is_told_from_damage(tmp_path: Path) -> None:
    text = sealer(tmp_path, 1).seal("opentv", b"secret")
    with pytest.raises(UnknownKeyError, match=r"key [0-9a-f]{8}, which the key file does not hold"):
        sealer(tmp_path, 2).open("opentv", text)


def test_the_first_key_encrypts_and_all_decrypt(tmp_path: Path) -> None:
    old = sealer(tmp_path, 1).seal("opentv", b"old")
    rotated = sealer(tmp_path, 2, 1)
    assert rotated.open("opentv", old) == b"old"
    assert sealer(tmp_path, 2).open("opentv", rotated.seal("opentv", b"new")) == b"new"


def test_a_changed_key_file_is_read_again(tmp_path: Path) -> None:
    ours = sealer(tmp_path, 1)
    old = ours.seal("opentv", b"old")
    key_file(tmp_path, 2, 1)
    new = ours.seal("opentv", b"new")
    assert new.split(".")[1] != old.split(".")[1]
    assert ours.open("opentv", old) == b"old"


def test_a_key_file_that_went_bad_leaves_the_former_keys_in_use(tmp_path: Path) -> None:
    ours = sealer(tmp_path, 1)
    text = ours.seal("opentv", b"secret")
    (tmp_path / "keys").write_text("not a key, but one for a safe")
    assert ours.open("opentv", text) == b"secret"
    assert ours.open("opentv", text) == b"secret"
    (tmp_path / "keys").unlink()
    assert ours.open("opentv", text) == b"secret"
    key_file(tmp_path, 2)
    with pytest.raises(UnknownKeyError):
        ours.open("opentv", text)


def test_keys_come_in_either_alphabet_with_or_without_padding_and_with_blank_lines(tmp_path: Path) -> None:
    key = bytes([0xFB, 0xEF, 0xFE] * 10 + [0xFF, 0xFF])
    file = tmp_path / "keys"
    forms = [b64encode(key).decode(), urlsafe_b64encode(key).decode(), urlsafe_b64encode(key).decode().rstrip("=")]
    assert "/" in forms[0]
    assert "_" in forms[1]
    for form in forms:
        file.write_text(f"\n {form} \r\n\n")
        assert list(read_keys(file).values()) == [key]


@pytest.mark.parametrize(
    "line", ["short", b64encode(bytes(31)).decode(), b64encode(bytes(33)).decode(), "!" * 44, "ü" * 44, "# a comment"]
)
def test_a_line_that_is_no_key_is_named_by_its_number_and_not_repeated(tmp_path: Path, line: str) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{key_line()}\n{line}\n")
    with pytest.raises(SecretError, match=r"key 2 of .*/keys: expected 32 random bytes in base64") as refused:
        read_keys(file)
    assert line not in str(refused.value)


@pytest.mark.parametrize(
    ("mode", "loud"), [(0o400, False), (0o600, False), (0o440, False), (0o640, False), (0o644, True), (0o660, True)]
)
def test_a_key_file_that_others_may_read_is_warned_of(tmp_path: Path, mode: int, loud: bool) -> None:
    """The group may read: Kubernetes gives a secret to a process that is not root by fsGroup."""
    told: list[str] = []
    file = key_file(tmp_path)
    file.chmod(mode)
    Keyring(file, told.append).current()
    assert [f"mode {mode:04o}" in words for words in told] == ([True] if loud else [])


def test_a_pair_comes_back_whole_and_a_later_versions_field_is_left_out() -> None:
    assert codec.decode(codec.encode(PAIR)) == PAIR
    later = codec.encode(PAIR).replace(b"{", b'{"of_tomorrow":[1],', 1)
    assert codec.decode(later) == PAIR


def test_a_field_with_a_default_may_be_missing() -> None:
    assert codec.decode(codec.encode(PAIR).replace(b',"scope":"profile"', b"")) == replace(PAIR, scope="")


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"{}", b'"x"', b"\xff", b"[" * 100_000, b"1e400"]
    + [
        repr({**asdict(PAIR), **wrong}).replace("'", '"').replace("None", "null").replace("True", "true").encode()
        for wrong in ({"access": None}, {"access": 1}, {"obtained": "1"}, {"session_opened": 1}, {"expires": True})
    ],
)
def test_what_is_no_pair_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        codec.decode(data)


def test_numbers_that_are_none_are_refused() -> None:
    for word in (b"NaN", b"Infinity", b"-Infinity", b"1e999"):
        with pytest.raises(ValueError, match="no stored pair"):
            codec.decode(re.sub(rb'"obtained":[0-9.]+', b'"obtained":' + word, codec.encode(PAIR)))


def test_random_bytes_never_open(tmp_path: Path) -> None:
    ours = sealer(tmp_path)
    name = next(iter(read_keys(tmp_path / "keys")))
    junk: list[Any] = [urlsafe_b64encode(os.urandom(size)).decode() for size in (0, 1, 11, 12, 13, 27, 28, 100)]
    for data in junk:
        with pytest.raises(DamagedError):
            ours.open("opentv", f"opentv1.{name}.{data}")
