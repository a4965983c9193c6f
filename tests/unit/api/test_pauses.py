"""Channels at rest: who gets nothing, until when, and who finds out."""

import json
import threading

import pytest
from support.one_node import Peer, open_node, pass_time

from dropr_core.api.consumer import Consumer
from dropr_core.api.pauses import NAME, Pauses
from dropr_core.errors import BadName, StoreCorrupt, UsageError

PATIENCE = 60.0


@pytest.fixture
def node(tmp_path):
    with open_node(tmp_path) as node:
        yield node


@pytest.fixture
def consumer(node):
    consumer = Consumer(node.runtime, ["jobs", "others"])
    yield consumer
    consumer.close()


def bodies(batch):
    return [received.body for received in batch]


def test_a_paused_channel_gives_nothing_and_takes_what_comes(node, consumer):
    """Peers and this node itself store into it; its consumers get messages of their other channels alone."""
    Peer(node).push(b"one")
    node.pause("jobs")
    node.put(b"two", channel="jobs")
    Peer(node, "others").push(b"other")
    assert bodies(consumer.claim(10)) == [b"other"]
    assert list(node.receive("jobs", wait=0)) == []
    assert node.unpause("jobs") is True
    assert bodies(consumer.claim(10)) == [b"one", b"two"]
    assert node.unpause("jobs") is False


def test_it_ends_by_itself(node, consumer):
    """After its time consumers get messages again; until then they sleep, whatever becomes due meanwhile."""
    Peer(node).push(b"one")
    node.put(b"late", channel="jobs", delay=1.0)
    node.pause("jobs", "10s")
    assert consumer.claim(10) == []
    pass_time(node, 6.0)
    assert 1.0 < consumer.patience(None) <= 4.0
    pass_time(node, 5.0)
    assert bodies(consumer.claim(10)) == [b"one", b"late"]
    assert node.runtime.pauses.now() == {}


def test_another_process_sees_it(node, consumer, tmp_path):
    """What one process pauses the next look of every other one knows; what it ends, too."""
    Peer(node).push(b"one")
    other = Pauses(node.runtime.documents, node.runtime.clock, node.runtime.notifier)
    other.pause("jobs", None, "moving house")
    assert consumer.claim(1) == []
    assert node.runtime.pauses.now()["jobs"].reason == "moving house"
    other.unpause("jobs")
    assert bodies(consumer.claim(1)) == [b"one"]


def test_two_channels_are_paused_each_by_itself(node):
    """A second pause leaves the first, a new one of the same channel replaces it, and what is over is forgotten."""
    node.pause("jobs", 5)
    node.pause("others", 100, "why")
    node.pause("jobs", 50)
    assert sorted(node.runtime.pauses.now()) == ["jobs", "others"]
    pass_time(node, 60)
    node.pause("third")
    kept = json.loads((node.runtime.config.data / NAME).read_text())
    assert sorted(kept["channels"]) == ["others", "third"]


def test_it_survives_the_node(tmp_path):
    """A node that is opened again is as it was left."""
    with open_node(tmp_path) as node:
        node.pause("jobs", "1h", "for the night")
    with open_node(tmp_path) as node:
        found = node.runtime.pauses.now()["jobs"]
        assert found.reason == "for the night"
        assert found.until is not None
        assert 3500 < found.until - node.runtime.clock.now() <= 3600


def test_who_waits_is_woken_when_it_ends(node):
    """A consumer that sleeps in its loop gets the message as soon as somebody ends the pause."""
    node.pause("jobs")
    node.put(b"one", channel="jobs")
    got, begun = [], threading.Event()

    def work():
        begun.set()
        got.extend(received.body for received in node.receive("jobs", limit=1, timeout=PATIENCE))

    worker = threading.Thread(target=work)
    worker.start()
    assert begun.wait(PATIENCE)
    assert not got
    node.unpause("jobs")
    worker.join(PATIENCE)
    assert got == [b"one"]


def test_bad_pauses_are_refused(node):
    """A name that no channel has, and a time that is none: a clear error, and nothing is paused."""
    with pytest.raises(BadName):
        node.pause("no such channel!")
    with pytest.raises(UsageError, match="pause"):
        node.pause("jobs", "soon")
    with pytest.raises(UsageError):
        node.pause("jobs", -1)
    assert node.runtime.pauses.now() == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 2, "channels": {}}', '{"version": 1, "channels": {"a": 1}}'])
def test_a_damaged_file_says_what_to_do(node, text):
    """Nothing begins or ends in silence: the error names the file and the way out."""
    (node.runtime.config.data / NAME).write_text(text)
    with pytest.raises(StoreCorrupt, match="remove it"):
        list(node.receive("jobs", wait=0))
