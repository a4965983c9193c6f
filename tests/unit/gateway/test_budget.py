"""How many bytes the connections of one gateway hold together."""

import asyncio

from dropr_core.gateway.budget import Budget


def test_what_goes_into_the_store_waits_for_room_in_the_order_of_asking():
    """Nothing is above the limit at any time, nobody is passed over, and what is larger than the limit goes alone."""

    async def main():
        budget, held, order, most = Budget(100), 0, [], 0

        async def put(name, size):
            nonlocal held, most
            async with budget.spend(size):
                held += size
                most = max(most, held)
                order.append(name)
                await asyncio.sleep(0)
                held -= size

        sizes = [60, 60, 10, 250, 1]
        await asyncio.gather(*(put(name, size) for name, size in enumerate(sizes)))
        return order, most

    order, most = asyncio.run(main())
    assert order == [0, 1, 2, 3, 4]
    assert most == 250


def test_who_stops_waiting_takes_no_room():
    """Cancelled before or just after its turn came, nothing of the budget is lost."""

    async def main():
        budget, done = Budget(100), asyncio.Event()

        async def put(size):
            async with budget.spend(size):
                await done.wait()

        first = asyncio.create_task(put(100))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(put(100)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        done.set()
        await first
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        async with asyncio.timeout(30), budget.spend(100):
            return True

    assert asyncio.run(main())


def test_the_slowest_reader_goes_when_there_is_no_room():
    """Of those who leave bytes lying, the one that is slow for longest is cut off; who has caught up is spared."""
    budget, gone = Budget(100), []
    for name in ("a", "b", "c"):
        budget.slow(name, 40, lambda name=name: gone.append(name))
        if name == "a":
            budget.caught_up("a")
    assert gone == []
    budget.slow("d", 40, lambda: gone.append("d"))
    assert gone == ["b"]
    budget.slow("d", 90, lambda: gone.append("d"))
    assert gone == ["b", "c"]
