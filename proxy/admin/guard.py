"""What a web page may have an operator's browser do with the admin port: nothing, but for the port's own. Pure.

The port knows no login (it belongs on loopback or an operator's network), so a browser there could be used against it
by any page it visits. A page of another origin cannot see the answers, unless its own name is made to point here (DNS
rebinding): then the browser takes it for the same origin, and the Host is all that tells. Probes and scrapers may use
any name, so only browsers are held to addresses.
"""

import ipaddress
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

# Tools send none of these by themselves. Browsers leave out the first three where it suits the page (over plain http,
# for a GET, by its referrer policy), but never the last.
_BROWSERS_OWN: Final = ("Sec-Fetch-Site", "Origin", "Referer", "Accept-Language")
_NO_NAME: Final = "In a browser, open the admin port by its IP address or as localhost, not by a DNS name."


def unreadable(headers: Mapping[str, str]) -> str | None:
    """Why a request that only reads is refused, or None."""
    return _NO_NAME if _of_a_browser(headers) and not _is_address(_host(headers)) else None


def refusal(headers: Mapping[str, str]) -> str | None:
    """Why a request that changes something is refused, or None. Tools such as curl send none of these headers."""
    if headers.get("Sec-Fetch-Site", "").strip().lower() in ("cross-site", "same-site"):
        return "This request comes from a page of another site."
    origin = headers.get("Origin")
    if origin is not None and origin.strip().lower().partition("://")[2] != _host(headers):
        return "This request comes from a page of another origin."
    return unreadable(headers)


def _host(headers: Mapping[str, str]) -> str:
    return headers.get("Host", "").strip().lower()


def _of_a_browser(headers: Mapping[str, str]) -> bool:
    return any(name in headers for name in _BROWSERS_OWN)


def _is_address(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name == "localhost":
            return True
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
