"""Storages that lose or double a row where much comes at once, or cut what is large; see wrong_storages.py."""

from contextlib import nullcontext

import attrs
import pytest
from contracts.wrong_plugins.wrong_storages import Wrong

from dropr_core.contracts.inbox import Inbox
from dropr_core.contracts.storage import Entry, Selection
from dropr_core.model.message import State

PAGE = 1000


def around(half, name, wrong):
    """Let ``wrong(inner, …)`` stand before a method."""
    inner = getattr(half, name)
    setattr(half, name, lambda *words, **options: wrong(inner, *words, **options))


class TestAppendsAllButTheLastOfAFullPage(Wrong):
    __test__ = True
    caught_by = "test_batches_of_any_size_are_appended_taken_and_settled"

    def plant(self, storage):
        def wrong(append, messages):
            placed = append(messages)
            if len(messages) == 1024:
                (lane,) = storage.outbox._data.logs.values()
                storage.outbox._forget(lane.items[lane.last])
            return placed

        around(storage.outbox, "append", wrong)


class TestTakesTheLastOfAPageTwice(Wrong):
    __test__ = True
    caught_by = "test_batches_of_any_size_are_appended_taken_and_settled"

    def plant(self, storage):
        def wrong(take, lane, count, size, **options):
            batch = take(lane, count, size, **options)
            if count == 512:
                batch = batch._replace(entries=[*batch.entries[:-2], batch.entries[-1], batch.entries[-1]])
            return batch

        around(storage.outbox, "take", wrong)


class TestSettlesAllButTheLast(Wrong):
    """It counts from 0 where 128 deliveries end at once."""

    __test__ = True
    caught_by = "test_batches_of_any_size_are_appended_taken_and_settled"

    def plant(self, storage):
        def wrong(settle, lane, head, rejected=()):
            log = storage.outbox._data.logs[lane]
            if head.sequence - log.head.sequence == 128:
                entry = log.items[head.sequence - 1]
                head = head._replace(sequence=entry.sequence, id=entry.message.id)
            settle(lane, head, rejected)

        around(storage.outbox, "settle", wrong)


class TestPagesOfDeliveriesOverlap(Wrong):
    __test__ = True
    caught_by = "test_pages_of_deliveries_of_any_size"

    def plant(self, storage):
        def wrong(scan, selection, after=(0, 0), limit=100):
            return scan(selection, (after[0] - 1, after[1]) if limit == 257 else after, limit)

        around(storage.outbox, "scan", wrong)


class TestLooksUpAThousandIds(Wrong):
    """Its statement has room for no more, and what is over is left out."""

    __test__ = True
    caught_by = "test_pages_of_deliveries_of_any_size"

    def plant(self, storage):
        def wrong(scan, selection, after=(0, 0), limit=100):
            return scan(attrs.evolve(selection, ids=selection.ids[:PAGE]), after, limit)

        around(storage.outbox, "scan", wrong)


class TestReadsAThousandReceipts(Wrong):
    """The rest of a page is lost, and the cursor moves over it."""

    __test__ = True
    caught_by = "test_receipts_by_thousands_end_each_delivery"

    def plant(self, storage):
        around(storage.outbox, "receipts", lambda inner, peer, log, page, upto: inner(peer, log, page[:PAGE], upto))


class TestRedrivesOnePage(Wrong):
    __test__ = True
    caught_by = "test_what_ends_by_thousands_is_sent_again_and_forgotten"

    def plant(self, storage):
        around(storage.outbox, "move", lambda move, moves: move(moves[:PAGE]) + [False] * len(moves[PAGE:]))


class TestSweepsAndForgetsTheLastOfAPage(Wrong):
    """What ends last in a call is not told to anybody."""

    __test__ = True
    caught_by = "test_what_ends_by_thousands_is_sent_again_and_forgotten"

    def plant(self, storage):
        def wrong(sweep, life):
            ended, due = sweep(life)
            return (ended[:-1] if len(ended) == PAGE else ended), due

        around(storage.outbox, "sweep", wrong)


class TestAcceptsAllButTheLast(Wrong):
    __test__ = True
    caught_by = "test_batches_of_any_size_are_accepted_claimed_and_settled"

    def plant(self, storage):
        def wrong(accept, arrivals):
            return accept([one._replace(entries=one.entries[:128] if len(one.entries) == 129 else one.entries)
                           for one in arrivals])  # fmt: skip

        around(storage.inbox, "accept", wrong)


class TestClaimsMoreThanItGives(Wrong):
    """One message of a page is leased, and nobody ever sees it."""

    __test__ = True
    caught_by = "test_batches_of_any_size_are_accepted_claimed_and_settled"

    def plant(self, storage):
        def wrong(claim, channels, limit, consumer):
            claims = claim(channels, limit, consumer)
            return claims[:-1] if len(claims) == 257 else claims

        around(storage.inbox, "claim", wrong)


class TestSettlesAThousand(Wrong):
    """It says that all were acknowledged."""

    __test__ = True
    caught_by = "test_batches_of_any_size_are_accepted_claimed_and_settled"

    def plant(self, storage):
        around(storage.inbox, "settle", lambda settle, each: settle(each[:PAGE]) + [True] * len(each[PAGE:]))


class TestPagesOfMessagesSkipOne(Wrong):
    __test__ = True
    caught_by = "test_pages_of_messages_of_any_size"

    def plant(self, storage):
        around(storage.inbox, "scan", lambda scan, selection, after=0, limit=100: scan(
            selection, after + (limit == PAGE and after > PAGE), limit))  # fmt: skip


class TestOutcomesEndAtAPage(Wrong):
    """The first outcome after a full page is jumped over."""

    __test__ = True
    caught_by = "test_outcomes_by_thousands_go_home"

    def plant(self, storage):
        def wrong(outcomes, sender, log, after, limit, *most):
            return outcomes(sender, log, after + (limit == 1025), limit, *most)

        around(storage.inbox, "outcomes", wrong)


class TestGivesBackAThousandLeases(Wrong):
    __test__ = True
    caught_by = "test_leases_by_thousands_are_given_back"

    def plant(self, storage):
        def retire(consumer):
            mine = [one for one in storage.inbox.scan(Selection(), limit=PAGE) if one.consumer == consumer]
            Inbox.retire(storage.inbox, consumer) if len(mine) < PAGE else storage.inbox.consumers.release(consumer)

        storage.inbox.retire = retire


class TestKicksAThousand(Wrong):
    __test__ = True
    caught_by = "test_what_waits_by_thousands_is_kicked_expires_and_is_forgotten"

    def plant(self, storage):
        around(storage.inbox, "kick", lambda kick, selection: kick(attrs.evolve(selection, ids=selection.ids[:PAGE])))


class TestCutsEnvelopes(Wrong):
    """The length of an envelope has two bytes."""

    __test__ = True
    caught_by = "test_envelopes_of_any_size_stay_as_they_are"

    def plant(self, storage):
        around(storage.inbox, "claim", lambda claim, *words: [
            one._replace(envelope=one.envelope[:65536]) for one in claim(*words)])  # fmt: skip


class TestCutsWhatIsSent(Wrong):
    __test__ = True
    caught_by = "test_envelopes_of_any_size_stay_as_they_are"

    def plant(self, storage):
        def wrong(take, *words, **options):
            batch = take(*words, **options)
            cut = [Entry(one.sequence, one.id, one.envelope[: 1 << 20]) for one in batch.entries] if batch else []
            return batch and batch._replace(entries=cut)

        around(storage.outbox, "take", wrong)


class TestPutsWithoutDelay(Wrong):
    __test__ = True
    caught_by = "test_what_is_put_keeps_its_times_and_its_receipt"

    def plant(self, storage):
        around(storage.inbox, "put", lambda put, channel, priority, sender, jobs: put(
            channel, priority, sender, [one._replace(due_in=None) for one in jobs]))  # fmt: skip


class TestPutsInMinutes(Wrong):
    """Its delays are sixty times as long."""

    __test__ = True
    caught_by = "test_what_is_put_keeps_its_times_and_its_receipt"

    def plant(self, storage):
        around(storage.inbox, "put", lambda put, channel, priority, sender, jobs: put(
            channel, priority, sender, [one._replace(due_in=(one.due_in or 0) * 60) for one in jobs]))  # fmt: skip


class TestKeepsNothingThatWasAcknowledged(Wrong):
    __test__ = True
    caught_by = "test_what_is_acknowledged_together_is_kept_as_long"

    def plant(self, storage):
        around(storage.inbox, "acknowledge", lambda acknowledge, claims, keep=0.0: acknowledge(claims))


class TestKeepsForEver(Wrong):
    """What was acknowledged is never forgotten."""

    __test__ = True
    caught_by = "test_what_is_acknowledged_together_is_kept_as_long"

    def plant(self, storage):
        def wrong(acknowledge, claims, keep=0.0):
            done = acknowledge(claims, keep)
            for item in storage.inbox._data.items.values():
                if item.state is State.DONE:
                    item.keep = 1e9
            return done

        around(storage.inbox, "acknowledge", wrong)


class TestCountsWhatWaitsAtEachAppend(Wrong):
    __test__ = True
    caught_by = "test_what_a_call_costs_does_not_grow"

    def plant(self, storage):
        def wrong(append, messages):
            waiting = sum(item.state is State.QUEUED for item in storage.outbox._data.items.values())
            assert waiting >= 0
            return append(messages)

        around(storage.outbox, "append", wrong)


class TestSortsWhatWaitsInALibrary(Wrong):
    """Python sees one call; the library tells how many rows it walked over."""

    __test__ = True
    caught_by = "test_what_a_call_costs_does_not_grow"
    walked = 0

    def plant(self, storage):
        def wrong(put, *words):
            self.walked += len(sorted(storage.inbox._data.items))
            put(*words)

        around(storage.inbox, "put", wrong)

    @pytest.fixture
    def storage_case(self):
        return attrs.evolve(self.case(), work=lambda: nullcontext(lambda: self.walked))
