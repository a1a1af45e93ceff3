"""The page's style and script: files of the package, inside the page, known to the browser by their hashes.

So one request gets all, a saved page looks as it did, and no other style or script can run (CSP Level 3, 2.3.1).
"""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Final

from proxy.admin.page.markup import Markup


def _source(name: str) -> Markup:
    return Markup(files(__package__).joinpath(name).read_text("utf-8"))


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


STYLE: Final = _source("page.css")
SCRIPT: Final = _source("page.js")
EDITION: Final = sha256((STYLE + SCRIPT).encode()).hexdigest()[:8]
"""Of style and script: an open page of another edition loads itself anew."""

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(STYLE)}",
        f"script-src {_hash(SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    # Not "no-referrer": that makes the Origin of the page's own form "null", as a foreign page's would be.
    "Referrer-Policy": "same-origin",
}
