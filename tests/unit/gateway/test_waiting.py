"""Who waits for messages, and how often the store is asked for them."""

import asyncio

import pytest

from dropr_core.errors import WriteFailed
from dropr_core.gateway import waiting
from dropr_core.gateway.claiming import Taken
from dropr_core.gateway.waiting import MOST, Waiting
from dropr_core.gateway.writer import Job


class Store:
    """Answers what it was asked when told to; claims are numbers."""

    def __init__(self):
        self.asked, self.called = [], asyncio.Event()
        self.waiting = Waiting(
            asyncio.get_running_loop(), self.ask, lambda owner, claim, body: claim, [].append, [].append
        )

    def ask(self, wanted, done):
        job = Job(wanted, done)
        self.asked.append(job)
        self.called.set()
        return job

    def begin(self):
        """The limit of what is asked for, from now on fixed."""
        self.asked[-1].begun = True
        return self.asked[-1].order.limit

    def answer(self, *claims, patience=60.0):
        """End the last turn."""
        self.asked[-1].done(Taken([(claim, None) for claim in claims], patience, []))

    def get(self, *, wait=0.0, limit=1):
        """One more connection that asks."""
        return asyncio.ensure_future(self.waiting.get(object(), ("jobs",), limit, wait))


async def step():
    """Let what was started reach its first wait."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_all_who_ask_before_the_turn_begins_share_one_question():
    """Eight connections that reserve in the same step are one claim of eight, dealt out in their order."""

    async def scenario():
        store = Store()
        asking = [store.get() for _ in range(8)]
        await step()
        assert (len(store.asked), store.begin()) == (1, 8)
        store.answer(*range(8))
        assert await asyncio.gather(*asking) == [[number] for number in range(8)]

    asyncio.run(scenario())


def test_who_asks_during_a_turn_is_asked_for_in_the_next_one():
    """A question under way is never made larger: whoever came too late for it is not told that there is nothing."""

    async def scenario():
        store = Store()
        first = store.get()
        await step()
        assert store.begin() == 1
        late = store.get()
        await step()
        store.answer("one")
        assert await first == ["one"]
        await step()
        assert (len(store.asked), store.begin()) == (2, 1)
        store.answer("two")
        assert await late == ["two"]

    asyncio.run(scenario())


def test_news_before_the_turn_begins_asks_nothing_twice():
    """A message that comes while a question waits for its turn is seen by it: the store is asked once."""

    async def scenario():
        store = Store()
        asking = store.get(wait=60.0)
        await step()
        store.waiting.news("jobs")
        assert store.begin() == 1
        store.answer("it")
        assert await asking == ["it"]
        assert len(store.asked) == 1

    asyncio.run(scenario())


def test_more_than_one_question_may_ask_for_are_served_by_the_next(monkeypatch):
    """Beyond the bound of a claim nobody is told that there is nothing before the store was asked for them."""
    monkeypatch.setattr(waiting, "MOST", 3)
    assert MOST > 3

    async def scenario():
        store = Store()
        asking = [store.get() for _ in range(5)]
        await step()
        assert store.begin() == 3
        store.answer(1, 2, 3)
        await step()
        assert store.begin() == 2
        store.answer(4, 5)
        assert await asyncio.gather(*asking) == [[1], [2], [3], [4], [5]]
        asking = [store.get() for _ in range(5)]
        await step()
        assert store.begin() == 3
        store.answer(1)
        await step()
        assert store.begin() == 2
        store.answer()
        assert await asyncio.gather(*asking) == [[1], [], [], [], []]
        assert len(store.asked) == 4

    asyncio.run(scenario())


def test_who_comes_to_many_that_wait_asks_for_itself_alone():
    """Ten thousand that wait cost the next one nothing: it is asked for once, and they are not asked for again."""

    async def scenario():
        store = Store()
        waiting = []
        for number in range(50):
            waiting.append(store.get(wait=None))
            await step()
            assert (len(store.asked), store.begin()) == (number + 1, 1)
            store.answer()
            await step()
        store.waiting.news("jobs")
        assert store.begin() == 50
        store.answer(*range(50))
        assert await asyncio.gather(*waiting) == [[number] for number in range(50)]

    asyncio.run(scenario())


def test_a_message_found_by_a_late_comer_goes_to_who_has_waited_for_longest():
    """And the late-comer is asked for again, for there may be more."""

    async def scenario():
        store = Store()
        first = store.get(wait=None)
        await step()
        store.begin()
        store.answer()
        await step()
        late = store.get()
        await step()
        assert store.begin() == 1
        store.answer("found")
        assert await first == ["found"]
        await step()
        assert (len(store.asked), store.begin()) == (3, 1)
        store.answer()
        assert await late == []

    asyncio.run(scenario())


def test_a_store_that_fails_leaves_nobody_waiting_but_asks_for_who_came_during_its_turn():
    """Those who waited hear of it; who came after the question had begun has a question of its own."""

    async def scenario():
        store = Store()
        first, second = store.get(wait=None), store.get()
        await step()
        store.begin()
        late = store.get()
        await step()
        store.asked[-1].done(WriteFailed("the disk is full"))
        for one in (first, second):
            with pytest.raises(WriteFailed):
                await one
        await step()
        assert (len(store.asked), store.begin()) == (2, 1)
        store.answer("late")
        assert await late == ["late"]

    asyncio.run(scenario())


def test_who_ends_leaves_nothing_behind():
    """Requests whose time is over or whose connection was cut off are forgotten at once, whoever waits before them."""

    async def scenario():
        store = Store()
        first = store.get(wait=None)
        for _ in range(20):
            ended, cut = store.get(wait=0.001), store.get(wait=None)
            await step()
            cut.cancel()
            store.begin()
            store.answer()
            assert await ended == []
            await asyncio.gather(cut, return_exceptions=True)
        (group,) = store.waiting._groups.values()
        assert len(group.requests) == 1
        assert not group.fresh
        store.waiting.stop()
        assert await first == []

    asyncio.run(scenario())


def test_nobody_waits_without_a_moment_to_look_again(monkeypatch):
    """Where a turn says nothing of when to look again, those who wait are asked for again all the same."""
    monkeypatch.setattr(waiting, "LOOK_AGAIN", 0.001)

    async def scenario():
        store = Store()
        asking = store.get(wait=None)
        await step()
        store.begin()
        store.called.clear()
        store.answer(patience=0.0)
        await asyncio.wait_for(store.called.wait(), 30)
        store.begin()
        store.answer("it")
        assert await asking == ["it"]

    asyncio.run(scenario())
