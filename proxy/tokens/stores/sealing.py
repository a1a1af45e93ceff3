"""What leaves the process is sealed: AES-256-GCM, with keys from a file that may change while the process runs.

A sealed text is ``opentv1.KEY.DATA``. KEY names the key (8 hex digits, so that a wrong key and damage can be told
apart), DATA is 12 random bytes and the ciphertext, base64. The identity's name, the version and the key's name are
authenticated with it: a text moved to another identity's place does not open.
"""

import os
import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proxy.config.safety import open_key_file
from proxy.config.secrets import read_keys
from proxy.errors import ProxyError, SecretError

VERSION: Final = "opentv1"
_SEALED: Final = re.compile(rf"{VERSION}\.([0-9a-f]{{8}})\.([A-Za-z0-9_-]+={{0,2}})")
_NONCE: Final = 12


class DamagedError(ProxyError):
    """Not a text of ours, or one that was changed: it never opens."""


class UnknownKeyError(ProxyError):
    """Sealed with a key that the key file does not hold (any more, or yet)."""


class Keyring:
    """The keys of ``key_file``, read anew when the file changes; while it cannot be used, which ``ConfigFiles`` tells,
    the keys that there were stay. warn: told in words of a file that others may read.

    State: ``_keys`` and ``_stamp``, replaced whole; several threads may read the file at once, to the same end.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self._path = path
        self._warn = warn
        self._stamp = file_stamp(path)
        self._keys = read_keys(path)
        self._judge()

    def current(self) -> dict[str, bytes]:
        """By name; the first encrypts."""
        stamp = file_stamp(self._path)
        if stamp != self._stamp and stamp is not None:
            self._stamp = stamp
            with suppress(SecretError):
                self._keys = read_keys(self._path)
            self._judge()
        return self._keys

    def _judge(self) -> None:
        if words := open_key_file(self._path):
            self._warn(words)


class Sealer:
    def __init__(self, keys: Keyring) -> None:
        self._keys = keys

    def seal(self, identity: str, data: bytes) -> str:
        name, key = next(iter(self._keys.current().items()))
        nonce = os.urandom(_NONCE)
        sealed = nonce + AESGCM(key).encrypt(nonce, data, _bound(name, identity))
        return f"{VERSION}.{name}.{urlsafe_b64encode(sealed).decode()}"

    def open(self, identity: str, text: str) -> bytes:
        """Raises UnknownKeyError, DamagedError."""
        found = _SEALED.fullmatch(text)
        if found is None:
            raise DamagedError("it is not of this gateway's making, or cut off")
        name = found[1]
        key = self._keys.current().get(name)
        if key is None:
            raise UnknownKeyError(f"it is sealed with key {name}, which the key file does not hold")
        try:
            sealed = b64decode(found[2], altchars=b"-_", validate=True)
            return AESGCM(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], _bound(name, identity))
        except (InvalidTag, ValueError):
            raise DamagedError("it was changed after it was sealed, or is another identity's") from None


def _bound(key_name: str, identity: str) -> bytes:
    return f"{VERSION}\0{key_name}\0{identity}".encode()


def file_stamp(path: Path) -> tuple[int, int, int, int] | None:
    """Differs when the file does. None: it cannot be looked at now."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
