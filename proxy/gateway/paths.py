"""Pure: what a request path can mean to whoever reads it, and the allow list that judges one.

A path is forwarded byte for byte, so nothing here rewrites one. What we judge is the raw path; what the upstream acts
on is whatever *it* makes of those bytes, and servers differ. So these functions answer two questions: can a path be
read in another way (``plain``, ``hazard``, ``may_climb``, ``ambiguous``), and which is its most lenient reading
(``canonical``). Both take time linear in the path, and too much for a path made for that (``excessive``).

Sources: RFC 3986 5.2.4 (dot segments) and 6.2.2 (equivalent spellings); RFC 9110 7.7. Tomcat drops the ``;parameters``
of each segment before it maps a path (CVE-2020-5902 was reached by ``/..;/``). IIS and Java servers take a backslash
for a slash. Windows cuts dots and blanks off the end of a name ("Naming Files, Paths, and Namespaces"). CVE-2021-29492
(Envoy: ``%2f``, ``%5c``). nginx ``merge_slashes``. CVE-2008-2938 and CVE-2000-0884 (Tomcat, IIS: overlong UTF-8).

Everything is decoded once. ``%252e`` passes: a server that decodes once sees the literal text ``%2e``, and a server
that decodes twice has that hole for every client; refusing ``%25`` here would break names that hold a percent sign.
"""

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

_MOST_SLASHES = 256
_MOST_ESCAPES = 2048  # at most four a character: 500 of any script

_DOT = rb"(?:\.|%2e|%c0%ae)"
_EDGE = rb"[/\\;]|%2f|%5c|%3b|%c0%af|%c1%9c"
_BLANK = rb"(?:%20|%09|[\t ])"
_END = rb"(?=" + _EDGE + rb"|\Z)"
_DOT_SEGMENT = re.compile(rb"(?:^|" + _EDGE + rb")" + _DOT + rb"{1,2}" + _BLANK + rb"*+" + _END, re.IGNORECASE)
_CUT_OFF = re.compile(rb"(?:" + _DOT + rb"|" + _BLANK + rb")" + _END, re.IGNORECASE)

# Paths with one reading only: whole segments of RFC 3986 3.3 characters, no first or last dot, no "%", no ";". Nearly
# every request's path is one, and this expression costs a tenth of a search for all the spellings that are not.
_PLAIN = re.compile(rb"(?:/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*+(?<!\.))*+/?")

# ASCII in more bytes than UTF-8 allows (RFC 3629 3), encoded or not: lenient decoders take it for the character.
_OVERLONG = re.compile(
    rb"(?:%c[01]|[\xc0\xc1])(?:%[89ab][0-9a-f]|[\x80-\xbf])"
    rb"|(?:%e0|\xe0)(?:%8[01]|[\x80\x81])|(?:%f0|\xf0)(?:%80|\x80)(?:%8[01]|[\x80\x81])",
    re.IGNORECASE,
)
_OVERLONG_BYTES = re.compile(rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80\x81][\x80-\xbf]|\xf0\x80[\x80\x81][\x80-\xbf]")

# Spellings that make one server see a boundary, or a dot, or the end of a name, where another sees none.
_MANY_READINGS = re.compile(rb"//|[\\;\t ]|[^/.]\.+(?:/|\Z)|\.{3}|%2e|%2f|%5c|%3b|%20|%09", re.IGNORECASE)

_SPELLINGS = {
    b"//": "doubled slashes",
    b"\\": "a backslash",
    b";": "a path parameter",
    b"%2e": "an encoded dot",
    b"%2f": "an encoded slash",
    b"%5c": "an encoded backslash",
    b"%3b": "an encoded semicolon",
    **dict.fromkeys((b"\t", b" ", b"%20", b"%09"), "a blank"),
}

# A parameter with a boundary inside ends there for a server that decodes first, and at the next slash for one that
# drops parameters first, as Tomcat does: "/;%2fx/adm" is /x/adm to the one and /adm to the other.
_OPEN_ENDED = re.compile(rb"(?:;|%3b)(?:[^/;%\\]|%(?!2f|5c|3b))*+(?:\\|%2f|%5c)", re.IGNORECASE)

_HAZARDS = (
    (_DOT_SEGMENT, "dot segments"),
    (_CUT_OFF, "a segment that ends in a dot or a blank"),
    (re.compile(rb"%2f|%c0%af", re.IGNORECASE), "an encoded slash"),
    (re.compile(rb"\\|%5c|%c1%9c", re.IGNORECASE), "a backslash"),
    # "/;x/" is an empty segment to a server that drops parameters, so two slashes meet there as well.
    (re.compile(rb"//|/;"), "doubled slashes"),
    (re.compile(rb"%3b", re.IGNORECASE), "an encoded semicolon"),
    (_OVERLONG, "overlong UTF-8"),
    # A NUL ends the name for servers written in C: "secret.cfg%00.txt" would pass for a text file.
    (re.compile(rb"[\x00-\x20#\x7f]|%00"), "a control character or '#'"),
    (re.compile(rb"%(?![0-9A-Fa-f]{2})"), "a percent sign that encodes nothing"),
)

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Z-]+")


def hazard(path: bytes) -> str | None:
    """Words for the first thing in ``path`` that servers read in different ways; None for a plain path."""
    if plain(path):
        return None
    return next((words for pattern, words in _HAZARDS if pattern.search(path) is not None), None)


def plain(path: bytes) -> bool:
    """Whether every server reads ``path`` the same way; False may also be mere caution (``/.well-known/x``)."""
    return _PLAIN.fullmatch(path) is not None


def canonical(path: bytes) -> bytes:
    """The most lenient reading: decoded once, ``\\`` is ``/``, parameters dropped, dots and blanks cut off the end of
    names, slashes merged, dots resolved.
    """
    resolved: list[bytes] = []
    for piece in _decoded(path).split(b"/"):
        segment = piece.partition(b";")[0].rstrip(b"\t ")
        if segment == b"..":
            del resolved[-1:]
        elif name := segment.rstrip(b".\t "):
            resolved.append(name)
    return b"/" + b"/".join(resolved)


def may_climb(path: bytes) -> bool:
    """Whether any reading of ``path`` rises above its own start at any point on the way.

    Counts against the path, so that the answer holds for all readings at once: what stands between two plain slashes
    adds one level at most, and only if something is left of it without its parameters; it takes away a level for each
    ``..`` that somebody could see in it.
    """
    depth = 0
    for between in path.split(b"/"):
        seen = _decoded(between)
        climbs = sum(piece.partition(b";")[0].rstrip(b"\t ") == b".." for piece in seen.split(b"/"))
        if climbs:
            depth -= climbs
            if depth < 0:
                return True
        elif any(piece.rstrip(b".\t ") for piece in seen.partition(b";")[0].split(b"/")):
            depth += 1
    return False


def excessive(path: bytes) -> bool:
    """Whether judging ``path`` would cost milliseconds. Only for one that is not plain: those cost next to nothing."""
    return path.count(b"/") > _MOST_SLASHES or path.count(b"%") > _MOST_ESCAPES


def ambiguous(path: bytes) -> str | None:
    """Words for what leaves ``path`` without a single canonical reading, so that none can be judged: dot segments *and*
    boundaries that only some servers see, or one of few other things. None where there is a reading.

    ``/a/b//../../secret`` is ``/secret`` to a server that merges slashes first and ``/a/secret`` to one that does not.
    """
    if b"%00" in path:
        return "an encoded NUL"
    if _OVERLONG.search(path) is not None:
        return "overlong UTF-8"
    if _OPEN_ENDED.search(path) is not None:
        return "a path parameter with a slash or backslash inside"
    if _DOT_SEGMENT.search(path) is None or (found := _MANY_READINGS.search(path)) is None:
        return None
    return f"dot segments and {_SPELLINGS.get(found[0].lower(), 'a segment that ends in a dot')}"


def _decoded(path: bytes) -> bytes:
    """Decoded once, by the most lenient decoder: overlong UTF-8 is what it stands for, a backslash a slash."""
    return _OVERLONG_BYTES.sub(_shortest, unquote_to_bytes(path)).replace(b"\\", b"/")


def _shortest(overlong: re.Match[bytes]) -> bytes:
    """Of its bits only the last seven are not zero, or it would be no ASCII."""
    return bytes([(overlong[0][-2] & 1) << 6 | overlong[0][-1] & 0x3F])


class AllowList:
    """Which method and path a route lets through: ``GET /adm/**``, ``POST /rmg/*/lock``, ``* /health``.

    An entry is a method (or ``*``), a space, and a pattern of the whole raw path, without the query. ``**`` stands for
    any number of whole segments, also none; ``*`` alone for one segment; ``*`` inside a segment for any part of it.
    Everything else is literal: ``%61`` does not match ``a``, ``/adm/`` does not match ``/adm``, GET does not imply
    HEAD. Raises ValueError, in words, for an entry that could never match or would mislead.
    """

    __slots__ = ("_any", "_methods")

    def __init__(self, entries: Iterable[str]) -> None:
        patterns: dict[str, list[str]] = {}
        for entry in entries:
            method, pattern = _parse(entry)
            patterns.setdefault(method, []).append(_expression(pattern))
        compiled = {method: re.compile("|".join(found).encode(), re.DOTALL) for method, found in patterns.items()}
        self._any = compiled.pop("*", None)
        self._methods = {method.encode(): expression for method, expression in compiled.items()}

    def permits(self, method: bytes, path: bytes) -> bool:
        """Whether an entry matches. The caller has refused every path with a ``hazard`` before."""
        expression = self._methods.get(method)
        if expression is not None and expression.fullmatch(path) is not None:
            return True
        return self._any is not None and self._any.fullmatch(path) is not None


def _parse(entry: str) -> tuple[str, str]:
    method, space, pattern = entry.partition(" ")
    if not space or not pattern.startswith("/") or " " in pattern:
        raise ValueError(f"{entry!r}: expected a method, one space and a path, such as 'GET /adm/**' or '* /rmg/*'")
    if _TOKEN.fullmatch(method) is None:
        raise ValueError(f"{entry!r}: {method!r} is no method; write it in capitals, or * for every method")
    if "?" in pattern:
        raise ValueError(f"{entry!r}: the query is not judged; leave out everything from the '?'")
    if any("**" in segment and segment != "**" for segment in pattern.split("/")):
        raise ValueError(f"{entry!r}: ** stands for whole segments; write it alone between slashes")
    if not pattern.isascii():
        raise ValueError(f"{entry!r}: write characters beyond ASCII percent-encoded, as they come in a request")
    words = hazard(pattern.encode())
    if words is not None:
        raise ValueError(f"{entry!r}: a path with {words} is always refused, so this entry would never match")
    return method, pattern


def _expression(pattern: str) -> str:
    """A regular expression that takes time linear in the path, whatever a client sends.

    Atomic groups are safe here and need no backtracking between them: ``**`` followed by a run of segments matches
    best at the first place where that run fits, and only the last run is tied to the end (cf. ``fnmatch.translate``).
    """
    runs = [_run(run) for run in pattern.split("/**")]
    if len(runs) == 1:
        return runs[0]
    middle = "".join(f"(?>(?:/[^/]*+)*?{run}(?=/|\\Z))" for run in runs[1:-1] if run)
    tail = runs[-1]
    return runs[0] + middle + (f"(?:/[^/]*+)*?{tail}" if tail else r"(?:/.*)?")


def _run(segments: str) -> str:
    return "".join("/" + _segment(segment) for segment in segments.split("/")[1:])


def _segment(segment: str) -> str:
    if segment == "*":
        return "[^/]++"
    first, *rest = (re.escape(piece) for piece in segment.split("*"))
    if not rest:
        return first
    # "*.txt" must not reach over a semicolon: "secret.cfg;.txt" is secret.cfg to a server that drops parameters.
    middle = "".join(f"(?>[^/;]*?{piece})" for piece in rest[:-1] if piece)
    return first + middle + (f"[^/;]*{rest[-1]}(?=/|\\Z)" if rest[-1] else "[^/]*+")
