"""Contract tests of an inbox: arriving, leases, settling, ordering keys.

Owns one test for each sentence of contracts/storage.py about the work queue. Must not know any
storage by name.
"""

import threading

import pytest

from dropr_core.contracts.storage import Accepted, Ack, Bury, Release, Storage
from dropr_core.errors import QueueFull
from dropr_core.model.message import State
from dropr_core.model.names import START, Head, MessageId
from dropr_core.testing.bench import Bench, StorageTests
from dropr_core.testing.builders import CHANNEL, SENDER, STORE, Source, Worker, job, new_id
from dropr_core.testing.contract import together
from dropr_core.testing.id_lists import answered_no, named
from dropr_core.testing.likeness import strayed


class InboxContract(StorageTests):
    """What the work queue of an inbox must do."""

    # ── accept ───────────────────────────────────────────────────────────────────────────────────

    def test_arrival_that_follows_the_head_is_taken(self, storage: Storage) -> None:
        """Jobs are queued and ``upto`` becomes the head, part after part."""
        source = Source(storage.inbox)
        ids = source.fill(2) + source.fill(3)
        assert storage.inbox.heads(SENDER) == {source.lane: Head(5, ids[-1])}
        assert storage.inbox.heads(SENDER, STORE) == storage.inbox.heads(SENDER)
        assert storage.inbox.heads("other") == {}
        assert [claim.id for claim in Worker(storage.inbox).claim()] == ids

    def test_arrival_that_does_not_match_stores_nothing(self, storage: Storage) -> None:
        """A repeated, a skipping and a foreign arrival are refused with the head that is kept."""
        source = Source(storage.inbox)
        first = source.arrival(job(), job())
        assert storage.inbox.accept([first]) == [Accepted(first.upto, taken=True)]
        for after in (START, Head(1, first.entries[0].id), Head(7, new_id()), Head(2, new_id())):
            arrival = source.arrival(job(), after=after)
            assert storage.inbox.accept([arrival]) == [Accepted(first.upto, taken=False)]
        assert len(Worker(storage.inbox).claim()) == 2

    def test_unknown_lane_begins_at_start(self, storage: Storage) -> None:
        """An arrival in the middle of a lane that is not known is refused with START."""
        arrival = Source(storage.inbox).arrival(job(), after=Head(4, new_id()))
        assert storage.inbox.accept([arrival]) == [Accepted(START, taken=False)]
        assert storage.inbox.heads(SENDER) == {}

    def test_voids_leave_no_gap(self, storage: Storage) -> None:
        """An arrival with missing numbers, even one without any job, moves the head to ``upto``."""
        source = Source(storage.inbox)
        arrival = source.arrival(job(), job(), job())
        assert storage.inbox.accept([arrival._replace(entries=arrival.entries[2:])])[0].taken
        assert storage.inbox.heads(SENDER)[source.lane] == arrival.upto
        empty = arrival._replace(after=arrival.upto, upto=Head(9, new_id()), entries=[])
        assert storage.inbox.accept([empty]) == [Accepted(empty.upto, taken=True)]
        assert len(Worker(storage.inbox).claim()) == 1

    def test_several_arrivals_with_mixed_verdicts(self, storage: Storage) -> None:
        """One lane that does not match does not stop the others of the call."""
        one, two, three = (Source(storage.inbox, priority=n) for n in (1, 2, 3))
        bad = two.arrival(job(), after=Head(3, new_id()))
        good = [one.arrival(job()), three.arrival(job(), job())]
        words = storage.inbox.accept([good[0], bad, good[1]])
        assert words == [Accepted(good[0].upto, True), Accepted(START, False), Accepted(good[1].upto, True)]
        assert len(Worker(storage.inbox).claim()) == 3

    def test_two_parts_of_one_lane_in_one_call(self, storage: Storage) -> None:
        """The second part follows the first; a repetition of it in the same call does not."""
        source = Source(storage.inbox)
        first = source.arrival(job())
        second = source.arrival(job(), after=first.upto)
        words = storage.inbox.accept([first, second, first])
        assert [word.taken for word in words] == [True, True, False]
        assert words[2].head == second.upto

    def test_fault_47_the_same_push_on_two_threads_enters_once(self, storage: Storage) -> None:
        """A doubled arrival on parallel connections is taken once; both learn the same head."""
        source = Source(storage.inbox)
        for _ in range(10):
            arrival = source.arrival(job(), job())
            barrier = threading.Barrier(4)

            def push(arrival: object = arrival, barrier: threading.Barrier = barrier) -> Accepted:
                barrier.wait(30)
                return storage.inbox.accept([arrival])[0]  # type: ignore[list-item]

            words = together(self.patience, [push] * 4, "accept of the same push in four threads at once")
            assert sorted(word.taken for word in words) == [False, False, False, True]
            assert {word.head for word in words} == {arrival.upto}
            source.head = arrival.upto
        assert len(Worker(storage.inbox).claim()) == 20

    def test_another_store_of_the_same_sender_has_its_own_heads(self, storage: Storage) -> None:
        """Heads are kept for each store id, so that a cloned sender is no duplicate of itself."""
        source = Source(storage.inbox)
        source.fill(2)
        other = Source(storage.inbox)
        other.lane = other.lane._replace(store=b"store--2")  # type: ignore[arg-type]
        other.fill(1)
        assert len(storage.inbox.heads(SENDER)) == 2
        assert len(storage.inbox.heads(SENDER, STORE)) == 1

    def test_accept_survives_reopening(self, storage: Storage, bench: Bench) -> None:
        """Head and jobs are there after the store was closed and opened."""
        source = Source(storage.inbox)
        ids = source.fill(3)
        again = bench.reopen(storage)
        assert again.inbox.heads(SENDER) == {source.lane: source.head}
        assert [claim.id for claim in Worker(again.inbox).claim()] == ids

    def test_full_inbox_takes_nothing_of_the_call(self, bench: Bench) -> None:
        """Over its limit the inbox raises QueueFull, with neither jobs nor heads changed."""
        storage = bench.open("limited", max_messages=3)
        source, other = Source(storage.inbox), Source(storage.inbox, priority=1)
        source.fill(2)
        with pytest.raises(QueueFull):
            storage.inbox.accept([other.arrival(job()), source.arrival(job(), job())])
        assert storage.inbox.heads(SENDER) == {source.lane: source.head}
        assert storage.inbox.settle([Ack(claim) for claim in Worker(storage.inbox).claim()]) == [True] * 2
        assert Source(storage.inbox, "b").push(job(), job()).taken

    def test_full_channel_is_full_alone(self, bench: Bench) -> None:
        """A channel's limit holds for that channel alone."""
        storage = bench.open("limited", channel_limits={"small": (1, None)})
        Source(storage.inbox, "small").fill(1)
        with pytest.raises(QueueFull):
            storage.inbox.put("small", 5, SENDER, [job()])
        Source(storage.inbox, "large").fill(3)

    def test_put_queues_for_this_node(self, storage: Storage) -> None:
        """Jobs of the node itself are leased like any other, and have no heads."""
        entry = job(b"mine")
        storage.inbox.put(CHANNEL, 3, SENDER, [entry])
        claim = Worker(storage.inbox).one()
        assert (claim.id, claim.envelope, claim.priority, claim.sender) == (entry.id, b"mine", 3, SENDER)
        assert storage.inbox.heads(SENDER) == {}

    # ── claim ────────────────────────────────────────────────────────────────────────────────────

    def test_claim_gives_everything_about_a_message(self, storage: Storage, bench: Bench) -> None:
        """A claim carries id, channel, priority, sender, content, attempt, flag and time of arrival."""
        entry = job(b"\0content", possible_duplicate=True)
        arrived = bench.clock.now()
        Source(storage.inbox).push(entry)
        bench.clock.advance(5)
        claim = Worker(storage.inbox).one()
        assert (claim.id, claim.channel, claim.priority, claim.sender) == (entry.id, CHANNEL, 5, SENDER)
        assert (claim.envelope, claim.attempt, claim.possible_duplicate) == (b"\0content", 1, True)
        assert claim.arrived == pytest.approx(arrived)

    def test_claim_orders_by_priority_then_arrival(self, storage: Storage) -> None:
        """Urgent first, then the order of arrival, over all channels asked for."""
        late, soon = Source(storage.inbox, priority=7), Source(storage.inbox, "b", priority=1)
        ids = late.fill(2) + soon.fill(2) + late.fill(1)
        worker = Worker(storage.inbox, CHANNEL, "b")
        assert [claim.id for claim in worker.claim()] == [ids[2], ids[3], ids[0], ids[1], ids[4]]

    def test_claim_keeps_limit_and_channels(self, storage: Storage) -> None:
        """No more than asked, and only of the channels asked for."""
        Source(storage.inbox, "other").fill(3)
        Source(storage.inbox).fill(5)
        worker = Worker(storage.inbox)
        assert len(worker.claim(2)) == 2
        assert worker.claim(0) == []
        assert {claim.channel for claim in worker.claim()} == {CHANNEL}

    def test_a_leased_message_is_nobody_elses(self, storage: Storage) -> None:
        """What is leased is not given again, and its lease is seen to hold."""
        Source(storage.inbox).fill(1)
        claim = Worker(storage.inbox).one()
        assert Worker(storage.inbox).claim() == []
        assert storage.inbox.holds(claim)

    def test_many_consumers_get_each_message_once(self, storage: Storage) -> None:
        """Four threads that claim and acknowledge share the queue without loss or double."""
        ids = Source(storage.inbox).fill(120)

        def work() -> list[MessageId]:
            worker, got = Worker(storage.inbox), []
            while claims := worker.claim(3):
                mine = [claim.id for claim in claims]
                lost = answered_no(storage.inbox.settle([Ack(claim) for claim in claims]), mine)
                assert not lost, f"leases that nobody took away did not hold: {lost}"
                got += mine
            return got

        shares = together(self.patience, [work] * 4, "claim and settle in four threads at once")
        wrong = strayed(sorted(identity for share in shares for identity in share), sorted(ids))
        assert not wrong, f"what the four got together: {wrong}"

    # ── settle ───────────────────────────────────────────────────────────────────────────────────

    def test_ack_ends_a_message(self, storage: Storage) -> None:
        """An acknowledged message is not given again; its content is dropped unless it is to be kept."""
        ids = Source(storage.inbox).fill(2)
        worker = Worker(storage.inbox)
        plain, kept = worker.claim()
        assert storage.inbox.settle([Ack(plain), Ack(kept, keep=60.0)]) == [True, True]
        assert worker.claim() == []
        assert not storage.inbox.holds(plain)
        assert storage.inbox.envelope(ids[0]) is None
        assert storage.inbox.envelope(ids[1]) == b"envelope 1"
        info = storage.inbox.status(ids[1])
        assert info is not None
        assert info.state is State.DONE
        assert storage.inbox.counts()[CHANNEL]["processed"] == 2

    def test_acknowledging_many_is_settling_each(self, storage: Storage) -> None:
        """Whatever was claimed together or not: each lease that holds ends, once."""
        Source(storage.inbox).fill(6)
        worker = Worker(storage.inbox)
        one, many = worker.claim(2), worker.claim(4)
        assert storage.inbox.acknowledge([]) == []
        assert storage.inbox.acknowledge(many[:2]) == [True, True]
        assert storage.inbox.acknowledge([*many, *one, one[0]]) == [False, False, True, True, True, True, False]
        held = [claim.id for claim in [*one, *many] if storage.inbox.holds(claim)]
        assert not held, f"acknowledged, and the lease still holds: {named(held)}"

    def test_ack_survives_reopening(self, storage: Storage, bench: Bench) -> None:
        """What was acknowledged and flushed does not come back."""
        Source(storage.inbox).fill(2)
        assert storage.inbox.settle([Ack(Worker(storage.inbox).one())]) == [True]
        storage.inbox.flush()
        again = bench.reopen(storage)
        again.inbox.reap({})
        assert len(Worker(again.inbox).claim()) == 1

    def test_done_is_forgotten_after_its_retention(self, storage: Storage, bench: Bench) -> None:
        """``keep`` seconds after the acknowledgement a sweep forgets the message."""
        (only,) = Source(storage.inbox).fill(1)
        storage.inbox.settle([Ack(Worker(storage.inbox).one(), keep=60.0)])
        bench.clock.advance(59)
        storage.inbox.sweep()
        assert storage.inbox.envelope(only) is not None
        bench.clock.advance(2)
        storage.inbox.sweep()
        assert storage.inbox.status(only) is None

    def test_release_gives_back_in_order_and_counts(self, storage: Storage) -> None:
        """A released message is ready again at its place, one attempt further; its errors are kept."""
        ids = Source(storage.inbox).fill(2)
        worker = Worker(storage.inbox)
        assert storage.inbox.settle([Release(worker.one(), reason="first error")]) == [True]
        claim = worker.one()
        assert (claim.id, claim.attempt) == (ids[0], 2)
        storage.inbox.settle([Release(claim, reason="second error")])
        info = storage.inbox.status(ids[0])
        assert info is not None
        assert info.reason.index("first error") < info.reason.index("second error")
        assert (info.state, info.attempts) == (State.READY, 2)

    def test_uncounted_release_is_no_attempt(self, storage: Storage) -> None:
        """An abandoned message comes back with the attempt it had."""
        Source(storage.inbox).fill(1)
        worker = Worker(storage.inbox)
        storage.inbox.settle([Release(worker.one(), counted=False)])
        assert worker.one().attempt == 1

    def test_release_with_delay(self, storage: Storage, bench: Bench) -> None:
        """A delayed message is not given before its time, which can be asked for."""
        (only,) = Source(storage.inbox).fill(1)
        worker = Worker(storage.inbox)
        storage.inbox.settle([Release(worker.one(), delay=30.0)])
        assert worker.claim() == []
        assert storage.inbox.next_due([CHANNEL]) == pytest.approx(bench.clock.now() + 30)
        assert storage.inbox.next_due(["other"]) is None
        info = storage.inbox.status(only)
        assert info is not None
        assert info.state is State.DELAYED
        assert info.due_in == pytest.approx(30)
        bench.clock.advance(30.5)
        assert worker.one().attempt == 2
        assert storage.inbox.next_due([CHANNEL]) is None

    def test_delay_of_the_sender(self, storage: Storage, bench: Bench) -> None:
        """A message with a delay left waits here; one whose delay is over does not."""
        late, now = job(due_in=10.0), job(due_in=-3.0)
        Source(storage.inbox).push(late, now)
        worker = Worker(storage.inbox)
        assert [claim.id for claim in worker.claim()] == [now.id]
        bench.clock.advance(10.5)
        assert [claim.id for claim in worker.claim()] == [late.id]

    def test_fault_71_72_wall_clock_jumps_delay_nothing(self, storage: Storage, bench: Bench) -> None:
        """A jump of the wall clock neither makes a delayed message due nor expires one."""
        Source(storage.inbox).push(job(due_in=10.0), job(expires_in=10.0))
        for jump in (366 * 86400.0, -3 * 366 * 86400.0):
            bench.clock.step_wall(jump)
            storage.inbox.sweep()
            assert storage.inbox.next_due([CHANNEL]) == pytest.approx(bench.clock.now() + 10)
        assert len(Worker(storage.inbox).claim()) == 1

    def test_bury(self, storage: Storage) -> None:
        """A buried message is not given again; its content and reason stay."""
        (only,) = Source(storage.inbox).fill(1)
        worker = Worker(storage.inbox)
        assert storage.inbox.settle([Bury(worker.one(), "can never work")]) == [True]
        assert worker.claim() == []
        info = storage.inbox.status(only)
        assert info is not None
        assert info.state is State.BURIED
        assert "can never work" in info.reason
        assert storage.inbox.envelope(only) == b"envelope 0"

    def test_fault_60_a_stale_token_changes_nothing(self, storage: Storage) -> None:
        """After its lease ended, a consumer's ack, release and bury all fail; the second run's stands."""
        (only,) = Source(storage.inbox).fill(1)
        first = Worker(storage.inbox)
        stale = first.one()
        storage.inbox.settle([Release(stale)])
        fresh = Worker(storage.inbox).one()
        assert fresh.token != stale.token
        assert storage.inbox.settle([Ack(stale), Release(stale), Bury(stale)]) == [False, False, False]
        assert not storage.inbox.holds(stale)
        assert storage.inbox.holds(fresh)
        assert storage.inbox.settle([Bury(fresh, "stands")]) == [True]
        assert storage.inbox.settle([Ack(stale), Ack(fresh)]) == [False, False]
        info = storage.inbox.status(only)
        assert info is not None
        assert info.state is State.BURIED

    def test_settle_applies_each_change_by_itself(self, storage: Storage) -> None:
        """A stale change among good ones fails alone; the same ack twice counts once."""
        Source(storage.inbox).fill(3)
        a, b, c = Worker(storage.inbox).claim()
        storage.inbox.settle([Ack(b)])
        assert storage.inbox.settle([Ack(a), Ack(b), Release(c), Ack(a)]) == [True, False, True, False]
        assert storage.inbox.counts()[CHANNEL]["processed"] == 2

    # ── ordering keys ────────────────────────────────────────────────────────────────────────────

    def _keys(self, storage: Storage) -> Worker:
        if "ordering_key" not in storage.abilities:
            pytest.skip("this storage has no ordering keys, and says so")
        return Worker(storage.inbox)

    def test_next_of_a_key_waits_until_settled(self, storage: Storage) -> None:
        """Never two messages of a key at once, in order; other keys and none are free."""
        worker = self._keys(storage)
        jobs = [job(key="k"), job(key="k"), job(key="m"), job(), job(key="k")]
        Source(storage.inbox).push(*jobs)
        first = worker.claim()
        assert [c.id for c in first] == [jobs[0].id, jobs[2].id, jobs[3].id]
        assert worker.claim() == []
        info = storage.inbox.status(jobs[1].id)
        assert info is not None
        assert info.state is State.BLOCKED
        storage.inbox.settle([Ack(first[0])])
        assert [c.id for c in worker.claim()] == [jobs[1].id]

    def test_release_keeps_the_key(self, storage: Storage, bench: Bench) -> None:
        """A message that is given back, even with a delay, is still the first of its key."""
        worker = self._keys(storage)
        jobs = [job(key="k"), job(key="k")]
        Source(storage.inbox).push(*jobs)
        storage.inbox.settle([Release(worker.one(), delay=20.0)])
        assert worker.claim() == []
        bench.clock.advance(21)
        assert worker.one().id == jobs[0].id

    def test_buried_and_expired_free_the_key(self, storage: Storage, bench: Bench) -> None:
        """A message that ended badly does not stop its key for ever."""
        worker = self._keys(storage)
        jobs = [job(key="k"), job(key="k", expires_in=5.0), job(key="k")]
        Source(storage.inbox).push(*jobs)
        storage.inbox.settle([Bury(worker.one())])
        bench.clock.advance(6)
        storage.inbox.sweep()
        assert worker.one().id == jobs[2].id

    def test_a_key_is_of_its_channel(self, storage: Storage) -> None:
        """The same key on another channel is another key."""
        self._keys(storage)
        Source(storage.inbox).push(job(key="k"))
        Source(storage.inbox, "b").push(job(key="k"))
        assert len(Worker(storage.inbox, CHANNEL, "b").claim()) == 2

    def test_key_order_holds_over_many_consumers(self, storage: Storage) -> None:
        """Four threads, five keys: each key's messages are done in the order of arrival."""
        self._keys(storage)
        jobs = [job(key=str(n % 5)) for n in range(60)]
        Source(storage.inbox).push(*jobs)
        done: list[MessageId] = []

        def work() -> None:
            worker = Worker(storage.inbox)
            while len(done) < len(jobs):
                for claim in worker.claim(2):
                    done.append(claim.id)
                    storage.inbox.settle([Ack(claim)])

        together(self.patience, [work] * 4, "claim and settle by key in four threads at once")
        for key in range(5):
            mine = [entry.id for entry in jobs if entry.key == str(key)]
            assert [identity for identity in done if identity in mine] == mine
