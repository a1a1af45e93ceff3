"""One request between two connections in memory: what the token wing is told of it."""

import pytest

from proxy.tokens.source import Credential
from tests.support.inmemory import CREDENTIAL, FakeSource, InMemory

GET = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n"


def answer(status: bytes, lines: bytes = b"", body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b X\r\n%bContent-Length: %d\r\n\r\n%b" % (status, lines, len(body), body)


def new(*, unproven: bool) -> Credential:
    return Credential(b"Authorization", b"Authorization: Bearer new\r\n", 2, "00000002", unproven=unproven)


REFUSED = answer(b"401")
BY_CODE = answer(b"200", b"Content-Type: application/json\r\n", b'{"resultCode":"99999:403"}')


async def test_the_first_accepted_answer_with_an_unproven_token_is_told_and_no_later_one() -> None:
    """After a rejection that could not be sent again, the next request's fate says whether the refresh cured it."""
    credential = new(unproven=True)
    source = FakeSource(credential)
    with InMemory(source) as there:
        client = there.dial()
        for number in range(3):
            client.receive(GET)
            there.upstreams[0].receive(answer(b"200"))
            assert source.served_with == [credential], number
        assert client.written.count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize("refusal", [REFUSED, BY_CODE, answer(b"500"), answer(b"503")])
async def test_an_unproven_token_is_not_proven_by_a_refusal_or_a_failure(refusal: bytes) -> None:
    source = FakeSource(new(unproven=True))
    with InMemory(source) as there:
        client = there.dial()
        client.receive(GET)
        there.upstreams[0].receive(refusal)
        assert client.written.startswith(refusal[:12])
        assert source.served_with == []
        client.receive(GET)
        there.upstreams[0].receive(answer(b"404"))
        assert len(source.served_with) == 1


async def test_of_an_ordinary_token_nothing_is_told() -> None:
    source = FakeSource()
    with InMemory(source) as there:
        client = there.dial()
        client.receive(GET)
        there.upstreams[0].receive(answer(b"200"))
        assert source.served_with == []


async def test_a_replay_that_is_accepted_is_told_and_one_that_fails_is_not() -> None:
    for status, told in ((b"200", 1), (b"401", 0), (b"502", 0)):
        source = FakeSource(CREDENTIAL, renewal=new(unproven=False))
        with InMemory(source) as there:
            client = there.dial()
            client.receive(GET)
            there.upstreams[0].receive(REFUSED)
            assert b"Bearer new" in there.upstreams[-1].written
            there.upstreams[-1].receive(answer(status))
            assert client.written.startswith(b"HTTP/1.1 " + status)
            assert len(source.served_with) == told, status
