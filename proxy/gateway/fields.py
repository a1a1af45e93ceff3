"""Header fields: cut them, and find among them what the gateway itself must understand. Pure; RFC 9110 5."""

import re
from typing import Final, Literal

ParseFault = Literal["request", "limit"]

# (whole line with CRLF, name as sent)
Fields = list[tuple[bytes, bytes]]

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# RFC 9110 5.5: VCHAR, SP, HTAB and obs-text; every other control character is refused, CR, LF and NUL first of all.
# Where no line matches, the rest matches as one, with an empty name: possessive and in one bite, so that no head costs
# more than linear time (a search for the next line would take seconds for one 60 KiB line without a colon).
FIELD: Final = re.compile(rb"((" + TOKEN + rb"):[\t\x20-\x7e\x80-\xff]*+\r\n)|(?s:.++)")


class MessageError(Exception):
    """The peer's message cannot be read. status: what a client is told when it is the one to blame.

    The words never quote the peer's bytes: they may hold a credential.
    """

    def __init__(self, words: str, status: int = 400, fault: ParseFault = "request") -> None:
        super().__init__(words)
        self.words = words
        self.status = status
        self.fault: ParseFault = fault


# What a head's meaning hangs on, by lower-case name. Looked up by the name as sent, in a bounded memory that spares
# the lower(). The empty name is what the grammar did not match.
HOST, LENGTH, CODING, CONNECTION, EXPECT, UPGRADE, CORRELATION_ID, CONTENT_TYPE, CONTENT_CODING = range(1, 10)
_GARBAGE: Final = -1
REQUEST_NAMES: Final = {
    b"": _GARBAGE,
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"x-correlation-id": CORRELATION_ID,
}
RESPONSE_NAMES: Final = {
    b"": _GARBAGE,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"content-type": CONTENT_TYPE,
    b"content-encoding": CONTENT_CODING,
}
MEMORY_SIZE: Final = 2048
NAME_MAX: Final = 64  # bytes of a name worth remembering: clients choose names, and the memory is for good


def _recall(memory: dict[bytes, int], name: bytes, names: dict[bytes, int]) -> int:
    meaning = names.get(name.lower(), 0)
    if len(memory) < MEMORY_SIZE and len(name) <= NAME_MAX:
        memory[name] = meaning
    return meaning


def value_of(line: bytes, name: bytes) -> bytes:
    """The field value of a line, without the optional whitespace around it."""
    return line[len(name) + 1 : -2].strip(b" \t")


def split_fields(block: bytes, start: int, end: int) -> Fields:
    """Cut ``block[start:end]`` into its field lines. Raises MessageError when a byte belongs to no valid line."""
    fields: Fields = FIELD.findall(block, start, end)
    if any(not name for _, name in fields):
        raise MessageError("a header line is malformed")
    return fields


def meanings(fields: Fields, memory: dict[bytes, int], names: dict[bytes, int]) -> dict[int, bytes]:
    """The values that the gateway itself must understand. Repeated fields are joined by a comma, but for those that
    may come only once."""
    found: dict[int, bytes] = {}
    for line, name in fields:
        meaning = memory.get(name)
        if meaning is None:
            meaning = _recall(memory, name, names)
        if meaning:
            if meaning < 0:
                raise MessageError("a header line is malformed")
            value = line[len(name) + 1 : -2].strip(b" \t")
            if meaning in found:
                if meaning in ONCE:
                    raise MessageError(ONCE[meaning], 417 if meaning == EXPECT else 400)
                value = found[meaning] + b"," + value
            found[meaning] = value
    return found


ONCE: Final = {
    HOST: "the Host header is repeated or invalid",
    LENGTH: "the Content-Length is not one plain decimal number",
    CODING: "the Transfer-Encoding is not exactly one 'chunked'",
    EXPECT: "the only expectation understood is 100-continue",
}


def elements(value: bytes) -> frozenset[bytes]:
    """The members of a comma-separated list field, lower case (RFC 9110 5.6.1)."""
    return frozenset(part for item in value.split(b",") if (part := item.strip(b" \t").lower()))
