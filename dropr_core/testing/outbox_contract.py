"""Contract tests of an outbox: appending, limits, taking, settling, log matching.

Owns one test for each sentence of contracts/storage.py about the log. Must not know any storage by name.
"""

import pytest

from dropr_core.contracts.storage import Rejection, Selection, Storage
from dropr_core.errors import Conflict, QueueFull
from dropr_core.model import envelope
from dropr_core.model.message import Message, Outcome, State
from dropr_core.model.names import START, Head, Lane, StoreId
from dropr_core.testing.bench import Bench, StorageTests
from dropr_core.testing.builders import LANE, PEER, deliver, new_id, outgoing, send, state_of, taken
from dropr_core.testing.contract import together
from dropr_core.testing.id_lists import named
from dropr_core.testing.likeness import strayed

LOG = StoreId(b"log----1")


class OutboxLogContract(StorageTests):
    """What a log of an outbox must do."""

    # ── append ───────────────────────────────────────────────────────────────────────────────────

    def test_append_numbers_each_lane_from_one(self, storage: Storage) -> None:
        """Each delivery gets the next number of its own lane, in the order of the call."""
        messages = [outgoing(), outgoing(channel="b"), outgoing(), outgoing(priority=1), outgoing(peers=("other",))]
        placed = storage.outbox.append(messages)
        assert [p.sequences for p in placed] == [(1,), (1,), (2,), (1,), (1,)]
        assert [p.id for p in placed] == [m.id for m in messages]
        assert not (old := [p.id for p in placed if p.existed]), f"these are new, not known already: {named(old)}"
        assert storage.outbox.append([outgoing()])[0].sequences == (3,)

    def test_append_nothing(self, storage: Storage) -> None:
        """An empty call stores nothing and is no error."""
        assert storage.outbox.append([]) == []
        assert storage.outbox.lanes() == []

    def test_lanes_keep_order_and_bytes(self, storage: Storage) -> None:
        """What is taken is what was appended, in order, byte for byte."""
        ids = send(storage.outbox, 20)
        batch = taken(storage.outbox)
        assert [entry.id for entry in batch.entries] == ids
        assert [entry.sequence for entry in batch.entries] == list(range(1, 21))
        assert [entry.envelope for entry in batch.entries] == [b"envelope %d" % n for n in range(20)]
        assert batch.after == START
        assert batch.upto == Head(20, ids[-1])

    def test_append_survives_reopening(self, bench: Bench, storage: Storage) -> None:
        """What append returned is there after the store was closed and opened, with the same numbers."""
        ids, store = send(storage.outbox, 3), storage.outbox.store_id
        again = bench.reopen(storage)
        assert again.outbox.store_id == store
        assert [entry.id for entry in taken(again.outbox).entries] == ids
        assert again.outbox.append([outgoing()])[0].sequences == (4,)

    def test_two_handles_are_one_store(self, bench: Bench, storage: Storage) -> None:
        """A second storage object on the same directory sees and continues the same lanes."""
        send(storage.outbox, 2)
        other = bench.open()
        assert other.outbox.append([outgoing()])[0].sequences == (3,)
        assert len(taken(storage.outbox).entries) == 3
        assert other.outbox.store_id == storage.outbox.store_id
        assert storage.outbox.store_id != storage.inbox.store_id

    def test_multicast_has_a_delivery_for_each_peer(self, storage: Storage) -> None:
        """One message to several peers stands in each of their lanes and moves in each by itself."""
        send(storage.outbox, 1, peers=("b",))
        placed = storage.outbox.append([outgoing(b"same", peers=("a", "b", "c"), receipt=True)])[0]
        assert placed.sequences == (1, 2, 1)
        deliver(storage.outbox, Lane("a", "orders", 5))
        states = {d.peer: d.state for d in storage.outbox.status(placed.id)}
        assert states == {"a": State.ACCEPTED, "b": State.QUEUED, "c": State.QUEUED}
        assert taken(storage.outbox, Lane("c", "orders", 5)).entries[0].envelope == b"same"

    def test_priorities_are_lanes_of_their_own(self, storage: Storage) -> None:
        """Messages of another priority are numbered and taken apart."""
        for priority in (0, 9, 5):
            send(storage.outbox, 2, priority=priority)
        assert sorted(stats.lane.priority for stats in storage.outbox.lanes()) == [0, 5, 9]
        assert [e.sequence for e in taken(storage.outbox, Lane(PEER, "orders", 9)).entries] == [1, 2]

    # ── ids of the caller ────────────────────────────────────────────────────────────────────────

    def test_fault_17_the_same_own_id_is_stored_once(self, storage: Storage) -> None:
        """A second send with the same id and content returns the first message's places."""
        message = outgoing(fingerprint=b"same")
        first = storage.outbox.append([message])[0]
        again = storage.outbox.append([message, message])
        assert [(p.sequences, p.existed) for p in again] == [(first.sequences, True)] * 2
        assert len(taken(storage.outbox).entries) == 1

    def test_fault_17_twice_in_one_call_is_stored_once(self, storage: Storage) -> None:
        """Also within one call the second of two equal ids is the first one again."""
        message = outgoing(fingerprint=b"same")
        placed = storage.outbox.append([message, message])
        assert [(p.sequences, p.existed) for p in placed] == [((1,), False), ((1,), True)]

    def test_fault_17_other_content_is_a_conflict(self, storage: Storage) -> None:
        """The same id with other content raises Conflict, and nothing of the call is stored."""
        message = outgoing(fingerprint=b"one")
        storage.outbox.append([message])
        with pytest.raises(Conflict):
            storage.outbox.append([outgoing(), outgoing(id=message.id, fingerprint=b"two")])
        assert len(taken(storage.outbox).entries) == 1
        assert storage.outbox.append([outgoing()])[0].sequences == (2,)

    def test_fault_17_an_id_is_known_after_its_end(self, storage: Storage) -> None:
        """A delivered message's id is still refused a second entry, with place 0: it had ended."""
        message = outgoing(fingerprint=b"same")
        storage.outbox.append([message])
        deliver(storage.outbox)
        placed = storage.outbox.append([message])[0]
        assert (placed.sequences, placed.existed) == ((0,), True)
        assert storage.outbox.take(LANE, 10, 10_000) is None

    # ── limits ───────────────────────────────────────────────────────────────────────────────────

    def test_queue_full_leaves_nothing(self, bench: Bench) -> None:
        """Over the limit of messages QueueFull is raised and nothing of the call is stored."""
        storage = bench.open("limited", max_messages=3)
        send(storage.outbox, 2)
        with pytest.raises(QueueFull) as full:
            send(storage.outbox, 2)
        assert (full.value.queue, full.value.never) == (("all", ""), False)
        assert len(taken(storage.outbox).entries) == 2
        send(storage.outbox, 1)

    def test_queue_full_by_bytes_of_a_peer(self, bench: Bench) -> None:
        """One peer's backlog cannot take another's share, and room comes back by delivery."""
        storage = bench.open("limited", peer_limits={PEER: (None, 100)})
        storage.outbox.append([outgoing(b"x" * 80)])
        with pytest.raises(QueueFull) as full:
            storage.outbox.append([outgoing(b"x" * 80)])
        assert (full.value.queue, full.value.never) == (("peer", PEER), False)
        with pytest.raises(QueueFull) as full:
            storage.outbox.append([outgoing(b"x" * 101)])
        assert full.value.never
        storage.outbox.append([outgoing(b"x" * 500, peers=("other",))])
        deliver(storage.outbox)
        assert storage.outbox.append([outgoing(b"x" * 80)])[0].sequences == (2,)

    def test_queue_full_by_channel(self, bench: Bench) -> None:
        """A channel's own limit holds for that channel alone, and the error says which it is."""
        storage = bench.open("limited", channel_limits={"small": (1, None)})
        send(storage.outbox, 1, channel="small")
        with pytest.raises(QueueFull) as full:
            send(storage.outbox, 1, channel="small")
        assert full.value.queue == ("channel", "small")
        send(storage.outbox, 5)

    # ── content and names ────────────────────────────────────────────────────────────────────────

    @pytest.mark.parametrize("channel", ["../x", "/etc/passwd", ".", "..", "-", "a" * 200, "CON", "a//b"])
    def test_fault_57_channel_names_are_opaque(self, bench: Bench, storage: Storage, channel: str) -> None:
        """Legal but hostile channel names work like any other and touch no other path."""
        before = sorted(path.name for path in bench.directory.parent.iterdir())
        ids = send(storage.outbox, 2, channel=channel)
        storage.inbox.put(channel, 5, "shop", [])
        assert [e.id for e in taken(storage.outbox, Lane(PEER, channel, 5)).entries] == ids
        assert sorted(path.name for path in bench.directory.parent.iterdir()) == before

    @pytest.mark.parametrize("body", [b"", b"\0", b"0", bytes(range(256)) * 300])
    def test_fault_14_any_body_comes_out_as_it_went_in(self, storage: Storage, body: bytes) -> None:
        """Empty, zero and large bodies are kept byte for byte."""
        identity = new_id()
        data = envelope.encode(Message(id=identity, sender="shop"), body)
        storage.outbox.append([outgoing(data, id=identity)])
        assert storage.outbox.envelope(identity) == data
        assert envelope.decode(taken(storage.outbox).entries[0].envelope).body == body

    # ── take ─────────────────────────────────────────────────────────────────────────────────────

    def test_take_keeps_both_limits(self, storage: Storage) -> None:
        """A batch ends before the limit of count or bytes is passed."""
        storage.outbox.append([outgoing(b"x" * 100) for _ in range(10)])
        assert len(taken(storage.outbox, count=4).entries) == 4
        assert len(taken(storage.outbox, size=350).entries) == 3
        assert len(taken(storage.outbox, size=300).entries) == 3

    def test_take_gives_at_least_one(self, storage: Storage) -> None:
        """An entry over the limit of bytes is given alone: it must not stop its lane for ever."""
        storage.outbox.append([outgoing(b"x" * 1000), outgoing(b"y")])
        assert [len(e.envelope) for e in taken(storage.outbox, size=10).entries] == [1000]

    def test_take_repeats_until_settled(self, storage: Storage) -> None:
        """Taking moves nothing: the same follows the head until it is settled."""
        send(storage.outbox, 3)
        assert taken(storage.outbox) == taken(storage.outbox)
        assert storage.outbox.take(Lane("nobody", "x", 1), 1, 1) is None

    def test_take_fills_in_the_age_where_it_is_needed(self, storage: Storage, bench: Bench) -> None:
        """The age travels with what has a delay or an expiry; a jump of the wall clock adds nothing."""
        send(storage.outbox, 1, expires_in=500.0)
        send(storage.outbox, 1, delayed=True)
        bench.clock.advance(30)
        bench.clock.step_wall(86400)
        assert [entry.age for entry in taken(storage.outbox).entries] == pytest.approx([30, 30])

    def test_what_ended_otherwise_is_a_void(self, storage: Storage, bench: Bench) -> None:
        """Cancelled, expired and set aside deliveries are missing numbers; the others keep theirs."""
        ids = send(storage.outbox, 2) + send(storage.outbox, 1, expires_in=5.0) + send(storage.outbox, 2)
        assert storage.outbox.cancel(ids[1]) == (1, 0)
        storage.outbox.dead_letter(LANE, 4, "poison")
        bench.clock.advance(6)
        storage.outbox.sweep(1000.0)
        batch = taken(storage.outbox)
        assert [entry.sequence for entry in batch.entries] == [1, 5]
        assert [state_of(storage.outbox, i) for i in ids] == ["queued", "cancelled", "expired", "dead", "queued"]
        assert storage.outbox.status(ids[3])[0].reason == "poison"
        storage.outbox.settle(LANE, batch.upto)
        assert storage.outbox.lanes() == []

    def test_lanes_tell_depth_bytes_and_age(self, storage: Storage, bench: Bench) -> None:
        """The figures of a lane are of what is queued."""
        send(storage.outbox, 1)
        bench.clock.advance(7)
        storage.outbox.append([outgoing(b"x" * 50)])
        stats = storage.outbox.lanes(PEER)[0]
        assert (stats.lane, stats.head, stats.last, stats.depth) == (LANE, START, 2, 2)
        assert stats.bytes == 50 + len(b"envelope 0")
        assert stats.oldest == pytest.approx(7)
        assert storage.outbox.lanes("other") == []

    # ── cancel and mark_in_flight ─────────────────────────────────────────────────────────────────────────

    def test_what_is_under_way_cannot_be_cancelled(self, storage: Storage) -> None:
        """An offered delivery is too late to cancel until it is certain that it did not arrive."""
        first, second = send(storage.outbox, 2)
        taken(storage.outbox, count=1)
        assert storage.outbox.cancel(first) == (0, 1)
        assert storage.outbox.cancel(second) == (1, 0)
        storage.outbox.clear_in_flight(LANE)
        assert storage.outbox.cancel(first) == (1, 0)
        assert storage.outbox.take(LANE, 10, 1000) is None

    def test_a_look_without_offer_marks_nothing(self, storage: Storage) -> None:
        """``mark_in_flight=False`` leaves everything to be cancelled."""
        (only,) = send(storage.outbox)
        taken(storage.outbox, mark_in_flight=False)
        assert storage.outbox.cancel(only) == (1, 0)

    def test_cancel_for_one_peer(self, storage: Storage) -> None:
        """A multicast can be taken back from some of its peers."""
        (only,) = send(storage.outbox, peers=("a", "b"))
        assert storage.outbox.cancel(only, ["b"]) == (1, 0)
        assert (state_of(storage.outbox, only, "a"), state_of(storage.outbox, only, "b")) == ("queued", "cancelled")
        assert storage.outbox.cancel(new_id()) == (0, 0)

    def test_settle_ends_the_marks(self, storage: Storage) -> None:
        """After a settle, what the peer did not take can be cancelled again."""
        first, second = send(storage.outbox, 2)
        taken(storage.outbox)
        storage.outbox.settle(LANE, Head(1, first))
        assert storage.outbox.cancel(second) == (1, 0)

    # ── settle and locate ────────────────────────────────────────────────────────────────────────

    def test_settle_repeated_or_old_changes_nothing(self, storage: Storage) -> None:
        """The same or an older head, once more, leaves everything as it is."""
        ids = send(storage.outbox, 3, receipt=True)
        storage.outbox.settle(LANE, Head(2, ids[1]))
        storage.outbox.settle(LANE, Head(2, ids[1]))
        storage.outbox.settle(LANE, Head(1, ids[0]))
        assert [state_of(storage.outbox, i) for i in ids] == ["accepted", "accepted", "queued"]
        assert storage.outbox.lanes()[0].head == Head(2, ids[1])
        assert [e.id for e in taken(storage.outbox).entries] == ids[2:]

    def test_settle_with_a_rejection(self, storage: Storage) -> None:
        """A rejected delivery has failed with the peer's code and reason; the others are accepted."""
        ids = send(storage.outbox, 3, receipt=True)
        storage.outbox.settle(LANE, taken(storage.outbox).upto, [Rejection(2, "not_allowed", "not this channel")])
        assert [state_of(storage.outbox, i) for i in ids] == ["accepted", "failed", "accepted"]
        reason = storage.outbox.status(ids[1])[0].reason
        assert "not_allowed" in reason
        assert "not this channel" in reason

    def test_locate_knows_the_head_and_what_is_kept(self, storage: Storage) -> None:
        """The id at a position: known for the head and for everything kept, else None."""
        ids = send(storage.outbox, 2) + send(storage.outbox, 2, receipt=True)
        storage.outbox.settle(LANE, Head(2, ids[1]))
        assert storage.outbox.locate(LANE, 1) is None
        assert [storage.outbox.locate(LANE, n) for n in (2, 3, 4)] == ids[1:]
        assert storage.outbox.locate(LANE, 5) is None
        assert storage.outbox.locate(Lane("x", "y", 0), 1) is None

    def test_locate_knows_what_ended_in_its_place(self, storage: Storage) -> None:
        """A delivery that ended by itself may have reached the peer all the same: its place stays known."""
        ids = send(storage.outbox, 2)
        taken(storage.outbox)
        storage.outbox.dead_letter(LANE, 1, "poison")
        assert storage.outbox.locate(LANE, 1) == ids[0]

    # ── rewind and renumber ──────────────────────────────────────────────────────────────────────

    def test_rewind_sends_what_is_kept_again(self, storage: Storage) -> None:
        """What waits for a receipt behind the peer's head is queued again, flagged; what ended is not."""
        ids = send(storage.outbox, 5, receipt=True)
        deliver(storage.outbox, count=4)
        storage.outbox.receipts(PEER, LOG, [Outcome(1, ids[2], State.PROCESSED)], 1)
        assert storage.outbox.rewind(LANE, Head(1, ids[0])) == 2
        batch = taken(storage.outbox)
        assert batch.after == Head(1, ids[0])
        assert [(e.sequence, e.possible_duplicate) for e in batch.entries] == [(2, True), (4, True), (5, False)]
        assert [state_of(storage.outbox, i) for i in ids] == ["accepted", "queued", "processed", "queued", "queued"]

    def test_rewind_is_durable(self, storage: Storage, bench: Bench) -> None:
        """After reopening, the peer's loss is still known."""
        send(storage.outbox, 2, receipt=True)
        deliver(storage.outbox)
        assert storage.outbox.rewind(LANE, START) == 2
        again = bench.reopen(storage)
        assert [e.possible_duplicate for e in taken(again.outbox).entries] == [True, True]

    def test_what_lives_is_what_is_not_over(self, storage: Storage) -> None:
        """`Selection.live`: queued, or accepted with a receipt to come, in a lane or outside; nothing ended."""
        outside = send(storage.outbox, 1, receipt=True)
        deliver(storage.outbox)
        storage.outbox.renumber()
        ended = send(storage.outbox, 2)
        deliver(storage.outbox)
        (dead,), awaiting = send(storage.outbox, 1), send(storage.outbox, 1, receipt=True)
        storage.outbox.dead_letter(LANE, 3, "poison")
        deliver(storage.outbox)
        queued = send(storage.outbox, 1)
        found = [one for _, one in storage.outbox.scan(Selection(live=True))]
        assert {one.id for one in found} == {*outside, *awaiting, *queued}
        assert len(found) == 3
        assert storage.outbox.scan(Selection(ids=(*ended, dead), live=True)) == []
        (only,) = storage.outbox.scan(Selection(ids=tuple(awaiting), peer=PEER, live=True))
        assert not only[1].over

    def test_renumber_begins_anew(self, storage: Storage) -> None:
        """A new store id, queued deliveries from 1 and flagged, accepted ones parked outside of the log."""
        ids, old = send(storage.outbox, 4, receipt=True), storage.outbox.store_id
        other = send(storage.outbox, 1, channel="b")
        deliver(storage.outbox, count=2)
        store = storage.outbox.renumber()
        assert old != store == storage.outbox.store_id
        batch = taken(storage.outbox)
        assert batch.after == START
        assert [(e.sequence, e.id) for e in batch.entries] == [(1, ids[2]), (2, ids[3])]
        unmarked = [entry.sequence for entry in batch.entries if not entry.possible_duplicate]
        assert not unmarked, f"not marked as possible duplicates: {named(unmarked)}"
        assert [e.id for e in taken(storage.outbox, Lane(PEER, "b", 5)).entries] == other
        assert state_of(storage.outbox, ids[0]) == "accepted"
        assert storage.outbox.append([outgoing()])[0].sequences == (3,)
        assert storage.outbox.rewind(LANE, START) == 0
        assert storage.outbox.receipts(PEER, LOG, [Outcome(1, ids[0], State.PROCESSED)], 1) == [ids[0]]

    def test_renumber_is_durable(self, storage: Storage, bench: Bench) -> None:
        """The new identity outlives the process."""
        send(storage.outbox, 2)
        store = storage.outbox.renumber()
        again = bench.reopen(storage)
        assert again.outbox.store_id == store
        assert [e.sequence for e in taken(again.outbox).entries] == [1, 2]

    # ── threads ──────────────────────────────────────────────────────────────────────────────────

    def test_many_threads_append_without_gap_or_double(self, storage: Storage) -> None:
        """Eight threads share a lane: every number once, each thread's messages in its own order."""

        def work() -> list[int]:
            return [number for _ in range(15) for number in storage.outbox.append([outgoing()])[0].sequences]

        places = together(self.patience, [work] * 8, "append in eight threads at once")
        wrong = strayed(sorted(number for each in places for number in each), range(1, 121))
        assert not wrong, f"the numbers in the lane: {wrong}"
        turned = [each for each in places if each != sorted(each)]
        assert not turned, f"messages of one thread got numbers in another order than it sent them: {turned[0]}"
        assert len(storage.outbox.scan(Selection(), limit=1000)) == 120
