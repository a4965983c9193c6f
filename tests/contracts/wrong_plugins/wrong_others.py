"""Observers and pairs of nodes with one mistake each; see test_wrong_plugins.py."""

import contextlib
import time

import pytest

from dropr_core.builtin import loopback
from dropr_core.builtin.memory import MemoryStorage
from dropr_core.hookspecs import hookimpl
from dropr_core.testing import (
    NodeCase,
    NodeContract,
    ObserverCase,
    ObserverContract,
)
from dropr_core.testing.contract import PATIENCE

# ── observers ────────────────────────────────────────────────────────────────────────────────────


class WrongObserver(ObserverContract):
    __test__ = False
    patience = 1.0

    class made:  # noqa: N801
        @hookimpl
        def dropr_peer_down(self, peer, reason):
            self.last = f"{peer}: {reason}"

    @pytest.fixture
    def observer_case(self):
        return ObserverCase(self.made)


class TestGoodObserver(WrongObserver):
    """The control."""

    __test__ = True
    patience = PATIENCE


class TestObserverInventsAnArgument(WrongObserver):
    __test__ = True
    caught_by = "test_its_hooks_are_those_of_dropr"

    class made:  # noqa: N801
        @hookimpl
        def dropr_peer_down(self, peer, why):
            """No hook has a ``why``."""


class TestObservesNothing(WrongObserver):
    __test__ = True
    caught_by = "test_its_hooks_are_those_of_dropr"

    class made:  # noqa: N801
        def dropr_peer_down(self, peer, reason):
            """The marker is missing."""


class TestObserverKnowsItsEventsOnly(WrongObserver):
    __test__ = True
    caught_by = "test_every_event_is_taken"

    class made:  # noqa: N801
        @hookimpl
        def dropr_store_event(self, event, details):
            {"full": print, "rolled_back": print}[event]


class TestObserverAddsAnyHeader(WrongObserver):
    __test__ = True
    caught_by = "test_what_it_adds_to_a_message_may_travel"

    class made:  # noqa: N801
        @hookimpl
        def dropr_message_headers(self, channel):
            return {"x-mine": channel}


class TestObserverSwallowsWhatAHandlerRaises(WrongObserver):
    __test__ = True
    caught_by = "test_a_handler_goes_on_within_it"

    class made:  # noqa: N801
        @hookimpl
        def dropr_message_handling(self, facts):
            return contextlib.suppress(Exception)


class TestObserverIsSlow(WrongObserver):
    __test__ = True
    caught_by = "test_it_is_quick"

    class made:  # noqa: N801
        @hookimpl
        def dropr_peer_up(self, peer):
            time.sleep(0.03)


# ── two nodes ────────────────────────────────────────────────────────────────────────────────────


class WrongNodes(NodeContract):
    __test__ = False
    patience = 1.0

    def plant(self, storage):
        """Put the mistake in."""

    @pytest.fixture
    def node_case(self):
        hub = loopback.Hub()

        def make(context):
            storage = MemoryStorage(context)
            self.plant(storage)
            return storage

        return NodeCase(make, lambda: loopback.LoopbackTransport(hub), "loopback://0", between_processes=False)


class TestNodesLoseTheResult(WrongNodes):
    __test__ = True
    caught_by = "test_results_come_home"

    def plant(self, storage):
        import attrs

        receipts = storage.outbox.receipts
        storage.outbox.receipts = lambda peer, log, outcomes, upto: receipts(
            peer, log, [attrs.evolve(outcome, result=None) for outcome in outcomes], upto
        )


class TestNodesDoubleWhatComesTwice(WrongNodes):
    __test__ = True
    caught_by = "test_one_kind_of_fault and repeated"

    def plant(self, storage):
        accept = storage.inbox.accept

        def broken(arrivals):
            for arrival in arrivals:
                storage.inbox._data.heads[arrival.source] = arrival.after
            return accept(arrivals)

        storage.inbox.accept = broken


class TestNodesForgetPriority(WrongNodes):
    __test__ = True
    caught_by = "test_urgent_messages_go_first"

    def plant(self, storage):
        add = storage.inbox._add
        storage.inbox._add = lambda channel, priority, sender, job: add(channel, 5, sender, job)


class TestNodesLoseWhatTheyTook(WrongNodes):
    """The head moves on, one message in ten is dropped."""

    __test__ = True
    caught_by = "test_everything_arrives_once_and_in_order"

    def plant(self, storage):
        add = storage.inbox._add
        storage.inbox._add = lambda channel, priority, sender, job: (
            add(channel, priority, sender, job) if job.sequence % 10 else None
        )
