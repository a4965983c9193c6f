"""Contract tests of a storage beneath consumers: an attempt counts also where the store did not take in its end.

Owns what becomes of a message that was begun while the store refuses its settlement, or forgets its lease as a server
does that crashes within the flush interval. Must not know any storage by name.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dropr_core.api.consumer import Consumer
from dropr_core.api.node import Node
from dropr_core.api.prefetching import PrefetchingConsumer
from dropr_core.api.received import Received
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.contracts.inbox import LEASES
from dropr_core.contracts.storage import JobMove, Selection
from dropr_core.errors import LeaseLost, StoreError, WriteFailed
from dropr_core.model.message import State
from dropr_core.testing.bench import Bench, StorageTests
from dropr_core.testing.builders import CHANNEL, SENDER
from dropr_core.testing.contract import PATIENCE, shut

ONCE = "once"
"""A channel whose messages are tried once."""
CHANNELS = {
    name: {"attempts": attempts, "retry_backoff_min": "1ms", "retry_backoff_max": "1ms"}
    for name, attempts in ((CHANNEL, 5), (ONCE, 1))
}

Opener = Callable[[], Node]


class AttemptsContract(StorageTests):
    """Attempts are exact, whatever the store refused in between."""

    @pytest.fixture
    def opened(self, bench: Bench) -> Iterator[Opener]:
        """Opens a node on the storage; nothing is settled by time alone."""
        nodes: list[Node] = []

        def opened() -> Node:
            mapping = {"node": SENDER, "data": str(bench.directory), "channels": CHANNELS, "limits": {"min_free": 0}}
            config = from_mapping(mapping, bench.directory)
            runtime = Runtime.open(config, make_storage=lambda context: bench.make(context.data, context.clock))
            nodes.append(Node(runtime))
            runtime.settler.mark = lambda: None
            return nodes[-1]

        yield opened
        for node in nodes:
            shut(node, self.patience)

    @pytest.fixture
    def node(self, opened: Opener) -> Node:
        """An open node."""
        return opened()

    @pytest.fixture(params=[Consumer, PrefetchingConsumer])
    def consumer(self, request: pytest.FixtureRequest, node: Node) -> Iterator[Consumer]:
        """One that settles at once, and one with a lease sheet, if the storage has any."""
        consumer = request.param(node.runtime, [CHANNEL, ONCE])
        yield consumer
        shut(consumer, self.patience)

    @pytest.fixture
    def refusing(self, node: Node) -> Iterator[pytest.MonkeyPatch]:
        """The store refuses every settlement, until this is undone."""

        def refuse(*_: Any) -> None:
            raise WriteFailed("the disk is away")

        with pytest.MonkeyPatch.context() as patch:
            for name in ("settle", "acknowledge"):
                patch.setattr(type(node.inbox), name, refuse)
            yield patch

    @staticmethod
    def taken(consumer: Consumer) -> Received:
        """The next message, begun."""
        for _ in range(100):
            consumer.prepare()
            found = consumer.take() if isinstance(consumer, PrefetchingConsumer) else next(iter(consumer.claim()), None)
            if found is not None:
                return found
            consumer.wait(0.1)  # at most until what is delayed is due
        raise AssertionError("it never comes again")

    @staticmethod
    def next_attempts(node: Node, channel: str = CHANNEL, *, wait: float = PATIENCE) -> list[int]:
        """With which attempt it is given next."""
        return [message.attempt for message in node.receive(channel, wait=wait, limit=1)]

    def comes_no_more(self, node: Node, channel: str = CHANNEL) -> bool:
        """Whether it is not given again: what there is to find out about it is found out by the first look."""
        return self.next_attempts(node, channel, wait=0.1) == []

    @staticmethod
    def forget(node: Node) -> None:
        """The store loses all leases, and with them that they ever were."""
        moves = [JobMove(one, State.READY, attempts=one.attempts - 1) for one in node.inbox.all(LEASES)]
        assert moves
        assert node.inbox.move(moves) == [True] * len(moves)

    def refuse(self, received: Received) -> None:
        """Its failure cannot be written down, nor can it be given back."""
        with pytest.raises(StoreError):
            received.release(0, "it failed")
        with pytest.raises(StoreError):
            received.requeue()

    # ── the store refuses ────────────────────────────────────────────────────────────────────────

    def test_what_was_refused_counts_when_its_consumer_closes(
        self, node: Node, consumer: Consumer, request: pytest.FixtureRequest
    ) -> None:
        """The store is back when the consumer closes: what was begun is written down then, and not as untried."""
        node.put(b"x", channel=CHANNEL)
        received = self.taken(consumer)
        refusing = request.getfixturevalue("refusing")
        self.refuse(received)
        refusing.undo()
        shut(consumer, self.patience)
        (job,) = node.inbox.scan(Selection())
        assert (job.attempts, job.reason) == (1, "it failed")
        assert self.next_attempts(node) == [2]

    def test_what_is_refused_to_the_end_counts_when_it_is_found(
        self, node: Node, consumer: Consumer, request: pytest.FixtureRequest
    ) -> None:
        """The store is away still when the consumer closes: whoever finds its leases counts the attempt."""
        node.put(b"x", channel=CHANNEL)
        received = self.taken(consumer)
        refusing = request.getfixturevalue("refusing")
        self.refuse(received)
        shut(consumer, self.patience)
        refusing.undo()
        assert self.next_attempts(node) == [2]

    def test_what_is_kicked_afterwards_begins_anew(
        self, node: Node, consumer: Consumer, request: pytest.FixtureRequest
    ) -> None:
        """A message that was buried because of such an attempt and is kicked has fresh attempts."""
        node.put(b"x", channel=ONCE)
        received = self.taken(consumer)
        refusing = request.getfixturevalue("refusing")
        self.refuse(received)
        shut(consumer, self.patience)
        refusing.undo()
        assert self.comes_no_more(node, ONCE)
        assert node.inbox.kick(Selection(channel=ONCE)) == 1
        assert self.next_attempts(node, ONCE) == [1]

    def test_what_was_refused_counts_when_the_node_closes(
        self, opened: Opener, node: Node, consumer: Consumer, request: pytest.FixtureRequest
    ) -> None:
        """A program that closes its node, and forgets its consumer, counts what it began."""
        if "durable" not in node.runtime.storage.abilities:
            pytest.skip("this storage is not durable, and says so")
        node.put(b"x", channel=CHANNEL)
        received = self.taken(consumer)
        refusing = request.getfixturevalue("refusing")
        self.refuse(received)
        refusing.undo()
        shut(node, self.patience)
        assert self.next_attempts(opened()) == [2]

    def test_what_is_settled_after_all_is_settled(
        self, node: Node, consumer: Consumer, request: pytest.FixtureRequest
    ) -> None:
        """Who tries again when the store is back, with the lease still there, has acknowledged it."""
        node.put(b"x", channel=CHANNEL)
        received = self.taken(consumer)
        refusing = request.getfixturevalue("refusing")
        self.refuse(received)
        refusing.undo()
        received.ack()
        shut(consumer, self.patience)
        assert self.comes_no_more(node)
        assert not node.runtime.unsettled
        assert node.inbox.totals().get(CHANNEL, 1) == 1

    # ── the store forgets ────────────────────────────────────────────────────────────────────────

    def test_what_was_begun_and_forgotten_counts(self, node: Node, consumer: Consumer) -> None:
        """A server that crashes within the flush interval forgets the claim: its process does not."""
        node.put(b"x", channel=CHANNEL)
        for attempt in (1, 2, 3):
            received = self.taken(consumer)
            assert received.attempt == attempt
            self.forget(node)
            with pytest.raises(LeaseLost):
                received.release(0, "it failed")

    def test_what_was_counted_and_forgotten_counts(self, node: Node, consumer: Consumer) -> None:
        """A store that forgets two attempts at once counts both, before the message is given again."""
        node.put(b"x", channel=CHANNEL)
        self.taken(consumer).release(0, "it failed")
        received = self.taken(consumer)
        assert received.attempt == 2
        moves = [JobMove(one, State.READY, attempts=0) for one in node.inbox.all(LEASES)]
        assert node.inbox.move(moves) == [True]
        with pytest.raises(LeaseLost):
            received.release(0, "it failed")
        assert self.taken(consumer).attempt == 3

    def test_what_others_began_in_the_meantime_is_counted_when_it_comes(self, node: Node, consumer: Consumer) -> None:
        """Another consumer has the message as the same attempt, for the store knows of no other."""
        node.put(b"x", channel=CHANNEL)
        received = self.taken(consumer)
        self.forget(node)
        other = Consumer(node.runtime, [CHANNEL])
        again = self.taken(other)
        assert again.attempt == 1
        with pytest.raises(LeaseLost):
            received.release(0, "it failed")
        assert consumer.claim() == []
        again.requeue()
        assert self.next_attempts(node) == [2]
        shut(other, self.patience)

    def test_what_was_begun_and_forgotten_is_buried_in_the_end(self, node: Node, consumer: Consumer) -> None:
        """Its last attempt is its last, though the store does not know that it was begun."""
        node.put(b"x", channel=ONCE)
        received = self.taken(consumer)
        self.forget(node)
        with pytest.raises(LeaseLost):
            received.release(0, "it failed")
        assert self.comes_no_more(node, ONCE)
        (job,) = node.inbox.scan(Selection())
        assert job.state is State.BURIED
        assert "attempt 1" in job.reason

    def test_what_was_done_and_forgotten_is_done(self, node: Node) -> None:
        """What stood on a lease sheet as done is not handled again, though the store has forgotten its lease."""
        if node.inbox.sheets is None:
            pytest.skip("this storage has no lease sheets, and says so")
        node.put(b"x", channel=CHANNEL)
        consumer = PrefetchingConsumer(node.runtime, [CHANNEL])
        self.taken(consumer).ack()
        self.forget(node)
        with pytest.raises(LeaseLost):
            consumer.settle_now()
        assert self.comes_no_more(node)
        assert not node.inbox.scan(Selection())
        shut(consumer, self.patience)

    def test_what_its_consumer_gave_back_is_not_counted(self, node: Node, consumer: Consumer) -> None:
        """Whoever settles after the consumer has closed had ended the lease by itself, its attempt not counted."""
        node.put(b"x", channel=CHANNEL)
        received = self.taken(consumer)
        shut(consumer, self.patience)
        with pytest.raises(LeaseLost):
            received.ack()
        assert self.next_attempts(node) == [1]

    def test_what_others_have_counted_is_not_counted_again(self, node: Node, consumer: Consumer) -> None:
        """A lease that somebody ended who counted the attempt is nothing to be remembered."""
        node.put(b"x", channel=CHANNEL)
        received = self.taken(consumer)
        (leased,) = node.inbox.all(LEASES)
        assert node.inbox.move([JobMove(leased, State.READY)]) == [True]
        with pytest.raises(LeaseLost):
            received.release(0, "it failed")
        assert self.next_attempts(node) == [2]
        assert not node.runtime.unsettled


__all__ = ["AttemptsContract"]
