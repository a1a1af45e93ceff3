"""Whose turn it is for a connection: requests that have come whole never wait for those that have not."""

from proxy.gateway.http1 import RequestHead
from proxy.gateway.sending import NO_BODY, SendingBody
from proxy.gateway.waiting import Turn, Waiting


def coming() -> SendingBody:
    head = RequestHead(b"PUT", b"/", 1, [])
    head.length = 9
    return SendingBody(head, 99)


def order(waiting: Waiting[str]) -> list[Turn[str]]:
    """All that can be picked now."""
    found = []
    while (turn := waiting.next()) is not None:
        found.append(turn)
        turn.result.set_result("a connection")
    return found


async def test_requests_that_are_still_coming_get_half_of_the_connections() -> None:
    for limit, most in ((1, 1), (2, 1), (3, 2), (4, 2), (256, 128)):
        waiting: Waiting[str] = Waiting(limit)
        granted = 0
        while waiting.admits(body := coming()) and granted < 300:
            waiting.grant(body)
            waiting.grant(body)  # once more, after a retry: it counts once
            granted += 1
        assert (granted, waiting.coming, waiting.most) == (most, most, most)
        assert waiting.admits(NO_BODY)


async def test_the_two_kinds_take_turns_and_each_keeps_its_order() -> None:
    waiting: Waiting[str] = Waiting(99)
    whole = [waiting.queue(NO_BODY) for _ in range(3)]
    partial = [waiting.queue(coming()) for _ in range(3)]
    assert order(waiting) == [whole[0], partial[0], whole[1], partial[1], whole[2], partial[2]]
    assert waiting.coming == 3


async def test_beyond_their_half_they_wait_until_one_of_them_has_come() -> None:
    waiting: Waiting[str] = Waiting(2)
    first = coming()
    waiting.grant(first)
    later, whole = waiting.queue(coming()), waiting.queue(NO_BODY)
    assert order(waiting) == [whole]
    assert waiting.let_go(first)
    assert order(waiting) == [later]
    assert not waiting.let_go(first)
    assert waiting.coming == 1


async def test_one_that_comes_whole_while_it_waits_waits_as_such() -> None:
    waiting: Waiting[str] = Waiting(1)
    waiting.grant(coming())
    body = coming()
    turn = waiting.queue(body)
    assert order(waiting) == []
    body.add([b"123456789"], [], done=True, connected=False)
    assert waiting.let_go(body)
    assert order(waiting) == [turn]
    assert waiting.coming == 1


async def test_who_has_left_is_passed_over() -> None:
    waiting: Waiting[str] = Waiting(9)
    turns = [waiting.queue(body) for body in (NO_BODY, coming(), NO_BODY, coming())]
    waiting.leave(turns[0])
    waiting.leave(turns[1])
    waiting.leave(turns[1])
    turns[2].result.cancel()
    assert order(waiting) == [turns[3]]
    waiting.leave(turns[3])
    assert waiting.coming == 1
