"""A secret as the configuration names it: literal text, or a file that is read anew each time it is asked for."""

from pathlib import Path
from typing import NoReturn

from proxy.errors import SecretError

LIMIT = 64 * 1024
"""Bytes a secret's file may hold. No credential is longer; a log file named by mistake is."""


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
        if not text:
            raise SecretError(f"{self._where()} is empty")
        return text

    def lines(self) -> list[str]:
        """One secret a line (API keys, encryption keys): surrounding white space and blank lines dropped."""
        found = [line.strip() for line in self.read().splitlines() if line.strip()]
        if not found:
            raise SecretError(f"{self._where()} holds no line with a value")
        return found

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
