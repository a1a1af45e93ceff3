"""How values that end up in an HTTP message are written: header fields, URLs, paths, ``allow`` rules.

Whatever passes here can be put on the wire as it is: no CR, LF, NUL, no white space at the ends, ASCII only.
"""

import re
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110 5.6.2's "token", no credential
_FIELD_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)+")
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")

GATEWAY_OWNED = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Framing and hop-by-hop fields (RFC 9110 7.6.1): the gateway writes them, a configuration never does."""

NO_CREDENTIAL = frozenset(
    {
        "forwarded",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "x-correlation-id",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    }
)
"""Fields that the gateway reads or writes for a purpose of its own: what stands there is logged, returned, passed on to
others or beside what the gateway writes, or is meant for an HTTP proxy on the way (RFC 9110 11.7)."""


def _header_name(value: str) -> str:
    if not re.fullmatch(TOKEN, value):
        raise ValueError("expected the name of a header field: letters, digits and -")
    return value


def _own_header(value: str) -> str:
    if value.lower() in GATEWAY_OWNED:
        raise ValueError("this field frames the message or belongs to one connection: it cannot be configured")
    return value


def fold(name: str) -> str:
    """The name under which look-alikes fall together: `_` reads as `-` behind some servers (CGI)."""
    return name.lower().replace("_", "-")


def _credential_header(value: str) -> str:
    if fold(value) in NO_CREDENTIAL:
        raise ValueError("the gateway uses this field itself, and shows what is in it to others: no credential's place")
    return value


def _header_value(value: str) -> str:
    if value and not _FIELD_VALUE.fullmatch(value):
        raise ValueError("expected printable ASCII without line breaks or white space at its ends")
    return value


def _scheme(value: str) -> str:
    if value and not re.fullmatch(TOKEN, value):
        raise ValueError("expected one word such as Bearer, or an empty text for none")
    return value


def split_url(value: str) -> SplitResult:
    """Split an http or https URL; ValueError in words when it is none, or could not be sent as it is."""
    if not value:
        raise ValueError("is empty: expected a URL such as https://host.example.com:8443/path")
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("expected a URL in ASCII without spaces")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("expected a URL such as https://host.example.com:8443/path") from None
    if parts.scheme not in ("http", "https") or not value.lower().startswith(f"{parts.scheme}://"):
        raise ValueError("expected a URL that begins with https:// or http://")
    if "@" in parts.netloc:
        raise ValueError("a user name or password does not belong in a URL")
    host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc.removesuffix(":")
    if not _HOST.fullmatch(host) or port == 0:
        raise ValueError("the URL names no valid host and port")
    if "#" in value:
        raise ValueError("a URL here has no #fragment")
    _plain_path(parts.path)
    return parts


def without_query(url: str) -> str:
    """A URL to show to people: its query may hold what is nobody's business."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"


def _plain_path(path: str) -> str:
    """Refuse what could be read in two ways: dot segments, doubled or encoded slashes, raw characters."""
    if path and not _PATH.fullmatch(path):
        raise ValueError("the path has characters that must be percent-encoded, or does not begin with /")
    if re.search(r"%2f|%5c|%3b|%00|%c[01]", path, re.IGNORECASE):
        raise ValueError("the path has an encoded slash, backslash, semicolon or NUL")
    decoded = re.sub("%2e", ".", path, flags=re.IGNORECASE)
    if any(segment in (".", "..") for segment in re.split("[/;]", decoded)):
        raise ValueError("the path has dot segments")
    if "//" in path or "/;" in path:
        raise ValueError("the path has a doubled slash")
    return path


def _endpoint(value: str) -> str:
    split_url(value)
    return value


def _base(value: str) -> str:
    if "?" in value:
        raise ValueError("a URL here has no ?query")
    split_url(value)
    return value


def _proxy_url(value: str) -> str:
    parts = split_url(value) if value else SplitResult("", "", "", "", "")
    if parts.scheme != "http" or parts.path.strip("/") or parts.query:
        raise ValueError("expected none or the URL of an HTTP proxy such as http://proxy.example.com:3128")
    return value.rstrip("/")


def _route_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("expected a path that begins with /")
    return _plain_path(value)


def _allow(value: str) -> str:
    method, _, path = value.partition(" ")
    if not re.fullmatch(r"[A-Z][A-Z-]*|\*", method) or not path.startswith("/"):
        raise ValueError('expected a method and a path such as "GET /adm/**"; * for any method')
    _plain_path(path)
    if any("**" in segment and segment != "**" for segment in path.split("/")):
        raise ValueError("** stands for whole path segments: write it between slashes or last")
    return value


def _label(value: str) -> str:
    if not re.fullmatch(r"[\x20-\x7e]+", value):
        raise ValueError("expected printable ASCII, not empty")
    return value


def _server_name(value: str) -> str:
    try:
        ip_address(value)
    except ValueError:
        if value.startswith("[") or not _HOST.fullmatch(value):
            words = "expected a host name such as host.example.com, or an IP address, without a port or brackets"
            raise ValueError(words) from None
    return value


def _user(value: str) -> str:
    if ":" in value or not re.fullmatch(r"[^\x00-\x1f\x7f]+", value):
        raise ValueError("a user name has no colon and no control characters (RFC 7617)")
    return value


HeaderName = Annotated[
    str,
    Field(json_schema_extra={"pattern": rf"^{TOKEN}$"}),
    AfterValidator(_header_name),
    AfterValidator(_own_header),
]
CredentialHeader = Annotated[HeaderName, AfterValidator(_credential_header)]
"""Carries a client's key, or the token."""
HeaderValue = Annotated[str, AfterValidator(_header_value)]
Scheme = Annotated[str, AfterValidator(_scheme)]
EndpointUrl = Annotated[str, Field(json_schema_extra={"pattern": "^https?://"}), AfterValidator(_endpoint)]
BaseUrl = Annotated[str, Field(json_schema_extra={"pattern": r"^https?://[^?#]+$"}), AfterValidator(_base)]
ProxyUrl = Annotated[str, Field(json_schema_extra={"pattern": "^http://[^/?#@]+/?$"}), AfterValidator(_proxy_url)]
RoutePath = Annotated[str, Field(json_schema_extra={"pattern": r"^/[^?#]*$"}), AfterValidator(_route_path)]
AllowRule = Annotated[
    str, Field(json_schema_extra={"pattern": r"^([A-Z][A-Z-]*|\*) /[^?# ]*$"}), AfterValidator(_allow)
]
Label = Annotated[str, AfterValidator(_label)]
ServerName = Annotated[str, AfterValidator(_server_name)]
UserName = Annotated[str, AfterValidator(_user)]
