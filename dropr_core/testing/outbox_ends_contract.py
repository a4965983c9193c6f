"""Contract tests of an outbox: receipts, ends, dead letters, figures, closing.

Owns one test for each sentence of contracts/storage.py about what becomes of a delivery. Must not
know any storage by name.
"""

from collections import Counter
from typing import Any

import pytest

from dropr_core.contracts.storage import DeliveryMove, Selection, Storage
from dropr_core.errors import Closed
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import START, StoreId
from dropr_core.protocol.outside import LOST, OutsideSearch
from dropr_core.testing.bench import Bench, StorageTests
from dropr_core.testing.builders import LANE, PEER, deliver, new_id, outgoing, send, state_of, taken
from dropr_core.testing.contract import shut

LOG, OTHER_LOG = StoreId(b"log----1"), StoreId(b"log----2")
LIFE = 5 * 86400.0


class OutboxEndsContract(StorageTests):
    """What an outbox must do with deliveries that left the log."""

    # ── receipts ─────────────────────────────────────────────────────────────────────────────────

    def test_receipt_ends_a_delivery_with_its_result(self, storage: Storage) -> None:
        """A receipt makes the delivery processed and keeps the small result; the cursor is kept."""
        first, second = send(storage.outbox, 2, receipt=True)
        deliver(storage.outbox)
        assert storage.outbox.peers()[PEER].awaiting == 2
        page = [Outcome(1, first, State.PROCESSED, "", b"7", "text/plain"), Outcome(2, second, State.FAILED, "broken")]
        assert storage.outbox.receipts(PEER, LOG, page, 2) == [first, second]
        good, bad = storage.outbox.status(first)[0], storage.outbox.status(second)[0]
        assert (good.state, good.result, good.result_type) == (State.PROCESSED, b"7", "text/plain")
        assert (bad.state, bad.reason) == (State.FAILED, "broken")
        peer = storage.outbox.peers()[PEER]
        assert (peer.log, peer.cursor, peer.awaiting) == (LOG, 2, 0)

    def test_receipts_are_durable(self, storage: Storage, bench: Bench) -> None:
        """After reopening, outcome and cursor are still known."""
        (only,) = send(storage.outbox, receipt=True)
        deliver(storage.outbox)
        storage.outbox.receipts(PEER, LOG, [Outcome(1, only, State.PROCESSED)], 1)
        again = bench.reopen(storage)
        assert state_of(again.outbox, only) == "processed"
        assert (again.outbox.peers()[PEER].log, again.outbox.peers()[PEER].cursor) == (LOG, 1)

    def test_standing_is_lanes_and_peers_of_one_moment(self, storage: Storage) -> None:
        """With each message the daemon looks once: the same is told as by both calls, and no other store id."""
        send(storage.outbox, 2, receipt=True)
        deliver(storage.outbox)
        send(storage.outbox, 3)
        send(storage.outbox, 1, peers=("other",))
        storage.outbox.receipts("other", LOG, [], 7)
        storage.outbox.hold("held", "by hand")
        lanes, peers, store = storage.outbox.standing()
        assert sorted(lanes, key=lambda one: one.lane) == sorted(storage.outbox.lanes(), key=lambda one: one.lane)
        assert [one.depth for one in lanes if one.lane.peer == PEER] == [3]
        assert peers == storage.outbox.peers()
        assert peers.keys() == {PEER, "other", "held"}
        assert store in {None, storage.outbox.store_id}

    def test_fault_75_receipt_for_an_unknown_message_is_ignored(self, storage: Storage) -> None:
        """Unknown messages end nothing; the cursor moves on over them."""
        send(storage.outbox)
        assert storage.outbox.receipts(PEER, LOG, [Outcome(1, new_id(), State.PROCESSED)], 1) == []
        assert storage.outbox.peers()[PEER].cursor == 1

    def test_fault_73_doubled_receipts_end_once(self, storage: Storage) -> None:
        """The same page twice ends nothing more, and the cursor never goes back in one log."""
        (only,) = send(storage.outbox, receipt=True)
        deliver(storage.outbox)
        page = [Outcome(3, only, State.PROCESSED)]
        assert storage.outbox.receipts(PEER, LOG, page, 3) == [only]
        assert storage.outbox.receipts(PEER, LOG, page, 3) == []
        assert storage.outbox.receipts(PEER, LOG, [], 1) == []
        assert storage.outbox.peers()[PEER].cursor == 3

    def test_fault_73_a_new_log_begins_a_new_cursor(self, storage: Storage) -> None:
        """A peer that lost its log counts from its beginning again."""
        send(storage.outbox)
        storage.outbox.receipts(PEER, LOG, [], 40)
        storage.outbox.receipts(PEER, OTHER_LOG, [], 2)
        assert (storage.outbox.peers()[PEER].log, storage.outbox.peers()[PEER].cursor) == (OTHER_LOG, 2)

    def test_fault_73_a_receipt_that_overtakes_the_answer_counts(self, storage: Storage) -> None:
        """The answer to a push was lost, the receipt comes first: it must not be lost with it."""
        ids = send(storage.outbox, 2, receipt=True)
        batch = taken(storage.outbox)
        assert storage.outbox.receipts(PEER, LOG, [Outcome(1, ids[0], State.PROCESSED)], 1) == [ids[0]]
        storage.outbox.settle(LANE, batch.upto)
        assert [state_of(storage.outbox, i) for i in ids] == ["processed", "accepted"]
        assert storage.outbox.peers()[PEER].awaiting == 1

    def test_fault_73_an_old_receipt_told_again_does_not_end_a_redriven_delivery(self, storage: Storage) -> None:
        """A late copy of an answer is of the life before the redrive; the receipt of the new life counts."""
        (only,) = send(storage.outbox, receipt=True)
        deliver(storage.outbox)
        storage.outbox.receipts(PEER, LOG, [Outcome(3, only, State.FAILED, "bad")], 3)
        storage.outbox.redrive(Selection(ids=(only,)))
        for old in (Outcome(3, only, State.FAILED, "bad"), Outcome(2, only, State.PROCESSED)):
            assert storage.outbox.receipts(PEER, LOG, [old], old.number) == []
            assert state_of(storage.outbox, only) == "queued"
        deliver(storage.outbox)
        assert storage.outbox.receipts(PEER, LOG, [old], old.number) == []
        assert state_of(storage.outbox, only) == "accepted"
        assert storage.outbox.receipts(PEER, LOG, [Outcome(4, only, State.PROCESSED)], 4) == [only]
        assert state_of(storage.outbox, only) == "processed"

    def test_of_two_receipts_for_one_message_the_later_counts(self, storage: Storage) -> None:
        """Buried, kicked and then done: both are in one page, and the delivery is processed."""
        (only,) = send(storage.outbox, receipt=True)
        deliver(storage.outbox)
        page = [Outcome(1, only, State.FAILED, "bad"), Outcome(2, only, State.PROCESSED)]
        assert storage.outbox.receipts(PEER, LOG, page, 2) == [only]
        assert state_of(storage.outbox, only) == "processed"

    def test_a_rewound_delivery_expires_as_before(self, storage: Storage, bench: Bench) -> None:
        """What the peer lost is queued again with the life that it had."""
        plain, only = outgoing(), outgoing(receipt=True, expires_in=30.0)
        storage.outbox.append([plain, only])
        deliver(storage.outbox)
        storage.outbox.rewind(LANE, START)
        bench.clock.advance(31)
        assert storage.outbox.sweep(LIFE)[0] == [only.id]
        assert state_of(storage.outbox, only.id) == "expired"

    def test_fault_73_a_receipt_after_we_gave_up_is_the_truth(self, storage: Storage, bench: Bench) -> None:
        """A late receipt, after the delivery died here, still makes it processed."""
        (only,) = send(storage.outbox, receipt=True)
        deliver(storage.outbox)
        bench.clock.advance(LIFE + 1)
        storage.outbox.sweep(LIFE)
        assert state_of(storage.outbox, only) == "dead"
        assert storage.outbox.receipts(PEER, LOG, [Outcome(1, only, State.PROCESSED)], 1) == [only]
        assert state_of(storage.outbox, only) == "processed"

    def test_a_receipt_is_for_its_peer_alone(self, storage: Storage) -> None:
        """Of a multicast, only the delivery to the peer that speaks is ended."""
        (only,) = send(storage.outbox, receipt=True, peers=("a", "b"))
        for peer in ("a", "b"):
            deliver(storage.outbox, LANE._replace(peer=peer))
        storage.outbox.receipts("a", LOG, [Outcome(1, only, State.PROCESSED)], 1)
        assert (state_of(storage.outbox, only, "a"), state_of(storage.outbox, only, "b")) == ("processed", "accepted")

    # ── states and peers ─────────────────────────────────────────────────────────────────────────

    def test_life_of_a_delivery(self, storage: Storage, bench: Bench) -> None:
        """Status follows a delivery from queued to processed; an unknown id has none."""
        message = outgoing(b"x" * 33, receipt=True)
        storage.outbox.append([message])
        bench.clock.advance(4)
        found = storage.outbox.status(message.id)[0]
        assert (found.id, found.peer, found.channel, found.priority) == (message.id, PEER, "orders", 5)
        assert (found.state, found.size, found.receipt, found.sequence) == (State.QUEUED, 33, True, 1)
        assert found.age == pytest.approx(4)
        deliver(storage.outbox)
        assert state_of(storage.outbox, message.id) == "accepted"
        assert storage.outbox.status(new_id()) == []

    def test_accepted_is_the_end_without_receipt(self, storage: Storage) -> None:
        """Where no receipt was asked, nothing is awaited once the peer has it."""
        (only,) = send(storage.outbox)
        deliver(storage.outbox)
        assert storage.outbox.peers()[PEER].awaiting == 0
        assert state_of(storage.outbox, only) in {"", "accepted"}

    def test_accepted_stays_listed_where_the_channel_says_so(self, bench: Bench) -> None:
        """``keep_sent`` lists accepted deliveries for that long, and a sweep forgets them after it."""
        storage = bench.open("kept", keep_sent={"orders": 60.0})
        (only,) = send(storage.outbox)
        deliver(storage.outbox)
        bench.clock.advance(50)
        storage.outbox.sweep(LIFE)
        assert state_of(storage.outbox, only) == "accepted"
        bench.clock.advance(11)
        storage.outbox.sweep(LIFE)
        assert storage.outbox.status(only) == []

    def test_hold_and_release(self, storage: Storage) -> None:
        """A held peer shows as held with its reason, until it is released; nothing is lost by it."""
        (only,) = send(storage.outbox)
        storage.outbox.hold(PEER, "moving house")
        storage.outbox.hold("never-met", "just in case")
        peers = storage.outbox.peers()
        assert (peers[PEER].held, peers[PEER].reason, peers[PEER].waiting) == (True, "moving house", 1)
        assert peers["never-met"].held
        assert state_of(storage.outbox, only) in {"queued", "held"}
        storage.outbox.release(PEER)
        storage.outbox.release("nobody")
        assert not storage.outbox.peers()[PEER].held
        assert [entry.id for entry in taken(storage.outbox).entries] == [only]

    def test_hold_is_durable(self, storage: Storage, bench: Bench) -> None:
        """A held peer is held after reopening."""
        send(storage.outbox)
        storage.outbox.hold(PEER, "moving house")
        assert bench.reopen(storage).outbox.peers()[PEER].held

    # ── ends by time ─────────────────────────────────────────────────────────────────────────────

    def test_sweep_expires_and_says_when_to_come_again(self, storage: Storage, bench: Bench) -> None:
        """An unsent delivery past its expiry is expired; the next due time is told beforehand."""
        only, other = send(storage.outbox, expires_in=10.0) + send(storage.outbox)
        ended, due = storage.outbox.sweep(LIFE)
        assert ended == []
        assert due == pytest.approx(bench.clock.now() + 10)
        bench.clock.advance(10.5)
        ended, due = storage.outbox.sweep(LIFE)
        assert ended == [only]
        assert due is not None
        assert (state_of(storage.outbox, only), state_of(storage.outbox, other)) == ("expired", "queued")

    def test_sweep_gives_up_after_life(self, storage: Storage, bench: Bench) -> None:
        """Queued too long and awaiting a receipt too long both end as dead, with a reason."""
        waiting, accepted = send(storage.outbox, 2, receipt=True)[::-1]
        deliver(storage.outbox, count=1)
        bench.clock.advance(LIFE - 10)
        assert storage.outbox.sweep(LIFE)[0] == []
        bench.clock.advance(11)
        assert sorted(storage.outbox.sweep(LIFE)[0]) == sorted([waiting, accepted])
        assert {state_of(storage.outbox, i) for i in (waiting, accepted)} == {"dead"}
        assert storage.outbox.status(waiting)[0].reason

    def test_fault_71_72_the_wall_clock_decides_nothing(self, storage: Storage, bench: Bench) -> None:
        """A jump of the wall clock by a year expires, kills and delays nothing."""
        send(storage.outbox, 2, expires_in=60.0)
        for jump in (366 * 86400.0, -2 * 366 * 86400.0):
            bench.clock.step_wall(jump)
            assert storage.outbox.sweep(LIFE)[0] == []
        assert len(taken(storage.outbox).entries) == 2

    def test_ended_records_are_forgotten_after_their_time(self, bench: Bench) -> None:
        """What ended stays known for ``remember`` seconds and goes after it."""
        storage = bench.open("short", remember=100.0)
        (only,) = send(storage.outbox)
        storage.outbox.dead_letter(LANE, 1, "poison")
        bench.clock.advance(90)
        storage.outbox.sweep(LIFE)
        assert state_of(storage.outbox, only) == "dead"
        bench.clock.advance(11)
        storage.outbox.sweep(LIFE)
        assert storage.outbox.status(only) == []
        assert storage.outbox.envelope(only) is None

    @pytest.mark.parametrize("killed", [False, True])
    def test_what_is_in_no_lane_is_sent_again_when_the_peer_has_lost_it(self, storage: Storage, killed: bool) -> None:
        """Accepted before the numbers began anew, and the peer's store is another: flagged, also after a kill."""
        (lost,) = send(storage.outbox, receipt=True)
        deliver(storage.outbox)
        storage.outbox.renumber()
        storage.outbox.receipts(PEER, LOG, [], 0)
        (kept,) = send(storage.outbox, receipt=True)
        deliver(storage.outbox)
        events: list[object] = []
        for log in (LOG, OTHER_LOG):
            if killed and log == OTHER_LOG:
                (one,) = storage.outbox.status(lost)
                assert storage.outbox.move([DeliveryMove(one, State.DEAD, LOST)]) == [True]
            search = OutsideSearch(storage.outbox, PEER, on_reset="resend", event=lambda *told: events.append(told))
            while not search.is_over(LOG, log):
                pass  # a step each time
            assert state_of(storage.outbox, kept) == "accepted"
            assert state_of(storage.outbox, lost) == ("accepted" if log == LOG else "queued")
        assert [entry.id for entry in taken(storage.outbox).entries if entry.possible_duplicate] == [lost]
        assert len(events) == 1

    def test_the_oldest_die_first_also_after_the_numbers_began_anew_twice(self, storage: Storage, bench: Bench) -> None:
        """What waits for a receipt since longer is not kept alive by what was sent later."""
        (old,) = send(storage.outbox, receipt=True)
        deliver(storage.outbox)
        storage.outbox.renumber()
        bench.clock.advance(100)
        (young,) = send(storage.outbox, receipt=True)
        deliver(storage.outbox)
        storage.outbox.renumber()
        bench.clock.advance(LIFE - 99)
        assert storage.outbox.sweep(LIFE)[0] == [old]
        bench.clock.advance(100)
        assert storage.outbox.sweep(LIFE)[0] == [young]

    # ── redrive and wipe ─────────────────────────────────────────────────────────────────────────

    def test_redrive_sends_again_at_the_end_of_the_lane(self, storage: Storage, bench: Bench) -> None:
        """A dead delivery gets a new number and a new life; its content is the old one."""
        first, second = send(storage.outbox, 2)
        storage.outbox.dead_letter(LANE, 1, "poison")
        bench.clock.advance(LIFE / 2)
        assert storage.outbox.redrive(Selection(ids=(first,))) == 1
        assert [(e.sequence, e.id) for e in taken(storage.outbox).entries] == [(2, second), (3, first)]
        assert taken(storage.outbox).entries[1].envelope == b"envelope 0"
        bench.clock.advance(LIFE / 2 + 1)
        assert storage.outbox.sweep(LIFE)[0] == [second]
        assert state_of(storage.outbox, first) == "queued"

    def test_redrive_keeps_the_order_of_sending(self, storage: Storage, bench: Bench) -> None:
        """Deliveries that ended in another order than they were sent are sent again as they were sent first."""
        messages = [outgoing(expires_in=30.0 - number) for number in range(3)]
        storage.outbox.append(messages)
        for _ in messages:
            bench.clock.advance(30.0 - len(messages))
            storage.outbox.sweep(LIFE)
        assert storage.outbox.redrive(Selection()) == 3
        assert [entry.id for entry in taken(storage.outbox).entries] == [message.id for message in messages]

    def test_redrive_gives_an_expired_one_its_time_again(self, storage: Storage, bench: Bench) -> None:
        """An expired delivery that is sent again does not expire at once."""
        (only,) = send(storage.outbox, expires_in=10.0)
        bench.clock.advance(11)
        storage.outbox.sweep(LIFE)
        assert storage.outbox.redrive(Selection(states=frozenset({State.EXPIRED}))) == 1
        storage.outbox.sweep(LIFE)
        assert state_of(storage.outbox, only) == "queued"

    def test_redrive_leaves_the_rest_alone(self, storage: Storage) -> None:
        """Queued, accepted, processed and cancelled deliveries are not sent again, whatever is selected."""
        ids = send(storage.outbox, 4, receipt=True)
        deliver(storage.outbox, count=2)
        storage.outbox.receipts(PEER, LOG, [Outcome(1, ids[0], State.PROCESSED)], 1)
        storage.outbox.cancel(ids[2])
        before = [state_of(storage.outbox, i) for i in ids]
        assert storage.outbox.redrive(Selection()) == 0
        assert [state_of(storage.outbox, i) for i in ids] == before

    def test_fault_78_wipe_never_removes_live_deliveries(self, storage: Storage) -> None:
        """Whatever is selected, queued and awaited deliveries stay."""
        ids = send(storage.outbox, 4, receipt=True)
        deliver(storage.outbox, count=2)
        storage.outbox.receipts(PEER, LOG, [Outcome(1, ids[0], State.PROCESSED)], 1)
        storage.outbox.cancel(ids[2])
        taken(storage.outbox)
        assert storage.outbox.wipe(Selection(states=frozenset({State.QUEUED, State.ACCEPTED}))) == 0
        assert storage.outbox.wipe(Selection()) == 2
        assert [state_of(storage.outbox, i) for i in ids] == ["", "accepted", "", "queued"]
        assert storage.outbox.envelope(ids[3]) == b"envelope 3"

    def test_selection_restricts_in_every_field(self, storage: Storage, bench: Bench) -> None:
        """Ids, states, channel, peer and age restrict what wipe means."""
        old = send(storage.outbox, 2)
        bench.clock.advance(100)
        send(storage.outbox, channel="b")
        send(storage.outbox, peers=("other",))
        for delivery in [delivery for _, delivery in storage.outbox.scan(Selection())]:
            storage.outbox.cancel(delivery.id)
            bench.clock.advance(100)
        assert storage.outbox.wipe(Selection(channel="b")) == 1
        assert storage.outbox.wipe(Selection(peer="other")) == 1
        assert storage.outbox.wipe(Selection(older_than=350.0)) == 1
        assert storage.outbox.wipe(Selection(ids=(old[0],))) == 0
        assert storage.outbox.wipe(Selection(states=frozenset({State.CANCELLED}))) == 1

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def test_scan_pages_without_gap_or_double(self, storage: Storage) -> None:
        """Paging by cursor shows each delivery once, also while earlier ones are wiped."""
        ids = send(storage.outbox, 25, peers=("a", "b"))
        seen: list[Any] = []
        cursor = (0, 0)
        while page := storage.outbox.scan(Selection(), cursor, 7):
            assert len(page) <= 7
            seen += [(d.id, d.peer) for _, d in page]
            cursor = page[-1][0]
            storage.outbox.cancel(page[0][1].id)
            storage.outbox.wipe(Selection(ids=(page[0][1].id,)))
        assert len(seen) == len(set(seen))
        assert {i for i, _ in seen} == set(ids)

    def test_counts_of_deliveries_equal_a_recount(self, storage: Storage) -> None:
        """The kept figures are those of counting everything anew."""
        ids = send(storage.outbox, 6, receipt=True) + send(storage.outbox, 2, channel="b", peers=("a", "b"))
        deliver(storage.outbox, count=3)
        storage.outbox.receipts(PEER, LOG, [Outcome(1, ids[0], State.PROCESSED)], 1)
        storage.outbox.cancel(ids[4])
        storage.outbox.dead_letter(LANE, 6, "poison")
        recount: dict[tuple[str, str], Counter[str]] = {}
        for _, delivery in storage.outbox.scan(Selection(), limit=1000):
            recount.setdefault((delivery.peer, delivery.channel), Counter())[str(delivery.state)] += 1
        kept = storage.outbox.counts()
        states = {str(state) for state in State}
        for at, numbers in recount.items():
            assert {k: n for k, n in kept[at].items() if k in states and n} == dict(numbers)
        assert storage.outbox.peers()[PEER].waiting == 1

    def test_closed_outbox_refuses(self, storage: Storage) -> None:
        """Closing twice is fine; every use after it says Closed."""
        shut(storage.outbox, self.patience)
        shut(storage.outbox, self.patience)
        for use in (lambda: storage.outbox.append([outgoing()]), storage.outbox.lanes, storage.outbox.peers,
                    lambda: storage.outbox.status(new_id()), lambda: storage.outbox.take(LANE, 1, 1)):  # fmt: skip
            with pytest.raises(Closed):
                use()
