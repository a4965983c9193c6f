"""Claims of one consumer: what it gets, how long it sleeps, what becomes of the leases of the living and the dead."""

import itertools
import os
import select
import signal
from pathlib import Path

import pytest
from support.one_node import SENDER, Peer, open_node, pass_time

from dropr_core.api.consumer import REAP_EVERY, Consumer
from dropr_core.contracts.storage import Selection
from dropr_core.errors import BadName, Closed, LeaseLost, UsageError
from dropr_core.model.message import State
from dropr_core.system.notifier import LOOK_AGAIN

DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture
def node(tmp_path):
    with open_node(tmp_path, channels={"kept": {"retention": "1h"}}) as node:
        yield node


@pytest.fixture
def consumer(node):
    consumer = Consumer(node.runtime, ["jobs", "kept"])
    yield consumer
    consumer.close()


def bodies(batch):
    return [received.body for received in batch]


def states(node):
    return [info.state for info in node.inbox.scan(Selection(), 0, 100)]


def test_it_gets_what_is_ready_on_its_channels_and_no_more_than_it_asks_for(node, consumer):
    """In the order of the lane; what another channel holds is not its matter."""
    Peer(node).push(b"one", b"two", b"three")
    Peer(node, "others").push(b"other")
    assert bodies(consumer.claim(2)) == [b"one", b"two"]
    assert bodies(consumer.claim(2)) == [b"three"]
    assert consumer.claim(2) == []


def test_it_needs_a_channel_and_real_names(node):
    """Told when it is made, and not when it waits for ever."""
    with pytest.raises(UsageError, match="at least one channel"):
        Consumer(node.runtime, [])
    with pytest.raises(BadName):
        Consumer(node.runtime, ["good", "not good"])
    node.close()
    with pytest.raises(Closed):
        Consumer(node.runtime, ["jobs"])


def test_a_consumer_that_cannot_be_registered_leaves_no_subscription(node, monkeypatch):
    """Else each try would cost a descriptor."""

    def refuse(_label):
        raise OSError("no")

    monkeypatch.setattr(node.inbox, "register", refuse)
    before = len(list(DESCRIPTORS.iterdir()))
    for _ in range(3):
        with pytest.raises(OSError, match="no"):
            Consumer(node.runtime, ["jobs"])
    assert len(list(DESCRIPTORS.iterdir())) == before


def test_a_damaged_message_is_buried_and_the_next_sound_one_is_given(node, consumer, monkeypatch, caplog):
    """It is reported, and never handed to a handler; an empty answer would say that nothing is there."""
    told = []
    monkeypatch.setattr(node.runtime, "event", lambda name, details: told.append((name, details)))
    monkeypatch.setattr(node.inbox, "checked", False, raising=False)
    peer = Peer(node)
    peer.push(b"damaged", raw=b"no envelope", receipt=True)
    peer.push(b"sound")
    assert bodies(consumer.claim(1)) == [b"sound"]
    assert states(node) == [State.BURIED, State.LEASED]
    assert [name for name, _ in told] == ["corrupt"]
    assert "damaged at rest and buried" in caplog.text
    (row,) = node.inbox.outcomes(SENDER, None, 0, 10)[1]
    assert row.reason.startswith("damaged at rest")


def test_many_are_acknowledged_at_once(node, consumer):
    """With channels of different retention, each gets its own."""
    Peer(node).push(b"one")
    Peer(node, "kept").push(b"two")
    consumer.acknowledge(consumer.claim(10))
    assert states(node) == [State.DONE]
    assert [info.channel for info in node.inbox.scan(Selection(), 0, 10)] == ["kept"]


def test_of_many_the_lost_ones_are_named_and_the_others_are_done(node, consumer):
    """One lease that ended does not undo the work of the others."""
    Peer(node).push(b"one", b"two", b"three")
    batch = consumer.claim(10)
    batch[1].bury("by hand")
    with pytest.raises(LeaseLost, match=f"1 of 3 leases had ended, the first on message {batch[1].id}"):
        consumer.acknowledge(batch)
    assert states(node) == [State.BURIED]
    assert all(received.settled for received in batch)


def test_closing_gives_back_what_is_leased_and_tells_the_others(node, consumer):
    """Attempts are not counted; whoever waits is woken; twice is nothing."""
    Peer(node).push(b"one", b"two")
    first = Consumer(node.runtime, ["jobs"])
    assert len(first.claim(10)) == 2
    consumer.prepare()
    assert consumer.claim(10) == []
    assert not select.select([consumer], [], [], 0)[0]
    first.close()
    first.close()
    assert select.select([consumer], [], [], 0)[0], "the other consumer was not woken"
    assert [received.attempt for received in consumer.claim(10)] == [1, 1]


def test_closing_after_its_node_is_nothing(node, consumer):
    """The store was closed first: the leases have ended with it."""
    Peer(node).push(b"one")
    consumer.claim()
    node.close()
    consumer.end([])


def test_what_a_killed_process_had_leased_is_free_again(tmp_path):
    """Found by whoever looks next; the attempt counts, for it may be what killed it."""
    with open_node(tmp_path, storage="sqlite") as node:
        Peer(node).push(b"one")
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with open_node(tmp_path, storage="sqlite") as mine:
                received = Consumer(mine.runtime, ["jobs"]).claim()
                os.write(writing, b"%d" % len(received))
                signal.pause()
        consumer = Consumer(node.runtime, ["jobs"])
        assert os.read(reading, 1) == b"1"
        assert consumer.claim() == []
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pass_time(node, REAP_EVERY)
        assert [received.attempt for received in consumer.claim()] == [2]
        consumer.close()
        os.close(reading)
        os.close(writing)


def test_a_message_that_is_there_is_claimed_before_others_are_looked_at(node, monkeypatch):
    """Who was woken for it has it first. Others are looked at when nothing is ready, and now and then when something
    always is.
    """
    inbox, calls = node.runtime.storage.inbox, []

    def note(name):
        original = getattr(inbox, name)

        def noted(*arguments):
            calls.append(name)
            return original(*arguments)

        monkeypatch.setattr(inbox, name, noted)

    note("claim")
    note("reap")
    consumer = Consumer(node.runtime, ["jobs"])
    assert consumer.claim() == []
    assert calls == ["reap", "claim"], "at the beginning what a dead one had may be all there is"
    Peer(node).push(b"one", b"two", b"three")
    for expected in ([], [], ["reap"]):
        calls.clear()
        (received,) = consumer.claim()
        assert calls == [*expected, "claim"]
        received.ack()
        pass_time(node, REAP_EVERY / 2)
    calls.clear()
    assert consumer.claim() == []
    assert calls == ["claim", "reap"]
    consumer.close()


def test_it_sleeps_no_longer_than_until_something_is_due(node, consumer):
    """A delayed message, the caller's limit, and a look now and then, for a killed sender notifies nobody."""
    consumer.claim()
    assert consumer.patience(None) == LOOK_AGAIN
    assert consumer.patience(0.25) == 0.25
    assert consumer.patience(1e9) == LOOK_AGAIN
    assert consumer.patience(-1.0) == 0.0
    node.put(b"later", channel="jobs", delay=0.5)
    assert 0.0 < consumer.patience(None) <= 0.5
    pass_time(node, 1)
    assert consumer.patience(None) == 0.0
    assert bodies(consumer.claim()) == [b"later"]


def test_time_that_passes_while_it_looks_makes_no_sleep_too_long(node, consumer, monkeypatch):
    """A slow look at what is delayed ends in an answer that is early, never late."""
    node.put(b"later", channel="jobs", delay=5.0)
    due = node.inbox.next_due(["jobs"])
    clock = node.runtime.clock
    start, readings = clock.now(), itertools.count()
    monkeypatch.setattr(clock, "now", lambda: start + 0.5 * next(readings))
    assert node.inbox.next_due(["jobs"]) <= due
    assert consumer.patience(None) <= due - start
