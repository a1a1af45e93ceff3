"""Wrong credentials, one after the other: slowed for whoever tries them, counted, and nothing to anybody else."""

from base64 import b64encode
from typing import Any

import pytest

from tests.support.inmemory import InMemory, MemoryTransport, settled

CLIENTS: dict[str, Any] = {"basic": {"crm": {"password": "right"}}, "api_keys": {"keys": ["key-one", "key-two"]}}
RIGHT = b"GET / HTTP/1.1\r\nHost: gw\r\nX-Api-Key: key-one\r\n\r\n"
WRONG = b"GET / HTTP/1.1\r\nHost: gw\r\nX-Api-Key: wrong\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def basic(password: str) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: gw\r\nAuthorization: Basic %b\r\n\r\n" % b64encode(f"crm:{password}".encode())


def denied(there: InMemory) -> int:
    return there.metrics.client_denied["credential"]


def flood(there: InMemory, count: int, peer: str = "127.0.0.1", request: bytes = WRONG) -> list[MemoryTransport]:
    found = []
    for _ in range(count):
        found.append(there.dial(peer))
        found[-1].receive(request)
    return found


def statuses(clients: list[MemoryTransport]) -> list[bytes]:
    return [bytes(client.written[9:12]) for client in clients]


def serve(there: InMemory, request: bytes, peer: str = "127.0.0.1") -> bytes:
    """The status of a request that is answered at once."""
    client = there.dial(peer)
    client.receive(request)
    if not client.written:
        there.upstreams[-1].receive(OK)
    return bytes(client.written[9:12])


@pytest.mark.parametrize("request_", [WRONG, basic("wrong")])
async def test_after_ten_wrong_ones_answers_come_one_by_one_and_end_the_connection(request_: bytes) -> None:
    with InMemory(clients=CLIENTS) as there:
        tries = flood(there, 14, request=request_)
        assert statuses(tries) == [b"401"] * 10 + [b""] * 4
        assert denied(there) == 14
        for number in range(4):
            there.later(0.5)
            assert statuses(tries[10:]) == [b"401"] * (number + 1) + [b""] * (3 - number)
        assert [client.ended for client in tries] == [""] * 10 + ["half"] * 4
        assert b"Connection: close" in tries[13].written


async def test_right_credentials_are_never_slowed_whoever_else_has_the_address() -> None:
    with InMemory(clients=CLIENTS) as there:
        kept = there.dial()
        flood(there, 100)
        for request in (RIGHT, basic("right")):
            assert serve(there, request) == b"200"
            kept.receive(request)
            there.upstreams[-1].receive(OK)
        assert kept.written.count(b"HTTP/1.1 200") == 2


async def test_who_shows_nothing_is_only_asked_and_never_slowed() -> None:
    with InMemory(clients=CLIENTS) as there:
        nothing = b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n"
        bearer = b"GET / HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer theirs\r\n\r\n"
        assert statuses(flood(there, 50, request=nothing)) == [b"401"] * 50
        assert statuses(flood(there, 50, request=bearer)) == [b"401"] * 50
        assert denied(there) == 100
        assert statuses(flood(there, 10)) == [b"401"] * 10


async def test_who_repeats_a_credential_is_told_which_and_never_slowed() -> None:
    with InMemory(clients=CLIENTS) as there:
        twice = RIGHT[:-2] + b"Authorization: Basic YTpi\r\nAuthorization: Bearer x\r\n\r\n"
        tries = flood(there, 50, request=twice)
        assert statuses(tries) == [b"401"] * 50
        assert b"The Authorization field stands in the request more than once." in tries[-1].written
        assert statuses(flood(there, 10)) == [b"401"] * 10


async def test_another_address_is_not_slowed() -> None:
    with InMemory(clients=CLIENTS) as there:
        flood(there, 100, "127.0.0.2")
        assert statuses(flood(there, 10, "127.0.0.3")) == [b"401"] * 10


async def test_behind_a_trusted_proxy_it_is_the_client_that_is_slowed() -> None:
    behind = {**CLIENTS, "trusted_proxies": ["127.0.0.1"], "allow_from": ["10.0.0.0/8"]}
    with InMemory(clients=behind) as there:

        def by(client: bytes) -> bytes:
            return WRONG[:-2] + b"X-Forwarded-For: 6.6.6.6, " + client + b"\r\n\r\n"

        assert statuses(flood(there, 12, request=by(b"10.0.0.1"))) == [b"401"] * 10 + [b""] * 2
        assert statuses(flood(there, 10, request=by(b"10.0.0.2"))) == [b"401"] * 10


async def test_what_is_sent_while_an_answer_is_held_back_is_no_further_try() -> None:
    with InMemory(clients=CLIENTS) as there:
        flood(there, 10)
        client = there.dial()
        client.receive(WRONG + WRONG + RIGHT)
        client.receive(RIGHT * 2000)
        assert not client.reading
        assert denied(there) == 11
        there.later(0.5)
        await settled()
        assert client.written.count(b"HTTP/1.1 ") == 1
        assert there.upstreams == []


async def test_a_client_that_does_not_wait_is_counted_all_the_same_and_its_place_is_free_again() -> None:
    with InMemory(clients=CLIENTS, limits={"connections_per_address": 8}) as there:
        counted = there.metrics.route("none").requests
        for client in flood(there, 8):
            client.finish()
        for client in flood(there, 4):
            client.finish()
        for _ in range(5):
            tries = flood(there, 3)  # two are held back, a quarter of eight; the third is answered at once
            assert statuses(tries) == [b"", b"", b"401"]
            for client in tries:
                client.finish()
        assert sum(counted.values()) == denied(there) == 27
        assert there.gateway._present == 0


async def test_at_the_end_nobody_waits_for_an_answer_that_is_held_back() -> None:
    with InMemory(clients=CLIENTS) as there:
        tries = flood(there, 12)
        await there.gateway.drain(0.2)
        assert {client.ended for client in tries} == {"gone"}


async def test_the_addresses_of_one_ipv6_network_share_what_an_address_may_have() -> None:
    with InMemory(clients={"allow_from": ["::/0"]}, limits={"connections_per_address": 3}) as there:
        neighbours = [there.dial(f"2001:db8::{number}") for number in range(4)]
        assert statuses(neighbours) == [b"", b"", b"", b"503"]
        assert statuses([there.dial("2001:db8:0:1::1")]) == [b""]
        neighbours[0].finish()
        await settled()
        assert statuses([there.dial("2001:db8::ffff")]) == [b""]
    assert there.gateway._per_address == {}
    assert there.gateway._present == 0
