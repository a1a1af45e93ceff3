"""Request heads on their way to the upstream: what is dropped, what is added, and that the rest stays as it was."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.gateway.fields import Fields, split_fields
from proxy.gateway.headers import FORWARDED_NAMES, RequestRules, fold, forwarded_lines, trailer_lines, upgrade_lines
from proxy.gateway.http1 import RequestHead, parse_request

SIGNED = RequestRules(injected=b"authorization", remove=[b"X-Internal"], add=[(b"nv-tenant-id", b"nagra")])
OTHER = RequestRules(injected=b"nv-authorizations")
UNSIGNED = RequestRules(injected=None)


def head_of(*lines: bytes, method: bytes = b"POST") -> RequestHead:
    data = method + b" /t HTTP/1.1\r\nHost: client\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    return parse_request(data, len(data) - 4, 1024)


def sent(rules: RequestRules, *lines: bytes, extra: bytes = b"", drop: frozenset[bytes] = frozenset()) -> list[bytes]:
    """The field lines for the upstream, those that always come aside."""
    built = rules.build(head_of(b"x-correlation-id: c", *lines), b"/t", b"up", b"new", extra, drop)
    first, host, *rest = built.split(b"\r\n")
    assert (first, host, rest.pop()) == (b"POST /t HTTP/1.1", b"Host: up", b"")
    return [line for line in rest if line not in (b"x-correlation-id: c", b"nv-tenant-id: nagra")]


HOP_BY_HOP = [
    b"Connection: x",
    b"Keep-Alive: timeout=5",
    b"Proxy-Authenticate: x",
    b"Proxy-Authentication-Info: x",
    b"Proxy-Authorization: Basic eA==",
    b"Proxy-Connection: keep-alive",
    b"TE: trailers",
    b"Upgrade: h2c",
    b"keep_alive: x",
    b"PROXY_AUTHORIZATION: x",
]


@pytest.mark.parametrize("rules", [SIGNED, OTHER, UNSIGNED])
@pytest.mark.parametrize("line", HOP_BY_HOP)
def test_hop_by_hop_fields_end_at_the_gateway(rules: RequestRules, line: bytes) -> None:
    assert sent(rules, line, b"A: 1") == [b"A: 1"]


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        (SIGNED, b"Authorization: Bearer mine"),
        (SIGNED, b"AUTHORIZATION:Bearer mine"),
        (OTHER, b"nv-authorizations: mine"),
        (OTHER, b"Nv_Authorizations: mine"),
        (OTHER, b"NV-AUTHORIZATIONS:"),
        (SIGNED, b"NV_TENANT_ID: other"),
        (SIGNED, b"Nv-Tenant-Id: other"),
        (SIGNED, b"x_internal: 1"),
        (SIGNED, b"X-Internal: 1"),
        (SIGNED, b"Content_Length: 4"),
        (SIGNED, b"Transfer_Encoding: chunked"),
    ],
)
def test_the_credential_and_the_routes_own_fields_cannot_be_imitated(rules: RequestRules, line: bytes) -> None:
    assert sent(rules, line, line, b"A: 1") == [b"A: 1"]


def test_another_authorization_passes_where_another_field_is_injected() -> None:
    for rules in (OTHER, UNSIGNED):
        assert sent(rules, b"Authorization: Bearer mine") == [b"Authorization: Bearer mine"]


@pytest.mark.parametrize("named", [b"a", b"A", b"x, A ,y", b"close,a", b",,a,,"])
def test_what_connection_names_is_dropped_in_every_spelling(named: bytes) -> None:
    assert sent(SIGNED, b"A: 1", b"Connection: " + named, b"a: 2", b"B: 3") == [b"B: 3"]


def test_connection_names_look_alikes_too() -> None:
    assert sent(SIGNED, b"Connection: x-a", b"X_A: 1", b"X-A: 1", b"X-B: 1") == [b"X-B: 1"]


@pytest.mark.parametrize(
    "name", [b"authorization", b"host", b"nv-tenant-id", b"x-correlation-id", b"content-length", b"x-forwarded-for"]
)
def test_connection_removes_nothing_that_the_gateway_adds(name: bytes) -> None:
    head = head_of(b"Connection: " + name, b"Content-Length: 3")
    built = SIGNED.build(head, b"/t", b"up", b"new", b"X-Forwarded-For: 1.2.3.4\r\n")
    assert built.split(b"\r\n")[1:-1] == [
        b"Host: up",
        b"Content-Length: 3",
        b"x-correlation-id: new",
        b"nv-tenant-id: nagra",
        b"X-Forwarded-For: 1.2.3.4",
    ]


@pytest.mark.parametrize(
    ("lines", "ids"),
    [
        ([], [b"new"]),
        ([b"x-correlation-id: mine"], [b"mine"]),
        ([b"X-Correlation-ID: mine"], [b"mine"]),
        ([b"x-correlation-id:"], [b"new"]),
        ([b"x-correlation-id: \t", b"A: 1"], [b"new"]),
        ([b"x-correlation-id: mine", b"Connection: x-correlation-id"], [b"new"]),
        ([b"X_Correlation_Id: other"], [b"new"]),
        ([b"x-correlation_id: other", b"X-Correlation-Id: mine", b"X_CORRELATION_ID: other"], [b"mine"]),
    ],
)
def test_exactly_one_correlation_id_goes_on(lines: list[bytes], ids: list[bytes]) -> None:
    built = UNSIGNED.build(head_of(*lines), b"/t", b"up", b"new")
    found = [line.partition(b":") for line in built.split(b"\r\n")]
    assert [value.strip() for name, _, value in found if fold(name) == b"x-correlation-id"] == ids


@pytest.mark.parametrize(
    ("lines", "framing"),
    [
        ([], []),
        ([b"Content-Length: 0"], [b"Content-Length: 0"]),
        ([b"content-length:  007"], [b"Content-Length: 7"]),
        ([b"transfer-encoding: CHUNKED"], [b"Transfer-Encoding: chunked"]),
    ],
)
def test_framing_is_written_anew_from_what_was_read(lines: list[bytes], framing: list[bytes]) -> None:
    assert sent(UNSIGNED, *lines) == framing


LINE = st.builds(
    lambda name, value: name + b":" + value,
    st.from_regex(rb"[XYZxyz][!#$%&'*+.^`|~0-9A-Za-z-]{0,8}", fullmatch=True).filter(
        lambda name: not name.lower().startswith((b"x-internal", b"x-correlation-id"))
    ),
    st.from_regex(rb"[\t\x20-\x7e\x80-\xff]{0,12}", fullmatch=True),
)


@given(lines=st.lists(LINE, max_size=12))
def test_every_other_line_passes_byte_for_byte_in_number_and_order(lines: list[bytes]) -> None:
    assert sent(SIGNED, *lines) == lines


def test_fields_that_admitted_the_client_are_dropped_for_this_request_only() -> None:
    drop = frozenset((b"x-api-key", b"authorization"))
    lines = (b"X_Api-Key: s", b"X-API-KEY: s", b"Authorization: Basic s")
    assert sent(UNSIGNED, *lines, b"A: 1", drop=drop) == [b"A: 1"]
    assert sent(UNSIGNED, *lines, b"A: 1") == [*lines, b"A: 1"]


def fields(*lines: bytes) -> Fields:
    block = b"".join(line + b"\r\n" for line in lines)
    return split_fields(block, 0, len(block))


@pytest.mark.parametrize(
    "name",
    [b"Authorization", b"content-length", b"Transfer_Encoding", b"Host", b"Cookie", b"Connection", b"Upgrade",
     b"Trailer", b"X-Forwarded-For", b"x_correlation_id", b"Set-Cookie", b"Content-Type", b"TE", b"Expect"],
)  # fmt: skip
def test_some_fields_never_travel_as_trailers(name: bytes) -> None:
    assert trailer_lines(fields(name + b": 1", b"A: 1")) == b"A: 1\r\n"


def test_a_trailer_obeys_the_same_rules_as_a_header() -> None:
    trailers = fields(b"nv-authorizations: mine", b"NV_Tenant_Id: x", b"X-Internal: 1", b"x-api-key: s", b"Digest: 1")
    kept = {
        rules: [name for _, name in rules.passing(trailers, frozenset((b"x-api-key",)))] for rules in (SIGNED, OTHER)
    }
    assert kept[SIGNED] == [b"nv-authorizations", b"Digest"]
    assert kept[OTHER] == [b"NV_Tenant_Id", b"X-Internal", b"Digest"]


def test_what_a_request_drops_is_kept_for_its_trailers() -> None:
    head = head_of(b"Connection: X_Secret")
    UNSIGNED.build(head, b"/t", b"up", b"new", also_drop=frozenset((b"x-api-key",)))
    assert head.dropped == {b"x-secret", b"x-api-key"}


@pytest.mark.parametrize(
    ("trusted", "lines"),
    [
        (False, [b"X-Forwarded-For: 192.0.2.7", b"X-Forwarded-Proto: http", b"X-Forwarded-Host: gw:8080"]),
        (True, [b"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.7",
                b"X-Forwarded-Proto: https", b"X-Forwarded-Host: crm"]),
    ],
)  # fmt: skip
def test_only_a_trusted_proxys_word_about_the_client_is_continued(trusted: bool, lines: list[bytes]) -> None:
    told = fields(b"X-Forwarded-For: 1.1.1.1, 2.2.2.2", b"x-forwarded-for: 3.3.3.3", b"X-Forwarded-Proto: https",
                  b"X-Forwarded-Host: crm", b"X_Forwarded_For: 6.6.6.6")  # fmt: skip
    assert forwarded_lines(told, "192.0.2.7", b"http", b"gw:8080", trusted=trusted).split(b"\r\n")[:-1] == lines
    dropped = [line for line, _ in told]
    assert sent(UNSIGNED, *(line[:-2] for line in dropped), drop=FORWARDED_NAMES) == []


def test_without_a_host_none_is_forwarded() -> None:
    assert b"Host" not in forwarded_lines([], "::1", b"http", b"", trusted=False)


def test_an_upgrade_is_asked_for_anew_on_this_hop() -> None:
    lines = sent(UNSIGNED, b"Connection: Upgrade, X", b"Upgrade: websocket", b"X: 1", extra=upgrade_lines(b"websocket"))
    assert lines == [b"Connection: Upgrade", b"Upgrade: websocket"]


def test_the_memory_for_names_is_bounded_in_number_and_in_bytes() -> None:
    rules = RequestRules(injected=None)
    for number in range(3000):
        assert rules.passes(b"%b%d" % (b"n" * 1000, number))
        assert rules.passes(b"%d" % number)
    assert len(rules._memory) <= 2048
    assert sum(map(len, rules._memory)) < 2048 * 64
