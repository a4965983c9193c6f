"""What works at the store for the event loop of a gateway."""

import asyncio
import threading

import pytest

from dropr_core.errors import Closed
from dropr_core.gateway.writer import QUICK, StoreWorker


def test_a_fault_in_telling_one_keeps_no_other_waiting():
    """Two orders of one turn: who asked for the first fails when it is told, and the second hears of it anyhow."""
    gate, begun, turns = threading.Event(), threading.Event(), []

    def turn(orders):
        turns.append(orders)
        begun.set()
        assert gate.wait(30)
        return orders

    def refuse(_result):
        raise RuntimeError("a fault")

    async def scenario():
        loop, faults = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda _loop, context: faults.append(str(context["exception"])))
        worker, told = StoreWorker("test", loop, turn), loop.create_future()
        worker.submit("first", lambda _result: None)
        assert await asyncio.to_thread(begun.wait, 30)
        worker.submit("second", refuse)
        worker.submit("third", told.set_result)
        gate.set()
        assert await asyncio.wait_for(told, 30) == "third"
        await worker.close()
        return faults

    assert asyncio.run(scenario()) == ["a fault"]
    assert turns == [["first"], ["second", "third"]]


class Store:
    """Turns that take as long as is asked for, by a clock of their own."""

    def __init__(self):
        self.now, self.takes, self.turns = 0.0, 0.0, []

    def turn(self, orders):
        self.turns.append((orders, threading.current_thread() is threading.main_thread()))
        self.now += self.takes
        return orders

    def worker(self):
        loop = asyncio.get_running_loop()
        return StoreWorker("test", loop, self.turn, quick=lambda order: order != "long", clock=lambda: self.now)

    def in_the_loop(self):
        return self.turns[-1][1]


def test_turns_move_into_the_loop_while_they_are_quick_and_out_of_it_after_a_slow_one():
    """The loop does what takes no time; a slow turn, and an order of a kind that may be slow, belong to the thread."""

    async def scenario():
        store = Store()
        worker = store.worker()
        await worker.do("first")
        assert not store.in_the_loop(), "nobody knows yet how quick the store is"
        for _ in range(40):
            await worker.do("quick")
        assert store.in_the_loop()
        await worker.do("long")
        assert not store.in_the_loop()
        await worker.do("quick")
        assert store.in_the_loop()
        store.takes = 10 * QUICK
        await worker.do("slow")
        store.takes = 0.0
        await worker.do("after the slow one")
        assert not store.in_the_loop()
        for _ in range(40):
            await worker.do("quick")
        assert store.in_the_loop()
        await worker.close()

    asyncio.run(scenario())


def test_what_is_asked_for_in_one_step_of_the_loop_is_one_turn():
    """Eight connections that put at the same time share a commit, in the loop as in the thread."""

    async def scenario():
        store = Store()
        worker = store.worker()
        for _ in range(40):
            await worker.do("quick")
        assert await asyncio.gather(*[worker.do(str(number)) for number in range(8)]) == list("01234567")
        assert store.turns[-1] == (list("01234567"), True)
        store.turns.clear()
        await asyncio.gather(*[worker.do(str(number)) for number in range(7)], worker.do("long"))
        assert store.turns == [([*"0123456", "long"], False)]
        await worker.close()

    asyncio.run(scenario())


def test_closing_does_what_was_asked_for_before_and_refuses_what_comes_after():
    """In the loop and in the thread alike: nothing that was submitted is left undone."""

    async def scenario():
        for warm in (0, 40):
            store = Store()
            worker = store.worker()
            for _ in range(warm):
                await worker.do("quick")
            asked = [asyncio.ensure_future(worker.do(str(number))) for number in range(3)]
            await asyncio.sleep(0)
            await worker.close()
            assert [await one for one in asked] == ["0", "1", "2"]
            with pytest.raises(Closed):
                await worker.do("late")
            await worker.close()

    asyncio.run(scenario())
