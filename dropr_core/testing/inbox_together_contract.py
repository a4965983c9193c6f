"""Contract tests of an inbox: arrivals that are taken all together or not at all.

Owns one test for each sentence of contracts/storage.py about `accept_together`. Must not know any storage by name.
"""

import threading
from collections.abc import Callable

import pytest

from dropr_core.contracts.inbox import Inbox
from dropr_core.contracts.storage import Accepted, Arrival, Selection, Storage
from dropr_core.errors import QueueFull
from dropr_core.model.names import START, Head
from dropr_core.testing.bench import Bench, StorageTests
from dropr_core.testing.builders import SENDER, Source, Worker, job, new_id
from dropr_core.testing.contract import together


class InboxTogetherContract(StorageTests):
    """What `accept_together` must do."""

    def test_arrivals_that_all_follow_are_taken_together(self, storage: Storage) -> None:
        """Parts of several lanes, two of one lane and one without any job: all are queued, all heads move."""
        one, two, three = (Source(storage.inbox, priority=n) for n in (1, 2, 3))
        first = one.arrival(job(), job())
        second = one.arrival(job(), after=first.upto)
        empty = Arrival(three.lane, START, Head(4, new_id()), [])
        arrivals = [first, two.arrival(job()), second, empty]
        assert storage.inbox.accept_together(arrivals) == [Accepted(arrival.upto, True) for arrival in arrivals]
        heads = {one.lane: second.upto, two.lane: arrivals[1].upto, three.lane: empty.upto}
        assert storage.inbox.heads(SENDER) == heads
        ids = [entry.id for arrival in (first, second, arrivals[1]) for entry in arrival.entries]
        assert [claim.id for claim in Worker(storage.inbox).claim()] == ids

    @pytest.mark.parametrize("wrong", [0, 1, 2])
    def test_one_that_does_not_follow_stops_all(self, storage: Storage, wrong: int) -> None:
        """Nothing is stored, no head moves, and the answers name the heads that are kept."""
        sources = [Source(storage.inbox, priority=n) for n in (1, 2, 3)]
        sources[0].fill(1)
        before = storage.inbox.heads(SENDER)
        arrivals = [source.arrival(job()) for source in sources]
        arrivals[wrong] = arrivals[wrong]._replace(after=Head(7, new_id()))
        arrivals.append(arrivals[2]._replace(after=arrivals[2].upto, upto=Head(9, new_id())))
        kept = [sources[0].head, START, START, START]
        assert storage.inbox.accept_together(arrivals) == [Accepted(head, False) for head in kept]
        assert storage.inbox.heads(SENDER) == before
        assert len(storage.inbox.scan(Selection())) == 1
        assert sources[1].push(job()).taken

    def test_a_repeated_call_is_refused(self, storage: Storage) -> None:
        """Its own heads are there, so the caller knows that it went through."""
        arrivals = [Source(storage.inbox, priority=n).arrival(job()) for n in (1, 2)]
        storage.inbox.accept_together(arrivals)
        again = storage.inbox.accept_together(arrivals)
        assert again == [Accepted(arrival.upto, False) for arrival in arrivals]
        assert len(Worker(storage.inbox).claim()) == 2

    @pytest.mark.parametrize("limit", [None, 10_000], ids=["unlimited", "limited"])
    def test_of_calls_at_once_one_is_taken_and_whole(self, bench: Bench, limit: int | None) -> None:
        """Threads that follow the same head, each with lanes of its own besides: one is taken with all of them."""
        storage = bench.open("together", max_messages=limit)
        if type(storage.inbox).accept_together is Inbox.accept_together:
            pytest.skip("the default: nobody may accept for the same sources at once")
        shared = Source(storage.inbox, priority=0)
        for _ in range(5):
            barrier = threading.Barrier(4)
            calls = [
                [shared.arrival(job())._replace(upto=Head(shared.head.sequence + 1, new_id())),
                 *(Source(storage.inbox, channel=new_id().hex()).arrival(job()) for _ in range(2))]
                for _ in range(4)
            ]  # fmt: skip

            def call(number: int, calls: list[list[Arrival]] = calls, barrier: threading.Barrier = barrier) -> bool:
                barrier.wait(30)
                words = storage.inbox.accept_together(calls[number])
                assert len({word.taken for word in words}) == 1, "some were taken"
                return words[0].taken

            tries: list[Callable[[], bool]] = [lambda number=number: call(number) for number in range(4)]  # type: ignore[misc]
            won = together(self.patience, tries, "accept_together in four threads at once")
            assert sum(won) == 1
            heads = storage.inbox.heads(SENDER)
            for taken, arrivals in zip(won, calls, strict=True):
                for arrival in arrivals:
                    assert (heads.get(arrival.source) == arrival.upto) is taken
                    stored = storage.inbox.scan(Selection(ids=tuple(entry.id for entry in arrival.entries)))
                    assert len(stored) == len(arrival.entries) * taken
            shared.head = heads[shared.lane]

    def test_without_room_none_is_taken(self, bench: Bench) -> None:
        """QueueFull leaves heads and queues as they were; what does not follow is said before there is room for it."""
        storage = bench.open("limited", channel_limits={"small": (1, None)})
        roomy, small = Source(storage.inbox), Source(storage.inbox, "small")
        arrivals = [roomy.arrival(job()), small.arrival(job(), job())]
        with pytest.raises(QueueFull):
            storage.inbox.accept_together(arrivals)
        assert storage.inbox.heads(SENDER) == {}
        assert storage.inbox.scan(Selection()) == []
        late = [arrivals[0]._replace(after=Head(3, new_id())), arrivals[1]]
        assert storage.inbox.accept_together(late) == [Accepted(START, False)] * 2

    def test_what_was_taken_together_survives_reopening(self, storage: Storage, bench: Bench) -> None:
        """Heads and jobs of all lanes are there after the store was closed and opened."""
        arrivals = [Source(storage.inbox, priority=n).arrival(job()) for n in (1, 2)]
        storage.inbox.accept_together(arrivals)
        again = bench.reopen(storage)
        assert again.inbox.heads(SENDER) == {arrival.source: arrival.upto for arrival in arrivals}
        claims = Worker(again.inbox).claim()
        assert [claim.id for claim in claims] == [arrival.entries[0].id for arrival in arrivals]


__all__ = ["InboxTogetherContract"]
