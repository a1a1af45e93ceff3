"""One request between two connections in memory: what the token wing is told of it."""

import asyncio

import pytest

from proxy.tokens.source import Credential
from tests.support.inmemory import CREDENTIAL, FakeSource, InMemory, MemoryTransport, settled

GET = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n"


def answer(status: bytes, lines: bytes = b"", body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b X\r\n%bContent-Length: %d\r\n\r\n%b" % (status, lines, len(body), body)


NEW = Credential(b"Authorization", b"Authorization: Bearer new\r\n", 2, "00000002")
REFUSED = answer(b"401")


async def test_of_a_request_that_was_sent_once_nothing_is_told() -> None:
    source = FakeSource()
    with InMemory(source) as there:
        client = there.dial()
        client.receive(GET)
        there.upstreams[0].receive(answer(b"200"))
        assert source.served_with == []


async def test_a_replay_that_is_accepted_is_told_and_one_that_fails_is_not() -> None:
    for status, told in ((b"200", 1), (b"401", 0), (b"502", 0)):
        source = FakeSource(CREDENTIAL, renewal=NEW)
        with InMemory(source) as there:
            client = there.dial()
            client.receive(GET)
            there.upstreams[0].receive(REFUSED)
            assert b"Bearer new" in there.upstreams[-1].written
            there.upstreams[-1].receive(answer(status))
            assert client.written.startswith(b"HTTP/1.1 " + status)
            assert len(source.served_with) == told, status


HALF_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"


@pytest.mark.parametrize(
    ("begun", "answered", "end"),
    [
        (GET, b"", b"HTTP/1.1 504"),  # timeouts.response
        (GET, HALF_HEAD, b""),  # timeouts.idle: broken off
        (GET[:-2], b"", b"HTTP/1.1 408"),  # limits.head_time
        (b"POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 2\r\n\r\nx", b"", b"HTTP/1.1 408"),  # limits.body_idle
        (GET, answer(b"200"), b""),  # limits.keepalive: closed
    ],
)
async def test_no_time_that_was_granted_ends_early(begun: bytes, answered: bytes, end: bytes) -> None:
    """However long before it began the gateway last looked at the clock: the sweep may be late, and never early."""
    limits = {"head_time": "1s", "body_idle": "1s", "keepalive": "1s"}
    with InMemory(limits=limits, route={"timeouts": {"response": "1s", "idle": "1s"}}) as there:
        there.gateway.sweep()
        there.now += 0.24
        client = there.dial()
        client.receive(begun)
        if answered:
            there.upstreams[0].receive(answered)
        before = len(client.written)
        there.now += 0.99
        there.gateway.sweep()
        assert client.written[before:] == b""
        assert not client.is_closing()
        there.now += 0.01
        there.gateway.sweep()
        assert client.written[before:].startswith(end)
        assert end or client.is_closing()


PROTO, HOST = b"X-Forwarded-Proto: https\r\n", b"X-Forwarded-Host: crm.example\r\n"


@pytest.mark.parametrize(
    ("trusted", "lines", "seen"),
    [
        ("127.0.0.1/32", PROTO + HOST, b"https://crm.example/x"),
        ("127.0.0.1/32", PROTO, b"https://gw/x"),
        ("127.0.0.1/32", HOST, b"http://crm.example/x"),
        ("127.0.0.1/32", b"X-Forwarded-Proto: https, http\r\nX-Forwarded-Host: a:8443, b\r\n", b"https://a:8443/x"),
        ("127.0.0.1/32", b"X-Forwarded-Proto: gopher\r\nX-Forwarded-Host: a/b\r\n", b"http://gw/x"),
        ("127.0.0.1/32", b"", b"http://gw/x"),
        ("192.0.2.1/32", PROTO + HOST, b"http://gw/x"),
    ],
)
async def test_a_redirect_leads_to_where_the_client_came_by_the_word_of_a_trusted_proxy(
    trusted: str, lines: bytes, seen: bytes
) -> None:
    """Behind a load balancer that ends TLS, http:// would have the CRM send its key in the clear."""
    with InMemory(clients={"trusted_proxies": [trusted], "allow_from": ["127.0.0.1/32", "10.1.1.1/32"]}) as there:
        client = there.dial()
        client.receive(b"GET / HTTP/1.1\r\nHost: gw\r\nX-Forwarded-For: 10.1.1.1\r\n" + lines + b"\r\n")
        there.upstreams[0].receive(answer(b"302", b"Location: http://up/x\r\n"))
        assert b"\r\nLocation: " + seen + b"\r\n" in client.written


TINY = b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: gw\r\n" + CHUNKED
OK_CHUNKED = b"HTTP/1.1 200 OK\r\n" + CHUNKED


async def goes(transport: MemoryTransport, mark: bytes) -> int:
    """How many turns of the loop pass until ``mark`` is written there; in each, little."""
    turns, before = 0, len(transport.written)
    while not transport.written.endswith(mark):
        await asyncio.sleep(0)
        assert len(transport.written) - before < 2000
        turns, before = turns + 1, len(transport.written)
        assert turns < 1000
    return turns


async def test_a_request_of_tiny_chunks_is_read_a_little_at_a_time() -> None:
    with InMemory() as there:
        client = there.dial()
        client.receive(POST + TINY)
        (upstream,) = there.upstreams
        assert not client.reading
        assert await goes(upstream, b"0\r\n\r\n") > 70
        assert upstream.written.count(b"x") - upstream.written.count(b"x-corr") == 20_000
        assert client.reading
        upstream.receive(answer(b"200"))
        client.receive(GET)
        assert b"GET / HTTP" in upstream.written


async def test_an_answer_of_tiny_chunks_is_read_a_little_at_a_time() -> None:
    with InMemory() as there:
        client = there.dial()
        client.receive(GET)
        (upstream,) = there.upstreams
        upstream.receive(OK_CHUNKED + TINY)
        assert await goes(client, b"0\r\n\r\n") > 70
        assert client.written.count(b"x") - client.written.count(b"x-corr") == 20_000
        client.receive(GET)
        upstream.receive(answer(b"204"))
        assert upstream.reading
        assert b"HTTP/1.1 204" in client.written
        assert len(there.upstreams) == 1


async def test_what_is_left_of_a_read_waits_for_whoever_takes_it() -> None:
    with InMemory() as there:
        client = there.dial()
        client.receive(GET)
        (upstream,) = there.upstreams
        upstream.receive(OK_CHUNKED + TINY)
        client.protocol.pause_writing()
        before = len(client.written)
        await settled(50)
        assert len(client.written) == before
        assert not upstream.reading
        client.protocol.resume_writing()
        await goes(client, b"0\r\n\r\n")
        assert upstream.reading
        client.receive(POST + TINY)
        upstream.protocol.pause_writing()
        before = len(upstream.written)
        await settled(50)
        assert len(upstream.written) == before
        upstream.protocol.resume_writing()
        await goes(upstream, b"0\r\n\r\n")
        assert client.reading


async def test_a_body_that_breaks_while_it_is_caught_up_with_is_refused() -> None:
    with InMemory() as there:
        client = there.dial()
        client.receive(POST + b"1\r\nx\r\n" * 2000 + b"nonsense\r\n")
        await settled(50)
        assert client.written.startswith(b"HTTP/1.1 400 ")
        assert client.reading
        assert client.ended == "half"
        assert there.upstreams[0].is_closing()
