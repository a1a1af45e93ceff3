"""The files that a configuration names: whether each can be used, at load and as long as it is in force."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from proxy.config import schema
from proxy.config.base import files_of
from proxy.config.model import Config
from proxy.config.secrets import SecretValue, read_keys
from proxy.config.types import anchor
from proxy.config.watch import FileWatcher
from proxy.errors import SecretError


class NamedFile(NamedTuple):
    """where: the key that names it, dotted. tls: PEM files are read by the TLS library, and may be public."""

    where: str
    path: Path
    key: str
    tls: bool

    def fault(self) -> str:
        """Why it cannot be used now, in words; "" where it can."""
        try:
            if self.tls:
                with self.path.open("rb") as file:
                    return "" if file.read(1) else f"the file {self.path} is empty"
            secret = SecretValue(path=self.path)
            secret.read()
            if self.key == "keys_file" and not secret.keys():
                return f"the keys file {self.path} holds no key: no client is admitted by one"
            if self.key == "key_file":
                read_keys(self.path)
        except SecretError as exc:
            return str(exc)
        except FileNotFoundError:
            return f"the file {self.path} does not exist"
        except OSError as exc:
            return f"the file {self.path} cannot be read: {exc.strerror}"
        return ""


def named_files(tree: dict[str, Any], base: Path | None) -> Iterator[NamedFile]:
    """Of a written tree. Not the token of system token_file, which may come later, nor what a store makes itself."""
    for place in schema.places(tree):
        key = str(place.path[-1]) if place.path else ""
        if "path" not in place.kinds or not key.endswith("_file") or place.value is None:
            continue
        try:
            path = anchor(place.value, base)
        except ValueError:
            continue
        yield NamedFile(schema.dotted(place.path), path, key, tls=place.path[-2] == "tls")


class Log(Protocol):
    """What is needed of a structlog logger."""

    def error(self, event: str, **fields: object) -> object: ...
    def info(self, event: str, **fields: object) -> object: ...


class ConfigFiles:
    """What becomes of the files of the configuration in force.

    unusable: those that cannot be used now, the place that names each to words; replaced whole by ``poll``, which tells
    the log of each change. ``watch`` and ``poll`` belong to one thread at a time. now: Unix seconds.
    """

    def __init__(self, log: Log, now: Callable[[], float] = time.time) -> None:
        self._log = log
        self._watcher = FileWatcher(now=now)
        self._named: list[NamedFile] = []
        self.unusable: dict[str, str] = {}

    def watch(self, config: Config) -> None:
        """Watch exactly the files of ``config`` from now on."""
        self._watcher.watch(files_of(config))
        self._named = list(named_files(config.model_dump(mode="json"), None))
        places = {file.where for file in self._named}
        self.unusable = {where: words for where, words in self.unusable.items() if where in places}

    def poll(self) -> set[Path]:
        """The files with new content since the last poll that can be used, and keys files that lost their last key."""
        changed = self._watcher.poll()
        found = [(file, words) for file in self._named if (words := file.fault())]
        before, self.unusable = self.unusable, {file.where: words for file, words in found}
        for where, words in self.unusable.items():
            if before.get(where) != words:
                self._log.error("file unusable", path=where, words=words)
        for where in before.keys() - self.unusable.keys():
            self._log.info("file usable again", path=where)
        return changed - {file.path for file, _ in found if file.key != "keys_file"}
