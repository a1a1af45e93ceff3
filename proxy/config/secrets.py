"""A secret as the configuration names it: literal text, or a file that is read anew each time it is asked for."""

import binascii
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Annotated, NoReturn

from pydantic import AfterValidator, Field, SecretStr

from proxy.errors import SecretError

LIMIT = 64 * 1024
"""Bytes a secret's file may hold. No credential is longer; a log file named by mistake is."""


_KEY = 32


class SecretValue:
    """Either literal text or the path of a file. Shown as ``<SecretValue …>``, never as its content."""

    __slots__ = ("_text", "path")

    def __init__(self, text: str | None = None, path: Path | None = None) -> None:
        if (text is None) == (path is None):
            raise ValueError("a secret is either text or a file")
        self._text = text
        self.path = path

    def read(self) -> str:
        """The secret as it is now, without the one newline that editors and ``echo`` add at the end.

        Raises SecretError, in words that name the file, when it cannot be read, is empty, too long or not UTF-8.
        """
        text = _one_line_end_off(read_text(self.path)) if self.path else self._text
        if not text or text.isspace():
            raise SecretError(f"{self._where()} is empty")
        return text

    def keys(self) -> list[str]:
        """API keys, one a line; white space around does not count. In a file, what begins with # is a comment: a note
        of whose key the next line is. None at all is no error: that is how keys are taken back."""
        lines = (read_text(self.path) if self.path else self._text or "").splitlines()
        return [line for line in map(str.strip, lines) if line and not (self.path and line[0] == "#")]

    def _where(self) -> str:
        return f"the secret file {self.path}" if self.path else "the secret"

    def __repr__(self) -> str:
        return f"<SecretValue {self.path}>" if self.path else "<SecretValue ********>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not serialised")


def _one_line_end_off(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def read_text(path: Path) -> str:
    """The content of a secret's file, bounded by LIMIT. Raises SecretError in words for the operator."""
    try:
        with path.open("rb") as file:
            content = file.read(LIMIT + 1)
    except FileNotFoundError:
        raise SecretError(f"the secret file {path} does not exist") from None
    except PermissionError:
        raise SecretError(f"the secret file {path} may not be read by this user") from None
    except OSError as exc:
        raise SecretError(f"the secret file {path} cannot be read: {exc.strerror}") from None
    if len(content) > LIMIT:
        raise SecretError(f"the secret file {path} is longer than 64 KiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise SecretError(f"the secret file {path} is not UTF-8 text") from None


def read_keys(path: Path) -> dict[str, bytes]:
    """A store's keys by name, in order. Raises SecretError in words that name the line, never its content."""
    keys: dict[str, bytes] = {}
    lines = [line.strip() for line in SecretValue(path=path).read().splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        try:
            key = b64decode(line.replace("-", "+").replace("_", "/") + "=" * (-len(line) % 4), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != _KEY:
            words = "expected 32 random bytes in base64, as `openssl rand -base64 32` makes them"
            raise SecretError(f"key {number} of {path}: {words}")
        keys[sha256(b"opentv-proxy key name\0" + key).hexdigest()[:8]] = key
    return keys


def _not_empty(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text or text.isspace():
        raise ValueError("is empty")
    return value


Secret = Annotated[SecretStr, Field(json_schema_extra={"pattern": r"\S"}), AfterValidator(_not_empty)]
"""A secret written out in the configuration."""
