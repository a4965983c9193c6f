"""The threads of a gateway that work at the store."""

import asyncio
import threading

from dropr_core.gateway.writer import StoreThread


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
        thread, told = StoreThread("test", loop, turn), loop.create_future()
        thread.submit("first", lambda _result: None)
        assert await asyncio.to_thread(begun.wait, 30)
        thread.submit("second", refuse)
        thread.submit("third", told.set_result)
        gate.set()
        assert await asyncio.wait_for(told, 30) == "third"
        await asyncio.to_thread(thread.close)
        return faults

    assert asyncio.run(scenario()) == ["a fault"]
    assert turns == [["first"], ["second", "third"]]
