"""How single values are written: durations, sizes, addresses, networks, paths.

Each type parses what a person writes, shows itself the same way in ``opentv-proxy config``, and describes the written
form in the JSON Schema. A ValueError's words say what was expected and never repeat the value.
"""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZE_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,9})?"
DURATION_PATTERN = rf"^{_NUMBER}(ms|s|m|h|d)?$"
SIZE_PATTERN = rf"^{_NUMBER}(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?$"


class OverlayText(str):
    """Text that came by a flag or a variable. A relative path in it starts at the working directory."""

    __slots__ = ()


def _flag(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("expected a number, not true or false")
    return value


Flag = Annotated[bool, BeforeValidator(_flag)]
"""true or false; ``no`` and the like as well, which are text here, but no number."""
Count = Annotated[int, BeforeValidator(_number)]
Part = Annotated[float, BeforeValidator(_number)]


def _measure(value: object, pattern: str, units: dict[str, float] | dict[str, int], expected: str) -> float:
    if isinstance(value, str) and (match := re.fullmatch(pattern, value)):
        return float(value.removesuffix(match[1] or "")) * units.get(match[1] or "", 1)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        return float(value)
    raise ValueError(expected)


def parse_duration(value: object) -> float:
    """Seconds of ``250ms``, ``30s``, ``5m``, ``2h``, ``1d`` or a number of seconds."""
    return _measure(
        value, DURATION_PATTERN, DURATION_UNITS, "expected a duration such as 250ms, 30s, 5m, 2h, 1d or seconds"
    )


def parse_size(value: object) -> int:
    """Bytes of ``64KiB``, ``1MiB``, ``1GiB``, ``10KB`` or a number of bytes."""
    expected = "expected a size such as 64KiB, 1MiB, 1GiB, 10KB or a whole number of bytes"
    size = _measure(value, SIZE_PATTERN, SIZE_UNITS, expected)
    if not size.is_integer():
        raise ValueError(expected)
    return int(size)


def format_duration(seconds: float) -> str:
    """The shortest exact spelling: 10.0 is ``10s``, 0.25 is ``250ms``, 7200.0 is ``2h``."""
    for unit in ("d", "h", "m", "s"):
        count = seconds / DURATION_UNITS[unit]
        if count >= 1 and count.is_integer():
            return f"{int(count)}{unit}"
    if seconds and (seconds * 1000).is_integer():
        return f"{int(seconds * 1000)}ms"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def format_size(size: int) -> str:
    """The largest binary unit that divides it: 65536 is ``64KiB``, 1000 is ``1000B``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % SIZE_UNITS[unit] == 0:
            return f"{size // SIZE_UNITS[unit]}{unit}"
    return f"{size}B"


def _plain(parse: Callable[[Any], Any], show: Callable[[Any], Any]) -> CoreSchema:
    return core_schema.no_info_plain_validator_function(
        parse, serialization=core_schema.plain_serializer_function_ser_schema(show, when_used="json")
    )


@dataclass(frozen=True)
class Duration:
    """Marks a float of seconds, written as a duration, between ``least`` and ``most`` seconds."""

    least: float = 0.001
    most: float = 86400.0

    def parse(self, value: object) -> float:
        seconds = parse_duration(value)
        if not self.least <= seconds <= self.most:
            raise ValueError(f"expected between {format_duration(self.least)} and {format_duration(self.most)}")
        return seconds

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _plain(self.parse, format_duration)

    def __get_pydantic_json_schema__(self, _core: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "anyOf": [
                {"type": "number", "minimum": self.least, "maximum": self.most},
                {"type": "string", "pattern": DURATION_PATTERN},
            ],
            "x-kind": "duration",
            "x-range": [format_duration(self.least), format_duration(self.most)],
        }


@dataclass(frozen=True)
class Size:
    """Marks an int of bytes, written as a size, between ``least`` and ``most`` bytes."""

    least: int = 0
    most: int = 2**40

    def parse(self, value: object) -> int:
        size = parse_size(value)
        if not self.least <= size <= self.most:
            raise ValueError(f"expected between {format_size(self.least)} and {format_size(self.most)}")
        return size

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _plain(self.parse, format_size)

    def __get_pydantic_json_schema__(self, _core: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "anyOf": [
                {"type": "integer", "minimum": self.least, "maximum": self.most},
                {"type": "string", "pattern": SIZE_PATTERN},
            ],
            "x-kind": "size",
            "x-range": [format_size(self.least), format_size(self.most)],
        }


class Address(NamedTuple):
    """Where to listen. ``str()`` writes it as it is configured, an IPv6 host in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A host name other than localhost counts as reachable."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


_ADDRESS = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)):(?P<port>[0-9]{1,5})"
)


def parse_address(value: object) -> Address:
    """``host:port``, ``[::1]:8080``; port 0 lets the system choose one."""
    if isinstance(value, Address):
        return value
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected host:port, such as 127.0.0.1:8080, 0.0.0.0:8080 (all interfaces) or [::1]:8080")
    host, port = match["six"] or match["host"], int(match["port"])
    if match["six"] or re.fullmatch(r"[0-9.]+", host):
        try:
            host = str(ip_address(host))
        except ValueError:
            raise ValueError("the host is not a valid IP address") from None
    if port > 65535:
        raise ValueError("the port is above 65535")
    return Address(host.lower(), port)


class _AddressForm:
    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _plain(parse_address, str)

    def __get_pydantic_json_schema__(self, _core: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$", "x-kind": "address"}


ListenAddress = Annotated[Address, _AddressForm()]

Network = IPv4Network | IPv6Network


def parse_network(value: object) -> Network:
    """``10.0.0.0/8``, ``2001:db8::/32``, or one address."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    expected = "expected a network such as 10.0.0.0/8 or ::1/128, or one IP address"
    if not isinstance(value, str):
        raise ValueError(expected)
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise ValueError(expected) from None
    if "/" in value and ip_address(value.partition("/")[0]) != network.network_address:
        raise ValueError(f"has bits set beyond its prefix; the network is {network}")
    if network.version == 6 and network.network_address.ipv4_mapped:
        raise ValueError("write an IPv4-mapped network as IPv4, such as 10.0.0.0/8")
    return network


class _NetworkForm:
    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _plain(parse_network, str)

    def __get_pydantic_json_schema__(self, _core: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "pattern": r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$", "x-kind": "network"}


NetworkField = Annotated[Network, _NetworkForm()]


def anchor(value: object, base: Path | None) -> Path:
    """An absolute path. A relative one starts at ``base`` (the file's directory), or where the process runs."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("expected the path of a file")
    start = Path.cwd() if base is None or isinstance(value, OverlayText) else base
    return Path(os.path.normpath(start / value))


def _anchored(value: object, info: ValidationInfo) -> Path:
    return anchor(value, (info.context or {}).get("base"))


class _PathForm:
    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            _anchored, serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json")
        )

    def __get_pydantic_json_schema__(self, _core: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "minLength": 1, "x-kind": "path"}


FilePath = Annotated[Path, _PathForm()]


class _PlaceForm(_PathForm):
    """A path as text, which keeps the slash at its end."""

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> CoreSchema:
        def placed(value: object, info: ValidationInfo) -> str:
            return f"{_anchored(value, info)}{'/' if str(value).endswith('/') else ''}"

        return core_schema.with_info_plain_validator_function(
            placed, serialization=core_schema.plain_serializer_function_ser_schema(str, when_used="json")
        )


PlacePath = Annotated[str, _PlaceForm()]
"""Where something may be made: a file, or with a slash at its end a folder."""
