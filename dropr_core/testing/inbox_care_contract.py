"""Contract tests of an inbox: dead consumers, outcomes, expiry, mending, figures, closing.

Owns one test for each sentence of contracts/storage.py about what happens around the queue. Must
not know any storage by name.
"""

from collections import Counter

import pytest

from dropr_core.contracts.storage import Ack, Bury, JobInfo, Selection, Storage
from dropr_core.errors import Closed
from dropr_core.model.message import State
from dropr_core.model.names import MessageId, StoreId
from dropr_core.model.states import JOB
from dropr_core.testing.bench import Bench, StorageTests
from dropr_core.testing.builders import CHANNEL, SENDER, Source, Worker, job, new_id
from dropr_core.testing.contract import shut
from dropr_core.testing.id_lists import named
from dropr_core.testing.likeness import strayed


def info_of(storage: Storage, message_id: MessageId) -> JobInfo:
    """What is known of a message, which must be known."""
    info = storage.inbox.status(message_id)
    assert info is not None
    return info


class InboxCareContract(StorageTests):
    """What an inbox must do around its queue."""

    # ── consumers that go ────────────────────────────────────────────────────────────────────────

    def test_a_flagged_duplicate_of_what_stands_here_is_not_queued_again(self, storage: Storage) -> None:
        """Sent again as a possible duplicate, a message that waits, is leased or delayed stays a single one."""
        waits, leased, late = job(b"waits"), job(b"leased"), job(b"late", due_in=60.0)
        source, worker = Source(storage.inbox), Worker(storage.inbox)
        source.push(leased)
        claim = worker.one()
        source.push(waits, late)
        again = [entry._replace(possible_duplicate=True) for entry in (leased, waits, late)]
        assert source.push(*again).taken
        assert storage.inbox.heads(SENDER)[source.lane] == source.head
        assert len(storage.inbox.scan(Selection())) == 3
        assert storage.inbox.settle([Ack(claim)]) == [True]
        assert [other.id for other in worker.claim()] == [waits.id]

    def test_a_flagged_duplicate_of_something_else_or_of_nothing_is_queued(self, storage: Storage) -> None:
        """The flag alone drops nothing: other content, or a copy that was buried or is gone, is queued."""
        source, worker = Source(storage.inbox), Worker(storage.inbox)
        gone, buried = job(b"gone"), job(b"buried")
        source.push(gone, buried)
        for claim in worker.claim():
            storage.inbox.settle([Ack(claim) if claim.id == gone.id else Bury(claim, "no")])
        other = gone._replace(envelope=b"other content")
        source.push(*(entry._replace(possible_duplicate=True) for entry in (gone, buried, other)))
        claims = worker.claim()
        assert [claim.envelope for claim in claims] == [b"gone", b"buried", b"other content"]
        unmarked = [claim.id for claim in claims if not claim.possible_duplicate]
        assert not unmarked, f"not marked as possible duplicates: {named(unmarked)}"

    def test_retire_gives_back_without_an_attempt(self, storage: Storage) -> None:
        """A consumer that leaves properly gives its messages back as if it had never had them."""
        ids = Source(storage.inbox).fill(2)
        worker = Worker(storage.inbox)
        claims = worker.claim()
        storage.inbox.retire(worker.name)
        storage.inbox.retire(worker.name)
        assert not storage.inbox.holds(claims[0])
        assert storage.inbox.settle([Ack(claims[0])]) == [False]
        assert [(c.id, c.attempt) for c in Worker(storage.inbox).claim()] == [(ids[0], 1), (ids[1], 1)]

    def test_reap_leaves_the_living_alone(self, storage: Storage) -> None:
        """As long as a consumer lives its leases hold, however long the handler runs."""
        Source(storage.inbox).fill(1)
        claim = Worker(storage.inbox).one()
        assert storage.inbox.reap({})[0] == []
        assert storage.inbox.holds(claim)
        assert storage.inbox.settle([Ack(claim)]) == [True]

    def test_fault_59_a_dead_consumers_lease_ends(self, storage: Storage, bench: Bench) -> None:
        """The process died: the attempt counts, and another consumer gets the message."""
        (only,) = Source(storage.inbox).fill(1)
        dead, other = Worker(storage.inbox), Worker(storage.inbox)
        stale = dead.one()
        bench.kill(storage, dead.name)
        assert storage.inbox.reap({}) == ([CHANNEL], False)
        claim = other.one()
        assert (claim.id, claim.attempt) == (only, 2)
        assert storage.inbox.settle([Ack(stale), Ack(claim)]) == [False, True]
        assert storage.inbox.reap({}) == ([], False)

    def test_fault_64_a_message_that_kills_its_consumers_is_buried(self, storage: Storage, bench: Bench) -> None:
        """After the channel's attempts the message is buried, the sender learns that it failed."""
        (only,) = Source(storage.inbox).fill(1, receipt=True)
        for attempt in (1, 2, 3):
            dead = Worker(storage.inbox)
            assert dead.one().attempt == attempt
            bench.kill(storage, dead.name)
            freed, _ = storage.inbox.reap({CHANNEL: 3})
            assert freed == ([CHANNEL] if attempt < 3 else [])
        assert info_of(storage, only).state is State.BURIED
        assert info_of(storage, only).reason
        _, rows = storage.inbox.outcomes(SENDER, None, 0, 10)
        assert [(row.id, row.state) for row in rows] == [(only, State.FAILED)]

    def test_fault_64_ten_attempts_are_the_default(self, storage: Storage, bench: Bench) -> None:
        """A channel that is not named has ten attempts."""
        (only,) = Source(storage.inbox).fill(1)
        for _ in range(10):
            assert info_of(storage, only).state is State.READY
            dead = Worker(storage.inbox)
            dead.one()
            bench.kill(storage, dead.name)
            storage.inbox.reap({"other": 1})
        assert info_of(storage, only).state is State.BURIED

    # ── outcomes ─────────────────────────────────────────────────────────────────────────────────

    def test_outcomes_are_numbered_and_forgotten(self, storage: Storage) -> None:
        """Ends of messages that asked are numbered from 1; what the sender has is forgotten."""
        ids = Source(storage.inbox).fill(3, receipt=True)
        a, b, c = Worker(storage.inbox).claim()
        storage.inbox.settle([Ack(a, b"42", "text/plain"), Bury(b, "broken")])
        storage.inbox.settle([Ack(c)])
        log, rows = storage.inbox.outcomes(SENDER, None, 0, 2)
        assert log == storage.inbox.store_id
        assert [(r.number, r.id, r.state) for r in rows] == [(1, ids[0], State.PROCESSED), (2, ids[1], State.FAILED)]
        assert (rows[0].result, rows[0].content_type, rows[1].reason) == (b"42", "text/plain", "broken")
        assert [r.number for r in storage.inbox.outcomes(SENDER, log, 2, 10)[1]] == [3]
        assert [r.number for r in storage.inbox.outcomes(SENDER, None, 0, 10)[1]] == [3]
        assert storage.inbox.outcomes(SENDER, log, 3, 10) == (log, [])
        assert storage.inbox.outcomes("nobody", log, 0, 10) == (log, [])

    def test_fault_54_a_cursor_beyond_the_log_begins_a_new_log(self, storage: Storage) -> None:
        """The sender knows more of our log than we do: we were restored, and swallow nothing that comes now."""
        Source(storage.inbox).fill(1, receipt=True)
        storage.inbox.settle([Ack(claim) for claim in Worker(storage.inbox).claim()])
        old = storage.inbox.store_id
        log, rows = storage.inbox.outcomes(SENDER, old, 7, 10)
        assert old != log == storage.inbox.store_id
        assert [row.number for row in rows] == [1]
        assert storage.inbox.outcomes(SENDER, old, 7, 10) == (log, rows)

    def test_an_acknowledgement_may_say_why_there_is_no_result(self, storage: Storage) -> None:
        """The reason of an acknowledgement goes home with the outcome, whether the message stays for a while or not."""
        source, worker = Source(storage.inbox), Worker(storage.inbox)
        for keep in (0.0, 60.0):
            source.push(job(receipt=True))
            assert storage.inbox.settle([Ack(worker.one(), None, "", keep, "too big")]) == [True]
        _, rows = storage.inbox.outcomes(SENDER, None, 0, 10)
        assert [(row.state, row.reason, row.result) for row in rows] == [(State.PROCESSED, "too big", None)] * 2

    def test_outcomes_for_another_log_are_all_of_ours(self, storage: Storage) -> None:
        """A cursor in a log that is not ours means nothing: all is sent, nothing is forgotten."""
        Source(storage.inbox).fill(2, receipt=True)
        storage.inbox.settle([Ack(claim) for claim in Worker(storage.inbox).claim()])
        for _ in range(2):
            assert len(storage.inbox.outcomes(SENDER, StoreId(b"other---"), 99, 10)[1]) == 2

    def test_a_page_of_outcomes_ends_at_so_many_bytes(self, storage: Storage) -> None:
        """A page keeps to both of its limits, and has one row at least: any receipt comes home, whatever its size."""
        Source(storage.inbox).push(*(job(receipt=True) for _ in range(5)))
        claims = Worker(storage.inbox).claim()
        assert storage.inbox.settle([Ack(claim, b"r" * 40_000, "text/plain") for claim in claims]) == [True] * 5
        log, rows = storage.inbox.outcomes(SENDER, None, 0, 10, 100_000)
        assert [row.number for row in rows] == [1, 2], "rows of 40,000 bytes in a page of 100,000"
        assert [row.number for row in storage.inbox.outcomes(SENDER, log, 2, 10, 1)[1]] == [3], "never an empty page"
        assert [row.number for row in storage.inbox.outcomes(SENDER, log, 2, 2)[1]] == [3, 4]

    def test_outcomes_go_to_those_who_asked(self, storage: Storage) -> None:
        """No receipt asked: no outcome; each sender has its own log and numbers."""
        Source(storage.inbox).push(job(), job(receipt=True))
        Source(storage.inbox, sender="other").push(job(receipt=True))
        storage.inbox.settle([Ack(claim) for claim in Worker(storage.inbox).claim()])
        for sender in (SENDER, "other"):
            assert [row.number for row in storage.inbox.outcomes(sender, None, 0, 10)[1]] == [1]

    def test_outcomes_are_durable(self, storage: Storage, bench: Bench) -> None:
        """What outcomes returned survives; numbers go on where they were."""
        source = Source(storage.inbox)
        source.fill(1, receipt=True)
        storage.inbox.settle([Ack(Worker(storage.inbox).one())])
        log, rows = storage.inbox.outcomes(SENDER, None, 0, 10)
        again = bench.reopen(storage)
        assert again.inbox.outcomes(SENDER, None, 0, 10) == (log, rows)
        assert again.inbox.outcomes(SENDER, log, 1, 10) == (log, [])
        source.inbox = again.inbox
        source.fill(1, receipt=True)
        again.inbox.settle([Ack(Worker(again.inbox).one())])
        assert [row.number for row in again.inbox.outcomes(SENDER, log, 1, 10)[1]] == [2]

    # ── time ─────────────────────────────────────────────────────────────────────────────────────

    def test_expired_messages_end(self, storage: Storage, bench: Bench) -> None:
        """What expires unleased is not given any more; a sweep says beforehand when to look."""
        Source(storage.inbox).push(job(expires_in=10.0))
        (stays,) = Source(storage.inbox, "b").fill(1)
        assert storage.inbox.sweep() == pytest.approx(bench.clock.now() + 10)
        bench.clock.advance(10.5)
        storage.inbox.sweep()
        assert [claim.id for claim in Worker(storage.inbox, CHANNEL, "b").claim()] == [stays]

    def test_expiry_is_an_outcome(self, storage: Storage, bench: Bench) -> None:
        """A message that nobody took in time ends as expired in the sender's log."""
        entry = job(expires_in=10.0, receipt=True)
        Source(storage.inbox).push(entry)
        bench.clock.advance(10.5)
        storage.inbox.sweep()
        assert [(r.id, r.state) for r in storage.inbox.outcomes(SENDER, None, 0, 5)[1]] == [(entry.id, State.EXPIRED)]

    def test_no_consumer_gets_what_expired(self, storage: Storage, bench: Bench) -> None:
        """Even before a sweep has looked, an expired message is not leased."""
        Source(storage.inbox).push(job(expires_in=10.0), job(expires_in=0.0))
        bench.clock.advance(10.5)
        assert Worker(storage.inbox).claim() == []

    def test_what_is_put_keeps_its_times_and_its_receipt(self, storage: Storage, bench: Bench) -> None:
        """A message of the node itself waits for its delay, expires and is told of like one that arrived."""
        late, mortal, now = job(due_in=30.0), job(expires_in=10.0, receipt=True), job(due_in=-1.0)
        storage.inbox.put(CHANNEL, 5, SENDER, [late, mortal, now])
        worker = Worker(storage.inbox)
        assert [claim.id for claim in worker.claim(1)] == [mortal.id]
        early = [claim.id for claim in worker.claim()]
        assert not (wrong := strayed(early, [now.id])), f"before the delay of 30 s was over, claim gave {wrong}"
        due = storage.inbox.next_due([CHANNEL])
        assert due == pytest.approx(bench.clock.now() + 30), "when a message that was put with due_in=30 becomes ready"
        storage.inbox.retire(worker.name)
        bench.clock.advance(10.5)
        storage.inbox.sweep()
        _, rows = storage.inbox.outcomes(SENDER, None, 0, 5)
        assert [(row.id, row.state) for row in rows] == [(mortal.id, State.EXPIRED)]
        bench.clock.advance(20)
        again = Worker(storage.inbox)
        assert not (wrong := strayed([claim.id for claim in again.claim()], [late.id, now.id])), f"after it: {wrong}"

    def test_what_is_acknowledged_together_is_kept_as_long(self, storage: Storage, bench: Bench) -> None:
        """`acknowledge` with ``keep`` lists every message as done, with its content, for that long; without, none."""
        ids = Source(storage.inbox).fill(4)
        claims = Worker(storage.inbox).claim()
        assert storage.inbox.acknowledge(claims[:2]) == [True, True]
        assert storage.inbox.acknowledge(claims[2:], 60.0) == [True, True]

        def listed() -> list[bytes | None]:
            storage.inbox.sweep()
            return [storage.inbox.envelope(one) for one in ids if storage.inbox.status(one) is not None]

        assert listed() == [b"envelope 2", b"envelope 3"], "kept for 60 s, right after the acknowledgement"
        bench.clock.advance(59)
        assert listed() == [b"envelope 2", b"envelope 3"], "kept for 60 s, after 59"
        bench.clock.advance(2)
        assert listed() == [], "kept for 60 s, after 61"

    def test_a_lease_does_not_expire(self, storage: Storage, bench: Bench) -> None:
        """What was leased in time is finished in peace."""
        Source(storage.inbox).push(job(expires_in=10.0))
        claim = Worker(storage.inbox).one()
        bench.clock.advance(100)
        storage.inbox.sweep()
        assert storage.inbox.settle([Ack(claim)]) == [True]

    # ── mending ──────────────────────────────────────────────────────────────────────────────────

    def test_kick_gives_buried_and_delayed_fresh_attempts(self, storage: Storage, bench: Bench) -> None:
        """What is kicked is ready at once and begins to count anew."""
        source = Source(storage.inbox)
        (buried,) = source.fill(1)
        worker = Worker(storage.inbox)
        storage.inbox.settle([Bury(worker.one())])
        (delayed,) = source.fill(1, due_in=1000.0)
        assert storage.inbox.kick(Selection(states=frozenset({State.BURIED}))) == 1
        assert storage.inbox.kick(Selection(ids=(delayed,))) == 1
        assert storage.inbox.kick(Selection()) == 0
        assert [(c.id, c.attempt) for c in worker.claim()] == [(buried, 1), (delayed, 1)]
        bench.clock.advance(1)
        assert storage.inbox.next_due([CHANNEL]) is None

    def test_bury_by_hand(self, storage: Storage) -> None:
        """A waiting message can be buried by hand; a leased, ended or unknown one cannot."""
        ready, leased = Source(storage.inbox).fill(2, receipt=True)[::-1]
        claim = Worker(storage.inbox).one()
        assert claim.id == leased
        assert storage.inbox.bury(ready, "not wanted") is True
        assert storage.inbox.bury(ready, "again") is False
        assert storage.inbox.bury(leased, "busy") is False
        assert storage.inbox.bury(new_id(), "who?") is False
        assert info_of(storage, ready).state is State.BURIED
        assert [(r.id, r.state) for r in storage.inbox.outcomes(SENDER, None, 0, 5)[1]] == [(ready, State.FAILED)]
        assert storage.inbox.settle([Ack(claim)]) == [True]

    def test_fault_78_wipe_removes_only_what_ended(self, storage: Storage) -> None:
        """Ready, leased and delayed messages stay, whatever is selected."""
        source = Source(storage.inbox)
        ids = source.fill(4) + source.fill(1, due_in=100.0)
        done, buried, leased = Worker(storage.inbox).claim(3)
        storage.inbox.settle([Ack(done, keep=100.0), Bury(buried)])
        live = frozenset({State.READY, State.LEASED, State.DELAYED})
        assert storage.inbox.wipe(Selection(states=live)) == 0
        assert storage.inbox.wipe(Selection(states=frozenset({State.BURIED}))) == 1
        assert storage.inbox.wipe(Selection()) == 1
        assert [storage.inbox.status(i) is not None for i in ids] == [False, False, True, True, True]
        assert storage.inbox.settle([Ack(leased)]) == [True]

    def test_wipe_keeps_the_heads(self, storage: Storage) -> None:
        """Wiping never lets a message in twice: the head stays."""
        source = Source(storage.inbox)
        source.fill(2)
        storage.inbox.settle([Bury(claim) for claim in Worker(storage.inbox).claim()])
        assert storage.inbox.wipe(Selection()) == 2
        assert storage.inbox.heads(SENDER) == {source.lane: source.head}

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def test_scan_pages_in_order_of_arrival(self, storage: Storage) -> None:
        """Each page follows the last number of the one before, each message once."""
        ids = Source(storage.inbox).fill(20)
        seen, after = [], 0
        while page := storage.inbox.scan(Selection(), after, 7):
            assert len(page) <= 7
            seen += [info.id for info in page]
            after = page[-1].number
        assert seen == ids

    def test_scan_selects(self, storage: Storage, bench: Bench) -> None:
        """State, channel, sender and age restrict what is listed."""
        (old,) = Source(storage.inbox).fill(1)
        bench.clock.advance(100)
        (other,) = Source(storage.inbox, "b", sender="else").fill(1)
        for selection, found in (
            (Selection(states=frozenset({State.READY})), {old, other}),
            (Selection(states=frozenset({State.BURIED})), set()),
            (Selection(channel="b"), {other}),
            (Selection(peer="else"), {other}),
            (Selection(older_than=50.0), {old}),
            (Selection(ids=(old,), channel="b"), set()),
        ):
            assert {info.id for info in storage.inbox.scan(selection)} == found

    def test_scan_gives_each_once(self, storage: Storage) -> None:
        """Whatever states are asked for together, a message is listed once."""
        ids = Source(storage.inbox).fill(2)
        storage.inbox.settle([Bury(Worker(storage.inbox).one())])
        for states in ((State.BURIED, State.EXPIRED, State.DONE), (State.READY, State.BURIED), tuple(State)):
            assert [info.id for info in storage.inbox.scan(Selection(states=frozenset(states)))] in (ids, ids[:1])

    def test_status_shows_who_has_it(self, storage: Storage, bench: Bench) -> None:
        """A leased message names its consumer, attempts, age and size."""
        Source(storage.inbox).push(job(b"x" * 30))
        bench.clock.advance(3)
        worker = Worker(storage.inbox)
        info = info_of(storage, worker.one().id)
        assert (info.state, info.attempts, info.size, info.sender) == (State.LEASED, 1, 30, SENDER)
        assert info.consumer
        assert info.age == pytest.approx(3)
        assert storage.inbox.status(new_id()) is None

    def test_counts_of_messages_equal_a_recount(self, storage: Storage) -> None:
        """The kept figures are those of counting everything anew."""
        Source(storage.inbox).fill(6)
        Source(storage.inbox, "b").fill(2, due_in=10.0)
        keys = [job(key="k"), job(key="k")] if "ordering_key" in storage.abilities else [job()]
        Source(storage.inbox, "b", 1).push(*keys)
        a, b, _c = Worker(storage.inbox).claim(3)
        storage.inbox.settle([Ack(a, keep=10.0), Bury(b)])
        recount: dict[str, Counter[str]] = {}
        for info in storage.inbox.scan(Selection(), limit=1000):
            recount.setdefault(info.channel, Counter())[str(info.state)] += 1
        kept = storage.inbox.counts()
        states = {str(state) for state in JOB}
        for channel, numbers in recount.items():
            assert {k: n for k, n in kept[channel].items() if k in states and n} == dict(numbers)
        assert kept[CHANNEL]["processed"] == 1
        assert kept["b"]["bytes"] > 0

    def test_oldest_is_the_first_ready_message(self, storage: Storage, bench: Bench) -> None:
        """How long the first ready message of a channel has waited; nothing for an empty one."""
        assert dict(storage.inbox.oldest()) == {}
        source = Source(storage.inbox)
        source.fill(1)
        bench.clock.advance(40)
        source.fill(1)
        assert storage.inbox.oldest()[CHANNEL] == pytest.approx(40)
        Worker(storage.inbox).one()
        assert storage.inbox.oldest()[CHANNEL] == pytest.approx(0)

    def test_closed_inbox_refuses(self, storage: Storage) -> None:
        """Closing the storage twice is fine; every use after it says Closed."""
        inbox = storage.inbox
        consumer = inbox.register()
        shut(storage, self.patience)
        shut(storage, self.patience)
        for use in (lambda: inbox.heads(SENDER), lambda: inbox.claim([CHANNEL], 1, consumer), inbox.register,
                    lambda: inbox.accept([Source(inbox).arrival(job())]), inbox.counts):  # fmt: skip
            with pytest.raises(Closed):
                use()
