"""Contract tests of an inbox: ranks, job numbers, and looking at the next message.

Owns one test for each sentence of contracts/inbox.py about them. Must not know any storage by name.
"""

import pytest

from dropr_core.contracts.records import PlainJobs
from dropr_core.contracts.storage import Ack, Bury, Put, Release, Selection, Storage
from dropr_core.errors import Closed, QueueFull
from dropr_core.model.message import State
from dropr_core.model.names import LAST_RANK, first_rank, priority_of_rank
from dropr_core.testing.bench import Bench, StorageTests
from dropr_core.testing.builders import CHANNEL, SENDER, Source, Worker, job, new_id

RANKS = [70_000, 3, LAST_RANK, 1024, 70_000, 0, 65_536, 1 << 31, 66_000, 3]


def put_ranked(storage: Storage, ranks: list[int], channel: str = CHANNEL) -> list[int]:
    """Put a message of each rank; their numbers."""
    return [storage.inbox.put(channel, priority_of_rank(rank), SENDER, [job(b"%d" % rank, rank=rank)])[0]
            for rank in ranks]  # fmt: skip


class InboxRankContract(StorageTests):
    """What an inbox must do with ranks and numbers."""

    # ── ranks ────────────────────────────────────────────────────────────────────────────────────

    def test_claims_go_by_rank_then_arrival(self, storage: Storage) -> None:
        """Over all 32 bits the lower rank comes first, and equal ones in order of arrival."""
        numbers = put_ranked(storage, RANKS)
        claims = Worker(storage.inbox).claim()
        order = sorted(range(len(RANKS)), key=lambda at: (RANKS[at], at))
        assert [(claim.rank, claim.number) for claim in claims] == [(RANKS[at], numbers[at]) for at in order]
        assert [claim.priority for claim in claims] == [priority_of_rank(RANKS[at]) for at in order]

    def test_one_by_one_and_two_channels_at_once(self, storage: Storage) -> None:
        """A consumer that takes one after the other, of several channels, gets the same order."""
        put_ranked(storage, RANKS[::2])
        put_ranked(storage, RANKS[1::2], "b")
        worker = Worker(storage.inbox, CHANNEL, "b")
        assert [worker.one().rank for _ in RANKS] == sorted(RANKS)
        assert worker.claim() == []

    def test_a_message_without_rank_has_the_first_of_its_priority(self, storage: Storage) -> None:
        """It stands among those that were given this rank by arrival, and before every higher one of its priority."""
        first = first_rank(5)
        arrivals: list[int | None] = [first + 1, None, first, None, first]
        ids = [new_id() for _ in arrivals]
        Source(storage.inbox).push(*(job(id=one, rank=rank) for one, rank in zip(ids, arrivals, strict=True)))
        claims = Worker(storage.inbox).claim()
        assert [claim.id for claim in claims] == [*ids[1:], ids[0]]
        assert [claim.rank for claim in claims] == [first] * 4 + [first + 1]

    def test_many_alike_keep_their_rank(self, storage: Storage) -> None:
        """Messages that arrive as columns are as ranked as others."""
        late, soon = [new_id() for _ in range(20)], [new_id() for _ in range(20)]
        for ids, rank in ((late, first_rank(5) + 9), (soon, first_rank(5) + 2)):
            storage.inbox.put(CHANNEL, 5, SENDER, PlainJobs(list(ids), [b"x"] * len(ids), rank=rank))
        claims = Worker(storage.inbox).claim(100)
        assert [claim.id for claim in claims] == soon + late
        assert storage.inbox.acknowledge(claims) == [True] * 40
        assert storage.inbox.counts()[CHANNEL]["processed"] == 40
        assert storage.inbox.scan(Selection()) == []

    @pytest.mark.parametrize("rank", [0, 65_536, 65_600, LAST_RANK])
    def test_release_with_a_new_rank(self, storage: Storage, rank: int) -> None:
        """A released message stands where its new rank says, with its number, attempts and content."""
        numbers = put_ranked(storage, [65_540, 65_550, 1 << 31])
        worker = Worker(storage.inbox)
        claim = worker.one()
        assert storage.inbox.settle([Release(claim, rank=rank, reason="not now")]) == [True]
        assert not storage.inbox.holds(claim)
        found = storage.inbox.find(numbers[0])
        assert found is not None
        assert (found.state, found.rank, found.priority, found.attempts) == (
            State.READY,
            rank,
            priority_of_rank(rank),
            1,
        )
        claims = worker.claim()
        assert [one.rank for one in claims] == sorted([rank, 65_550, 1 << 31])
        again = next(one for one in claims if one.number == numbers[0])
        assert (again.id, again.attempt, again.envelope) == (claim.id, 2, b"65540")
        assert storage.inbox.settle([Ack(one) for one in claims]) == [True] * 3

    def test_released_late_and_buried_with_a_new_rank(self, storage: Storage, bench: Bench) -> None:
        """The new rank counts when the delay is over, and when the message is kicked."""
        numbers = put_ranked(storage, [70_000, 70_001, 70_002])
        worker = Worker(storage.inbox)
        one, two = worker.claim(2)
        assert storage.inbox.settle([Release(one, delay=10.0, rank=80_000), Bury(two, rank=60_000)]) == [True, True]
        bench.clock.advance(11)
        assert storage.inbox.kick(Selection(states=frozenset({State.BURIED}))) == 1
        assert [claim.number for claim in worker.claim()] == [numbers[1], numbers[2], numbers[0]]

    def test_a_new_rank_of_what_had_none(self, storage: Storage) -> None:
        """A message that came without a rank can be given one, and go back to the first of its priority."""
        ids = Source(storage.inbox).fill(3)
        worker = Worker(storage.inbox)
        claim = worker.one()
        storage.inbox.settle([Release(claim, rank=first_rank(5) + 1)])
        assert [one.id for one in worker.claim()] == [ids[1], ids[2], ids[0]]

    def test_back_to_the_first_rank_is_by_arrival(self, storage: Storage) -> None:
        """A message that is given the first rank of another priority stands among those there by its number."""
        urgent = put_ranked(storage, [3])
        ids = Source(storage.inbox).fill(2)
        worker = Worker(storage.inbox)
        storage.inbox.settle([Release(worker.one(), rank=first_rank(5))])
        claims = worker.claim()
        assert [claim.number for claim in claims] == sorted(claim.number for claim in claims)
        assert claims[0].number == urgent[0]
        assert [claim.id for claim in claims[1:]] == ids

    def test_keys_go_with_a_new_rank(self, storage: Storage) -> None:
        """A message with an ordering key keeps it, whatever its rank: the next one waits until it ends."""
        if "ordering_key" not in storage.abilities:
            pytest.skip("this storage has no ordering keys, and says so")
        storage.inbox.put(CHANNEL, 5, SENDER, [job(key="k"), job(key="k")])
        worker = Worker(storage.inbox)
        first = worker.one()
        storage.inbox.settle([Release(first, rank=LAST_RANK)])
        again = worker.one()
        assert again.number == first.number
        assert worker.claim() == []
        storage.inbox.settle([Ack(again)])
        assert worker.one().number != first.number

    def test_ranks_and_numbers_survive_reopening(self, storage: Storage, bench: Bench) -> None:
        """After the store was closed and opened every message has the rank and the number that it had."""
        numbers = put_ranked(storage, RANKS)
        worker = Worker(storage.inbox)
        storage.inbox.settle(
            [Release(worker.one(), rank=5_000), Bury(worker.one()), Release(worker.one(), delay=900.0)]
        )
        seen = {number: _facts(storage, number) for number in numbers}
        storage.inbox.flush()
        again = bench.reopen(storage)
        again.inbox.reap({})
        assert {number: _facts(again, number) for number in numbers} == seen
        ready = [one for one in seen.values() if one is not None and one[1] is State.READY]
        ranks = [claim.rank for claim in Worker(again.inbox).claim()]
        assert ranks == sorted(one[2] for one in ready if one is not None)

    # ── numbers ──────────────────────────────────────────────────────────────────────────────────

    def test_put_tells_the_numbers_it_gave(self, storage: Storage) -> None:
        """One for each job, in order, rising over all channels; they are those of the claims."""
        one = storage.inbox.put(CHANNEL, 5, SENDER, [job(), job(due_in=30.0), job(rank=70_000)])
        plain = storage.inbox.put("b", 5, SENDER, PlainJobs([new_id(), new_id()], [b"x", b"y"]))
        assert [*one, *plain] == sorted({*one, *plain})
        assert storage.inbox.put(CHANNEL, 5, SENDER, []) in ([], ())
        claimed = [claim.number for claim in Worker(storage.inbox, CHANNEL, "b").claim()]
        assert sorted(claimed) == sorted([one[0], one[2], *plain])

    def test_put_of_what_stands_here_tells_its_number(self, storage: Storage) -> None:
        """A job that is flagged and stands here already is not queued again, and has the number that it had."""
        entry = job(b"same")
        (number,) = storage.inbox.put(CHANNEL, 5, SENDER, [entry])
        again = entry._replace(possible_duplicate=True)
        (fresh, same) = storage.inbox.put(CHANNEL, 5, SENDER, [job(b"other"), again])
        assert same == number
        assert fresh != number
        assert len(Worker(storage.inbox).claim()) == 2

    def test_put_all_stores_for_several_queues(self, storage: Storage) -> None:
        """Several channels and priorities in one call: each job has its number."""
        puts = [
            Put(CHANNEL, 5, SENDER, [job(), job()]),
            Put("b", 0, "other", [job(rank=7)]),
            Put(CHANNEL, 5, SENDER, [job()]),
            Put("c", 5, SENDER, []),
        ]
        numbers = storage.inbox.put_all(puts)
        assert [len(mine) for mine in numbers] == [2, 1, 1, 0]
        claims = {claim.number: claim for claim in Worker(storage.inbox, CHANNEL, "b").claim()}
        for put, mine in zip(puts, numbers, strict=True):
            for entry, number in zip(put.jobs, mine, strict=True):
                assert (claims[number].id, claims[number].channel, claims[number].sender) == (
                    entry.id, put.channel, put.sender
                )  # fmt: skip

    def test_put_all_over_a_limit_says_so(self, bench: Bench) -> None:
        """One full channel: the call raises QueueFull, and nothing is there of what did not fit."""
        storage = bench.open("limited", channel_limits={"small": (1, None)})
        with pytest.raises(QueueFull):
            storage.inbox.put_all([Put(CHANNEL, 5, SENDER, [job()]), Put("small", 5, SENDER, [job(), job()])])
        assert Worker(storage.inbox, "small").claim() == []

    def test_find_knows_every_state(self, storage: Storage) -> None:
        """The number finds the message wherever it stands, and nothing once it is gone."""
        plain = list(storage.inbox.put(CHANNEL, 5, SENDER, [job(b"%d" % n) for n in range(6)]))
        late = storage.inbox.put(CHANNEL, 5, SENDER, [job(due_in=30.0)])[0]
        worker = Worker(storage.inbox)
        done, kept, buried, leased = worker.claim(4)
        storage.inbox.settle([Ack(done), Ack(kept, keep=60.0), Bury(buried, "bad")])
        states = [found and found.state for found in map(storage.inbox.find, [*plain, late])]
        assert states == [None, State.DONE, State.BURIED, State.LEASED, State.READY, State.READY, State.DELAYED]
        found = storage.inbox.find(leased.number)
        assert found is not None
        assert (found.id, found.token) == (leased.id, leased.token)
        assert [storage.inbox.find(number) for number in (0, -1, late + 1, 1 << 62)] == [None] * 4

    def test_claim_number_takes_that_one(self, storage: Storage) -> None:
        """Ready, delayed or buried: the message with this number is leased, and nobody else gets it."""
        ready = list(storage.inbox.put(CHANNEL, 5, SENDER, [job(b"%d" % n) for n in range(4)]))
        late = storage.inbox.put(CHANNEL, 5, SENDER, [job(b"late", due_in=30.0)])[0]
        (ranked,) = put_ranked(storage, [70_000])
        worker = Worker(storage.inbox)
        storage.inbox.settle([Bury(worker.one(), "bad")])
        wanted = [ready[2], late, ready[0], ranked]
        claims = [storage.inbox.claim_number(number, worker.name) for number in wanted]
        assert [claim and (claim.number, claim.attempt, claim.envelope) for claim in claims] == [
            (ready[2], 1, b"2"), (late, 1, b"late"), (ready[0], 1, b"0"), (ranked, 1, b"70000")
        ]  # fmt: skip
        assert [claim.number for claim in worker.claim()] == [ready[1], ready[3]]
        mine = [claim for claim in claims if claim is not None]
        assert storage.inbox.acknowledge(mine) == [True] * 4
        counts = storage.inbox.counts()[CHANNEL]
        assert {name: counts.get(name, 0) for name in ("ready", "delayed", "leased", "buried")} == {
            "ready": 0, "delayed": 0, "leased": 2, "buried": 0
        }  # fmt: skip

    def test_claim_number_takes_nothing_else(self, storage: Storage) -> None:
        """What is leased, done, gone or never was cannot be leased by its number; nor by a stranger."""
        numbers = storage.inbox.put(CHANNEL, 5, SENDER, [job(), job(), job()])
        worker = Worker(storage.inbox)
        held, done = worker.claim(2)
        storage.inbox.settle([Ack(done, keep=60.0)])
        assert [storage.inbox.claim_number(number, worker.name) for number in (held.number, done.number, 0, 99)] == [
            None
        ] * 4
        assert storage.inbox.holds(held)
        with pytest.raises(Closed):
            storage.inbox.claim_number(numbers[2], "stranger")

    def test_claim_number_keeps_the_order_of_a_key(self, storage: Storage) -> None:
        """A message that waits for another one of its key is not leased, and a buried one only if its key is free."""
        if "ordering_key" not in storage.abilities:
            pytest.skip("this storage has no ordering keys, and says so")
        first, second = storage.inbox.put(CHANNEL, 5, SENDER, [job(key="k"), job(key="k")])
        worker = Worker(storage.inbox)
        assert storage.inbox.claim_number(second, worker.name) is None
        claim = storage.inbox.claim_number(first, worker.name)
        assert claim is not None
        storage.inbox.settle([Bury(claim, "bad")])
        other = worker.one()
        assert storage.inbox.claim_number(first, worker.name) is None
        storage.inbox.settle([Ack(other)])
        assert storage.inbox.claim_number(first, worker.name) is not None

    def test_what_was_released_by_number_is_found_and_given(self, storage: Storage) -> None:
        """A message leased by its number goes back like any other."""
        numbers = storage.inbox.put(CHANNEL, 5, SENDER, [job(), job(), job()])
        worker = Worker(storage.inbox)
        claim = storage.inbox.claim_number(numbers[1], worker.name)
        assert claim is not None
        storage.inbox.settle([Release(claim)])
        assert [one.number for one in worker.claim()] == list(numbers)

    # ── peek ─────────────────────────────────────────────────────────────────────────────────────

    def test_peek_shows_what_comes_next(self, storage: Storage, bench: Bench) -> None:
        """The next ready one by rank, the delayed one that is due first, the first buried one; nothing changes."""
        assert [storage.inbox.peek(CHANNEL, state) for state in (State.READY, State.DELAYED, State.BURIED)] == [
            None
        ] * 3
        numbers = put_ranked(storage, [70_000, 65_536, 70_000])
        late = storage.inbox.put(CHANNEL, 5, SENDER, [job(due_in=30.0), job(due_in=20.0)])
        worker = Worker(storage.inbox)
        assert _number(storage, State.READY) == numbers[1]
        assert _number(storage, State.DELAYED) == late[1]
        storage.inbox.settle([Bury(claim) for claim in worker.claim(2)])
        assert _number(storage, State.BURIED) == numbers[0]
        assert _number(storage, State.READY) == numbers[2]
        worker.claim()
        assert _number(storage, State.READY) is None
        bench.clock.advance(25)
        assert _number(storage, State.READY) == late[1]
        assert [claim.number for claim in worker.claim()] == [late[1]]
        assert storage.inbox.peek("other", State.READY) is None


def _number(storage: Storage, state: State) -> int | None:
    found = storage.inbox.peek(CHANNEL, state)
    return None if found is None else found.number


def _facts(storage: Storage, number: int) -> tuple[object, State, int, int] | None:
    found = storage.inbox.find(number)
    return None if found is None else (found.id, found.state, found.rank, found.attempts)


__all__ = ["InboxRankContract"]
