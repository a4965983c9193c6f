"""Storages with one mistake each in what they do with messages. ``caught_by`` names the test of the kit that must fail;
see test_wrong_plugins.py. Owns `Wrong`, of which those in wrong_abilities.py and wrong_bulk.py are made too.
"""

import os
import threading

import pytest
from contracts.test_memory import GROWS

from dropr_core.builtin.memory import MemoryStorage
from dropr_core.builtin.memory_outbox import MemoryOutbox
from dropr_core.contracts.inbox_records import refusal
from dropr_core.contracts.storage import Accepted
from dropr_core.errors import QueueFull
from dropr_core.model.message import State
from dropr_core.model.names import START
from dropr_core.testing import StorageCase, StorageContract

LONG = 20.0
"""Seconds for which something hangs here: far longer than the patience of these tests."""


class Wrong(StorageContract):
    """The storage `memory` with a mistake."""

    __test__ = False
    patience = 2.0
    made = MemoryStorage

    def plant(self, storage):
        """Put the mistake in."""

    def case(self):
        def make(context):
            storage = self.made(context)
            self.plant(storage)
            return storage

        return StorageCase(make, grows=GROWS)

    @pytest.fixture
    def storage_case(self):
        return self.case()


class TestIgnoresAfter(Wrong):
    """A repeated push enters twice: the rule of log matching is not applied."""

    __test__ = True
    caught_by = "test_arrival_that_does_not_match_stores_nothing"

    def plant(self, storage):
        accept = storage.inbox.accept

        def broken(arrivals):
            for arrival in arrivals:
                storage.inbox._data.heads[arrival.source] = arrival.after
            return accept(arrivals)

        storage.inbox.accept = broken


class TestDoublesOnAccept(Wrong):
    __test__ = True
    caught_by = "test_arrival_that_follows_the_head_is_taken"

    def plant(self, storage):
        add = storage.inbox._add
        storage.inbox._add = lambda *job: [add(*job), add(*job)]


class TestSaysTakenAndStoresNothing(Wrong):
    __test__ = True
    caught_by = "test_arrival_that_follows_the_head_is_taken"

    def plant(self, storage):
        storage.inbox.accept = lambda arrivals: [Accepted(arrival.upto, True) for arrival in arrivals]


class TestTakesWhatFollowsOfACall(Wrong):
    """As `accept` does."""

    __test__ = True
    caught_by = "test_one_that_does_not_follow_stops_all"

    def plant(self, storage):
        storage.inbox.accept_together = storage.inbox.accept


class TestLooksBeforeItTakes(Wrong):
    """In two steps: whoever is faster in between is not seen."""

    __test__ = True
    caught_by = "test_of_calls_at_once_one_is_taken_and_whole"

    def plant(self, storage):
        accept, looked = storage.inbox.accept, threading.Barrier(4)

        def broken(arrivals):
            refused = refusal(arrivals, lambda source: storage.inbox._data.heads.get(source, START))
            looked.wait(LONG)
            return refused or accept(arrivals)

        storage.inbox.accept_together = broken


class TestForgetsPriority(Wrong):
    __test__ = True
    caught_by = "test_claim_orders_by_priority_then_arrival"

    def plant(self, storage):
        add = storage.inbox._add
        storage.inbox._add = lambda channel, priority, sender, job: add(channel, 5, sender, job)


class TestGivesALeasedMessageTwice(Wrong):
    __test__ = True
    caught_by = "test_a_leased_message_is_nobody_elses"

    def plant(self, storage):
        claim = storage.inbox.claim

        def broken(channels, limit, consumer):
            for item in storage.inbox._data.items.values():
                if item.state is State.LEASED:
                    item.state = State.READY
            return claim(channels, limit, consumer)

        storage.inbox.claim = broken


class TestLetsAStaleLeaseSettle(Wrong):
    __test__ = True
    caught_by = "test_fault_60_a_stale_token_changes_nothing"

    def plant(self, storage):
        settle = storage.inbox.settle

        def broken(changes):
            for change in changes:
                item = storage.inbox._data.items.get(change.claim.number)
                if item is not None and item.state is State.LEASED:
                    item.token = change.claim.token
            return settle(changes)

        storage.inbox.settle = broken


class TestLosesTheResult(Wrong):
    __test__ = True
    caught_by = "test_receipt_ends_a_delivery_with_its_result"

    def plant(self, storage):
        import attrs

        receipts = storage.outbox.receipts
        storage.outbox.receipts = lambda peer, log, outcomes, upto: receipts(
            peer, log, [attrs.evolve(outcome, result=None) for outcome in outcomes], upto
        )


class TestRaisesForeignExceptions(Wrong):
    """What the medium says comes out as it is."""

    __test__ = True
    caught_by = "test_full_inbox_takes_nothing_of_the_call"

    def plant(self, storage):
        accept = storage.inbox.accept

        def broken(arrivals):
            try:
                return accept(arrivals)
            except QueueFull as full:
                raise OSError(28, "No space left on device") from full

        storage.inbox.accept = broken


class TestShowsOtherThanTheModel(Wrong):
    """A mistake that no single test names: the random lives find it."""

    __test__ = True
    caught_by = "test_random_lives"

    def plant(self, storage):
        wipe = storage.outbox.wipe

        def broken(selection):
            storage.outbox._data.items.clear()
            return wipe(selection)

        storage.outbox.wipe = broken


class TestTellsFasterAndOtherwise(Wrong):
    """An override of the second tier says something else than the first tier shows."""

    __test__ = True
    caught_by = "test_an_override_answers_as_the_default"

    def plant(self, storage):
        oldest = storage.inbox.oldest
        storage.inbox.oldest = lambda: {channel: age + 1 for channel, age in oldest().items()}


class TestWipesFasterAndMore(Wrong):
    """An override of the second tier does more than the default: it forgets what still waits for its receipt."""

    __test__ = True
    caught_by = "test_an_override_changes_what_the_default_changes"

    def plant(self, storage):
        def wipe(selection):
            accepted = [item for item in storage.outbox._data.items.values() if item.state is State.ACCEPTED]
            for item in accepted:
                storage.outbox._forget(item)
            return len(accepted) + MemoryOutbox.wipe(storage.outbox, selection)

        storage.outbox.wipe = wipe


class TestHangsWhereManyAppend(Wrong):
    """Takes a lock that only the first thread gets out of again."""

    __test__ = True
    caught_by = "test_many_threads_append_without_gap_or_double"

    def plant(self, storage):
        append, first = storage.outbox.append, []

        def broken(messages):
            first.append(threading.current_thread())  # not its number: that is another thread's when it has ended
            if threading.current_thread() is not first[0]:
                threading.Event().wait(LONG)
            return append(messages)

        storage.outbox.append = broken


class TestHangsWhereManyClaim(Wrong):
    """The same on the other side."""

    __test__ = True
    caught_by = "test_many_consumers_get_each_message_once"

    def plant(self, storage):
        claim, first = storage.inbox.claim, []

        def broken(channels, limit, consumer):
            first.append(consumer)  # each claims at least once, whoever was so quick as to get all
            if consumer != first[0]:
                threading.Event().wait(LONG)
            return claim(channels, limit, consumer)

        storage.inbox.claim = broken


class TestGivesOneMessageToMany(Wrong):
    """What is claimed stays where it was."""

    __test__ = True
    caught_by = "test_many_consumers_get_each_message_once"

    def plant(self, storage):
        settle = storage.inbox.settle
        storage.inbox.settle = lambda changes: [settle([change]) and True for change in changes]
        claim, kept = storage.inbox.claim, []

        def broken(channels, limit, consumer):
            given = claim(channels, limit, consumer)
            again = kept[:1] if given else []
            kept[:] = given[:1]
            return [*given, *again]

        storage.inbox.claim = broken


class TestHangsOnClose(Wrong):
    """Waits for a thread that is waiting for it."""

    __test__ = True
    caught_by = "test_closed_inbox_refuses"

    def plant(self, storage):
        close, waited = storage.close, []

        def broken():
            if not waited:
                waited.append(True)
                threading.Event().wait(LONG)
            close()

        storage.close = broken


class TestKeepsADescriptor(Wrong):
    """Its files are closed when the collector comes along, or never."""

    __test__ = True
    caught_by = "test_closed_outbox_refuses"
    leaks = True

    def plant(self, storage):
        os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
