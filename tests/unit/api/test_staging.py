"""Channels with ``durability: interval``: what `send` says, the order of what is stored, and what the dead left."""

import logging
import os
import signal

import pytest
from support.one_node import configure, open_node

from dropr_core.api.node import Node
from dropr_core.api.staging import Staging
from dropr_core.contracts.storage import Selection
from dropr_core.errors import QueueFull, WriteFailed
from dropr_core.model import envelope

INTERVAL = {"orders": {"to": "berlin", "durability": "interval"}, "plain": {"to": "berlin"}}


@pytest.fixture
def node(tmp_path):
    with open_node(tmp_path, channels=INTERVAL) as node:
        yield node


@pytest.fixture
def still(monkeypatch):
    """No thread takes anything in: only what the test does."""
    monkeypatch.setattr("dropr_core.system.flusher.Flusher.mark", lambda _self: None)


def stored(node):
    """Ids in the outbox, in order, without bringing in what is staged."""
    return [delivery.id for _, delivery in node.runtime.storage.outbox.scan(Selection())]


def bodies(node):
    """The bodies of those."""
    return [envelope.body_of(node.runtime.storage.outbox.envelope(identity)) for identity in stored(node)]


def ids(*sent):
    return [one._message_id for one in sent]


def test_send_says_which_promise_holds(node):
    """`interval` where the channel says so; `commit` elsewhere, and for what needs more than a place in its lane."""
    assert node.send(b"x", channel="orders").durability == "interval"
    assert node.send(b"x", channel="plain").durability == "commit"
    for more in ({"id": "0" * 31 + "1"}, {"delay": 5}, {"expires_in": 5}, {"dedup_key": "k"}):
        assert node.send(b"x", channel="orders", **more).durability == "commit"
    assert node.send(b"x" * 2_000_000, channel="orders").durability == "commit"


def test_it_enters_the_outbox_by_itself(node):
    """Soon, whether or not anybody asks, and whoever waits for work is woken."""
    with node.runtime.notifier.subscribe("outbox") as subscription:
        subscription.prepare()
        sent = node.send(b"x", channel="orders")
        assert subscription.wait(60)
    assert stored(node) == ids(sent)


def test_who_asks_sees_what_was_staged(node, still):
    """The handle, the outbox and a cancel in the same process know it at once."""
    sent = node.send(b"x", channel="orders")
    assert stored(node) == []
    assert sent.state == "queued"
    assert stored(node) == ids(sent)
    other = node.send(b"y", channel="orders")
    assert other.cancel()


def test_the_order_of_sends_is_kept(node, still):
    """What goes straight into the outbox does not pass what was staged before, on whichever channel."""
    first = [node.send(b"%d" % number, channel="orders") for number in range(3)]
    durable = node.send(b"urgent", channel="orders", id="0" * 31 + "1")
    last = node.send(b"last", channel="orders")
    with node.batch() as batch:
        batch.send(b"b", channel="orders")
    found = stored(node)
    assert found[:5] == ids(*first, durable, last)
    assert len(found) == 6


def test_a_full_log_makes_send_wait_for_a_commit(node, still):
    """Nothing is refused and nothing is lost; memory stays bounded."""
    sent = [node.send(b"x" * 60_000, channel="orders") for _ in range(100)]
    assert len(stored(node)) >= 100 - (4 << 20) // 60_000 - 1
    assert node.runtime.outbox is not None
    assert stored(node) == ids(*sent)


def test_closing_takes_everything_in_and_leaves_no_file(tmp_path, still):
    """The next opening finds it in the outbox."""
    config = configure(tmp_path, channels=INTERVAL, storage="sqlite")
    with Node.open(config) as node:
        sent = node.send(b"x", channel="orders")
        assert len(list((tmp_path / "data/staging").iterdir())) == 1
    assert list((tmp_path / "data/staging").iterdir()) == []
    with Node.open(config) as node:
        assert stored(node) == ids(sent)
        assert node.runtime.storage.outbox.staged() == {}


def in_a_child(config, work):
    """Do something with the node in a process that is killed by SIGKILL when it has done it."""
    child = os.fork()
    if child == 0:
        try:
            node = Node.open(config)
            work(node)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("storage", ["sqlite", "fs"])
def test_what_a_killed_process_had_staged_is_taken_in_once(tmp_path, still, storage):
    """By the next process that opens the node: all that `send` returned for, in order, and never again."""
    config = configure(tmp_path, channels=INTERVAL, storage=storage)

    def work(node):
        for number in range(50):
            node.send(b"%d" % number, channel="orders")
            if number == 19:
                node.runtime.staging.drain()

    in_a_child(config, work)
    for _ in range(2):
        with Node.open(config) as node:
            assert bodies(node) == [b"%d" % number for number in range(50)]
            assert node.runtime.storage.outbox.staged() == {}
    assert list(tmp_path.glob("data/staging/*")) == []


@pytest.mark.parametrize("storage", ["sqlite", "fs"])
def test_killed_between_the_commit_and_the_word_about_it(tmp_path, still, storage):
    """The outbox's own note decides: what it has is not taken in again."""
    config = configure(tmp_path, channels=INTERVAL, storage=storage)

    def work(node):
        for number in range(5):
            node.send(b"%d" % number, channel="orders")
        staging = node.runtime.staging
        staging._log.take = lambda _upto: os.kill(os.getpid(), signal.SIGKILL)
        staging.drain()

    in_a_child(config, work)
    with Node.open(config) as node:
        assert len(stored(node)) == 5


def test_a_commit_that_was_made_though_it_failed_is_not_made_again(node, still, monkeypatch):
    """A failed flush leaves open whether the commit is there: the note says it."""
    outbox = node.runtime.storage.outbox
    sent = [node.send(b"%d" % number, channel="orders") for number in range(3)]
    real = type(outbox).append_staged

    def stored_but_failed(self, *arguments):
        real(self, *arguments)
        raise WriteFailed("the flush failed")

    monkeypatch.setattr(type(outbox), "append_staged", stored_but_failed)
    with pytest.raises(WriteFailed):
        node.runtime.staging.drain()
    monkeypatch.setattr(type(outbox), "append_staged", real)
    sent.append(node.send(b"3", channel="orders"))
    node.runtime.staging.drain()
    assert stored(node) == ids(*sent)


def test_an_outbox_that_takes_nothing_keeps_it_staged(tmp_path, still, monkeypatch, caplog):
    """At the end it stays in its log, said with its number; the next opening takes it in."""
    config = configure(tmp_path, channels=INTERVAL, storage="sqlite")

    def failing(*_):
        raise WriteFailed("the disk is gone")

    with Node.open(config) as node, monkeypatch.context() as patch:
        sent = [node.send(b"x", channel="orders") for _ in range(2)]
        patch.setattr(type(node.runtime.storage.outbox), "append_staged", failing)
        node.close()
    assert "2 messages stay in" in caplog.text
    with Node.open(config) as node:
        assert stored(node) == ids(*sent)


def test_a_full_queue_is_said_once_the_log_is_full(tmp_path, still):
    """Until then `send` takes messages; then it raises what the outbox says, and what is staged is not lost."""
    with open_node(tmp_path, channels=INTERVAL, limits={"min_free": 0, "max_messages": 1}) as node:
        sent = []
        with pytest.raises(QueueFull):
            for _ in range(200):
                sent.append(node.send(b"x" * 60_000, channel="orders"))
        assert len(sent) > 50
        assert node.runtime.staging.pending


def test_without_room_for_a_log_it_is_durable_instead(node, monkeypatch, caplog):
    """The stronger promise costs a flush each; said once."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    assert [node.send(b"x", channel="orders").durability for _ in range(3)] == ["commit"] * 3
    assert caplog.text.count("no staging log can be made") == 1


def test_a_living_process_keeps_its_log(node, still, tmp_path):
    """Whoever looks for logs of the dead leaves it alone."""
    sent = node.send(b"x", channel="orders")
    other = Staging(node.runtime.storage.outbox, tmp_path / "data/staging", lambda: None, logging.getLogger("test"))
    assert other.take_over() == 0
    assert stored(node) == []
    assert sent.state == "queued"


def test_a_forked_child_leaves_its_parents_log_alone(node, still):
    """It can send nothing through it, and closing there takes nothing in."""
    node.send(b"x", channel="orders")
    child = os.fork()
    if child == 0:
        node.runtime.staging.close()
        os._exit(0 if node.runtime.staging.pending else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(list((node.runtime.config.data / "staging").iterdir())) == 1
