"""The last line of defence against a secret in a log line: what looks like one becomes ``[redacted]``. Pure.

It guesses by shape, so it is no licence to log a secret: whoever logs is still the one who keeps it out. It rather
takes a harmless word than lets a credential pass.
"""

import re
from collections.abc import Mapping
from typing import Final

REDACTED: Final = "[redacted]"
LONGEST: Final = 4096  # characters of one string that reach a log line
_DEEPEST = 6
_WIDEST = 100  # items of one container

_SENSITIVE = (
    r"password|passwd|pwd|passphrase|secret|token|assertion|authorizations?|cookie|credentials?"
    r"|api[_-]?key|signing[_-]?key|private[_-]?key"
)
_SECRET_KEY: Final = re.compile(rf"(?i)(?:^|.*[_.\-\s])(?:{_SENSITIVE})")

# Prose such as "Basic authentication failed" stays: one short word of lower-case letters is no credential.
_NO_PROSE = r"(?![a-z]{1,14}(?:[\s.,;:!?)'\"]|$))"
# Where a word begins, also behind a line's end as a repr shows it.
_BEGIN = r"(?:\b|(?<=\\[nrt]))"
_RULES: Final = (
    # A JWT, or what a cut left of one (RFC 7519: base64url of '{"').
    (re.compile(_BEGIN + r"eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)*"), REDACTED),
    # A header line as text, or as the repr of bytes; RFC 9110 11.6, RFC 6265.
    (re.compile(rf"(?i){_BEGIN}((?:proxy-)?authorization|nv-authorizations|(?:set-)?cookie|x-api-key)(\s*:\s*)[^\r\n'\"\\]+"),
     rf"\1\2{REDACTED}"),
    # An RFC 7235 credential wherever it stands.
    (re.compile(rf"(?i:{_BEGIN}(bearer|basic|digest|negotiate))(\s+){_NO_PROSE}[\w.~+/=:\-]{{4,}}"),
     rf"\1\2{REDACTED}"),
    # JSON and the repr of a dict: "password": "…", also with backslashes before the quotes. Here and below whatever
    # comes before the word is no part of the pattern: one that begins with a run is tried anew at each place in it.
    (re.compile(rf"(?i)((?:{_SENSITIVE})\\*+[\"']\s*+:\s*+[bB]?\\*+)([\"'])(?:(?!\2|\\).|\\.)*+\2?"),
     rf"\1\2{REDACTED}\2"),
    # Form content, keyword arguments, a query: password=…
    (re.compile(rf"(?i)((?:{_SENSITIVE})=)(?!\[redacted\])(?:[bB]?'[^']*'?|[bB]?\"[^\"]*\"?|[^\s&'\",;)}}]+)"),
     rf"\1{REDACTED}"),
    # The userinfo of a URL (RFC 3986 3.2.1).
    (re.compile(r"(://)[^\s/@'\"]+@"), rf"\1{REDACTED}@"),
)  # fmt: skip
_HINT: Final = re.compile(rf"(?i)eyJ|bearer|basic|digest|negotiate|://|{_SENSITIVE}")


def scrub(text: str) -> str:
    """``text`` without what looks like a secret, cut at LONGEST."""
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    if _HINT.search(text) is None:
        return text
    for pattern, instead in _RULES:
        text = pattern.sub(instead, text)
    return text


def is_secret_name(name: str) -> bool:
    """Whether a value under this name is one not to show: ``password``, ``client_secret``, ``X-Api-Key``."""
    return _SECRET_KEY.fullmatch(name) is not None


def scrub_value(value: object, name: str = "", depth: int = 0) -> object:
    """The same for a log field: strings cleaned, containers walked (bounded), values of secret names replaced.

    Numbers, booleans and None stay under any name: ``token=True`` says that there is one.
    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if name and is_secret_name(name):
        return REDACTED
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, bytes):
        return scrub(value[:LONGEST].decode("latin-1"))
    if depth >= _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        items = list(value.items())[:_WIDEST]
        return {scrub(str(key)): scrub_value(item, str(key), depth + 1) for key, item in items}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [scrub_value(item, "", depth + 1) for item in list(value)[:_WIDEST]]
    return scrub(repr(value))
