"""How single values are read, and how they are shown again."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from proxy.config.types import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    Address,
    FilePath,
    OverlayText,
    format_duration,
    format_size,
    parse_address,
    parse_duration,
    parse_network,
    parse_size,
)
from proxy.config.web import AllowRule, BaseUrl, EndpointUrl, HeaderName, HeaderValue, RoutePath, Scheme


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("1.5s", 1.5),
        (7, 7),
        (0.5, 0.5),
        ("7", 7),
    ],
)
def test_durations_are_seconds(written: object, seconds: float) -> None:
    """A unit, or a plain number of seconds."""
    assert parse_duration(written) == seconds


@pytest.mark.parametrize(
    "written",
    [
        "",
        "s",
        "1 s",
        "-1s",
        "1S",
        "1h30m",
        "٣s",
        "1e3",
        "1s\n",
        True,
        None,
        -1,
        float("nan"),
        float("inf"),
        [],
        "9" * 99,
    ],
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    """No spaces, signs, compound forms, digits of other scripts, booleans or infinities."""
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(written)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("64KiB", 65536),
        ("1MiB", 2**20),
        ("1GiB", 2**30),
        ("10KB", 10000),
        ("1.5KiB", 1536),
        ("5B", 5),
        ("12", 12),
        (9, 9),
    ],
)
def test_sizes_are_bytes(written: object, size: int) -> None:
    """Binary and decimal units, or a plain number of bytes."""
    assert parse_size(written) == size


@pytest.mark.parametrize("written", ["64Kb", "64K", "1.5", "0.3KiB", "-1", "", True, None, 1.5])
def test_what_is_no_size_is_refused(written: object) -> None:
    """Nothing that is no whole number of bytes."""
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(written)


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=10**9))
def test_a_shown_duration_reads_back(milliseconds: int) -> None:
    """Every whole number of milliseconds survives being shown, and the schema's pattern takes it."""
    seconds = milliseconds / 1000
    shown = format_duration(seconds)
    assert re.search(DURATION_PATTERN, shown)
    assert parse_duration(shown) == pytest.approx(seconds, rel=1e-9)


@settings(deadline=None)
@given(st.integers(min_value=0, max_value=2**49))
def test_a_shown_size_reads_back(size: int) -> None:
    """Every number of bytes survives being shown, and the schema's pattern takes it."""
    shown = format_size(size)
    assert re.search(SIZE_PATTERN, shown)
    assert parse_size(shown) == size


@pytest.mark.parametrize(
    ("written", "address", "loopback"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080), True),
        ("[::1]:0", Address("::1", 0), True),
        ("[2001:DB8:0::1]:443", Address("2001:db8::1", 443), False),
        ("0.0.0.0:80", Address("0.0.0.0", 80), False),  # noqa: S104 - parsed, not bound
        ("localhost:80", Address("localhost", 80), True),
        ("gw.example.com:80", Address("gw.example.com", 80), False),
    ],
)
def test_addresses(written: str, address: Address, loopback: bool) -> None:
    """host:port, an IPv6 host in brackets; only localhost and loopback addresses are this machine alone."""
    parsed = parse_address(written)
    assert (parsed, parsed.is_loopback) == (address, loopback)
    assert parse_address(str(parsed)) == parsed


@pytest.mark.parametrize(
    "written", [":8080", "8080", 8080, "::1:80", "h:", "h:65536", "1.2.3:80", "a_b:1", "h:1\n", "h h:1"]
)
def test_what_is_no_address_is_refused(written: object) -> None:
    """All interfaces must be asked for in full; an IPv4 address must be whole."""
    with pytest.raises(ValueError, match=r"expected|IP address|65535"):
        parse_address(written)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("::ffff:0:0/96", "IPv4"),
        ("10.0.0", "expected a network"),
        (10, "expected a network"),
    ],
)
def test_what_is_no_network_is_refused(written: object, words: str) -> None:
    """The words say what would be one."""
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_network(written)


def test_a_single_address_is_a_network_of_one() -> None:
    """A bare address needs no prefix length."""
    assert str(parse_network("10.1.2.3")) == "10.1.2.3/32"


def valid(kind: Any, text: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(text)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(
    ("url", "endpoint", "base"),
    [
        ("https://h/token", True, True),
        ("http://127.0.0.1:8080", True, True),
        ("https://[::1]:8443/a/b/", True, True),
        ("https://h/token?x=1", True, False),
        ("https://user:pw@h/", False, False),
        ("https://h/#f", False, False),
        ("https://h/a/../b", False, False),
        ("https://h/a/%2e%2E/b", False, False),
        ("https://h/a%2Fb", False, False),
        ("https://h//b", False, False),
        ("https://h:0/", False, False),
        ("https://h:99999/", False, False),
        ("https:///path", False, False),
        ("https://h h/", False, False),
        ("https://h/\r\nX: y", False, False),
        ("https://h\\@evil/", False, False),
        ("ftp://h/", False, False),
        ("h.example.com", False, False),
        ("https:h", False, False),
        ("https://bücher.example/", False, False),
        ("", False, False),
    ],
)
def test_urls(url: str, endpoint: bool, base: bool) -> None:
    """A URL is sent as it is written, so it must have one reading; only a token endpoint may have a query."""
    assert (valid(EndpointUrl, url), valid(BaseUrl, url)) == (endpoint, base)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            HeaderName,
            ["X-Api-Key", "nv-tenant-id"],
            ["", "a b", "a:", "Host", "content-length", "Transfer-Encoding", "TE"],
        ),
        (HeaderValue, ["", "a b", "x"], [" a", "a ", "a\r\nb: c", "a\nb", "a\0", "ü"]),
        (Scheme, ["", "Bearer"], ["Bearer ", "a b", "a\r\n"]),
        (
            RoutePath,
            ["/", "/adm", "/a/b/", "/a%20b"],
            [
                "adm",
                "",
                "/a/../b",
                "/a//b",
                "/a?b",
                "/a#b",
                "/a b",
                "/%zz",
                "/%2F",
                "/..;/a",
                "/a/;b",
                "/%3b",
                "/%00",
                "/%c0%ae/a",
            ],
        ),
        (
            AllowRule,
            ["GET /adm/**", "* /", "POST /a/*/b", "PUT /a*"],
            ["/adm", "get /a", "GET adm", "GET /a**", "GET  /a", "GET /a/../b", "GET,POST /a", "GET /a b"],
        ),
    ],
)
def test_what_goes_on_the_wire(kind: object, good: list[str], bad: list[str]) -> None:
    """Names, values and paths are what HTTP allows, with one reading, and never end a line."""
    assert [text for text in good if not valid(kind, text)] == []
    assert [text for text in bad if valid(kind, text)] == []


def test_a_relative_path_starts_where_it_was_written(tmp_path: Path) -> None:
    """In the file: at the file's directory. From outside: at the working directory. Absolute: as it is."""
    adapter = TypeAdapter[Path](FilePath)
    context = {"base": tmp_path}
    assert adapter.validate_python("tls/../a.pem", context=context) == tmp_path / "a.pem"
    assert adapter.validate_python(OverlayText("a.pem"), context=context) == Path.cwd() / "a.pem"
    assert adapter.validate_python("/etc/a.pem", context=context) == Path("/etc/a.pem")
