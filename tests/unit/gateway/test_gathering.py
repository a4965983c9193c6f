"""Whom a turn at the store waits for: those who were answered just now, and for a moment only."""

import asyncio

from dropr_core.gateway.gathering import LONGEST, SELDOM, Gathering
from dropr_core.gateway.writer import StoreWorker

USUAL = LONGEST / 2


def turn(gathering, *names):
    """A turn of those who have come, and began to wait for the others of the two turns before. Whether it waited."""
    for name in names:
        gathering.came(name)
    waited = not gathering.may_begin(0.0)
    assert not waited or gathering.may_begin(1.0), "nobody waits for ever"
    gathering.begins()
    gathering.took(USUAL)
    return waited


def test_who_is_alone_is_never_waited_for():
    """One client, one by one: each of its turns begins at once."""
    gathering = Gathering()
    assert not any(turn(gathering, "a") for _ in range(10))


def test_two_halves_become_one():
    """Those of the turn before are waited for, each of them, and as soon as all are there it begins."""
    gathering = Gathering()
    for half in ("ab", "cd"):
        turn(gathering, *half)
    for _ in range(3):
        for name in "abc":
            gathering.came(name)
            assert not gathering.may_begin(0.0)
        gathering.came("d")
        assert gathering.may_begin(0.0)
        gathering.begins()
        gathering.took(USUAL)


def test_nobody_waits_longer_than_a_turn_takes():
    """However slow the disk is, there is an end."""
    for took, most in ((USUAL, USUAL), (1.0, LONGEST)):
        gathering = Gathering()
        for name in "ab" * 100:
            gathering.came(name)
            assert gathering.may_begin(0.0) or gathering.may_begin(1.0)
            gathering.begins()
            gathering.took(took)
        gathering._at_once = 0
        gathering.came("a")
        assert not gathering.may_begin(5.0)
        assert not gathering.may_begin(5.0 + most * 0.9)
        assert gathering.may_begin(5.0 + most * 1.1)


def test_where_waiting_is_in_vain_it_is_seldom():
    """Connections that take turns by themselves, never together: of so many turns hardly one waits."""
    gathering = Gathering()
    waited = [turn(gathering, name) for name in "abcd" * 500]
    assert 1 <= sum(waited[-10 * SELDOM :]) <= 10
    for _ in range(2 * SELDOM):
        turn(gathering, *"abcd")
    gathering.came("a")
    gathering.may_begin(0.0)
    for name in "bcd":
        gathering.came(name)
    assert gathering.may_begin(0.0)


def test_answers_of_one_turn_share_the_next_one():
    """Eight that ask again when they are answered, but one pass of the loop later each: one turn for all, not four."""
    turns, now = [], 0.0

    def clock():
        nonlocal now
        now += 1e-6
        return now

    def do(orders):
        nonlocal now
        now += USUAL
        turns.append(sorted(orders))
        return orders

    async def main():
        loop = asyncio.get_running_loop()
        worker = StoreWorker("test", loop, do, quick=lambda _: True, clock=clock)
        for _ in range(40):  # until it is known to be quick
            await worker.do(0)
        left = dict.fromkeys(range(8), 30)
        over = loop.create_future()

        def ask(who):
            worker.submit(who, lambda _: answered(who), who)

        def answered(who):
            left[who] -= 1
            if left[who]:
                later(who, who)
            elif not any(left.values()):
                over.set_result(None)

        def later(who, passes):
            loop.call_soon(*((later, who, passes - 1) if passes else (ask, who)))

        for who in left:
            later(who, who)
        await asyncio.wait_for(over, 30)
        await worker.close()

    asyncio.run(main())
    assert turns.count(list(range(8))) >= 20


def test_who_is_done_with_a_job_can_still_share_the_claim_of_the_others():
    """What ends or puts jobs has a turn of its own before claims wait; nobody is put off twice."""
    turns = []

    def do(orders):
        turns.append(orders)
        return orders

    async def main():
        worker = StoreWorker("test", asyncio.get_running_loop(), do, last=lambda order: order.startswith("claim"))
        over = asyncio.get_running_loop().create_future()

        def deleted(_):
            assert turns == [["delete 1", "put"]]
            worker.submit("claim 3", lambda _: None)
            worker.submit("delete 2", over.set_result)

        for order in ("claim 1", "delete 1", "put", "claim 2"):
            worker.submit(order, deleted if order == "delete 1" else lambda _: None)
        await over
        assert turns[1:] == [["claim 1", "claim 2", "claim 3", "delete 2"]]
        await worker.do("claim 4")
        await worker.close()

    asyncio.run(main())
    assert turns[2:] == [["claim 4"]]
