"""The verbs of an open node, and batches: what is refused, what is stored together, who is woken."""

import select

import pytest
from support.one_node import open_node

from dropr_core.api import sender as sender_module
from dropr_core.errors import QueueFull, UnknownPeer, UsageError, WriteFailed
from dropr_core.model import topics
from dropr_core.model.message import State


@pytest.fixture
def node(tmp_path):
    with open_node(tmp_path, channels={"orders": {"to": "all", "receipt": True}}) as node:
        yield node


def depth(node):
    return sum(stats.depth for stats in node.outbox.lanes())


def woken(node, topic, act):
    """Whether `act` wakes who waits for a topic."""
    with node.runtime.notifier.subscribe(topic) as subscription:
        subscription.prepare()
        act()
        return bool(select.select([subscription], [], [], 0)[0])


def test_a_node_is_what_its_file_says(node):
    """Name and configuration are those that it was opened with."""
    assert node.name == node.config.node == "shop"


def test_send_wakes_the_daemon_and_puts_nothing_into_the_own_inbox(node):
    """Nobody polls: what was stored is told."""
    assert woken(node, topics.OUTBOX, lambda: node.send(b"x", to="rome"))
    assert not woken(node, topics.inbox("common"), lambda: node.send(b"x", to="rome"))
    assert list(node.receive("common", wait=0)) == []


def test_put_is_for_the_own_consumers_and_wakes_them(node):
    """It is received like any other, from this node itself, and no peer gets it."""
    assert woken(node, topics.inbox("jobs"), lambda: node.put(b"x", channel="jobs", priority=1, headers={"a": "b"}))
    (received,) = list(node.receive("jobs", wait=0))
    assert (received.sender, received.priority, dict(received.headers)) == ("shop", 1, {"a": "b"})
    assert depth(node) == 0


@pytest.mark.parametrize("options", [{}, {"priority": 1, "headers": {"a": "b"}}])
def test_put_all_is_one_commit_for_many_messages_in_their_order(node, monkeypatch, options):
    """Each is a message of its own with the same options, and its consumers are woken."""
    commits, put = [], node.inbox.put
    monkeypatch.setattr(node.inbox, "put", lambda *words: commits.append(words) or put(*words))
    ids = []
    values = (f"value {number}" for number in range(5))
    assert woken(node, topics.inbox("jobs"), lambda: ids.extend(node.put_all(values, channel="jobs", **options)))
    received = list(node.receive("jobs", wait=0))
    assert [message.value for message in received] == [f"value {number}" for number in range(5)]
    assert [message.id for message in received] == ids
    assert {message.priority for message in received} == {options.get("priority", 5)}
    assert all(dict(message.headers) == options.get("headers", {}) for message in received)
    assert len(commits) == 1
    assert node.put_all([], channel="jobs") == []
    assert len(commits) == 1, "nothing to store is no commit"


def test_put_all_stores_nothing_if_one_value_cannot_be_sent(node, tmp_path):
    """Bodies that were written before the wrong one are removed, too."""
    with pytest.raises(UsageError):
        node.put_all([b"x", bytes(200_000), object()], channel="jobs")
    assert node.inbox.counts() == {}
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size >= 200_000]


@pytest.mark.parametrize("values", [[], [b"x"]])
def test_put_all_tells_of_a_wrong_option_or_channel_also_without_messages(node, values):
    """A list that is empty today must not hide a mistake until tomorrow."""
    with pytest.raises(TypeError, match=r"put_all\(\) has no option 'colour'"):
        node.put_all(values, channel="jobs", colour="red")
    with pytest.raises(UsageError):
        node.put_all(values, channel="no channel")
    assert node.inbox.counts() == {}


@pytest.mark.parametrize("one", ["hello", b"hello", {"sku": 7}])
def test_put_all_of_one_message_is_a_mistake_that_is_told(node, one):
    """Its letters or keys would be a message each."""
    with pytest.raises(UsageError, match="`put` queues that"):
        node.put_all(one, channel="jobs")
    assert node.inbox.counts() == {}


def test_what_the_fast_way_cannot_say_goes_the_long_way(node):
    """One option more, and all of them count."""
    assert not node.send(b"x", to="rome").deliveries[0].receipt
    assert node.send(b"x", to="rome", receipt=True).deliveries[0].receipt
    assert node.send(b"x", channel="orders").deliveries[0].receipt, "the channel's own rule"


def test_an_unknown_id_has_no_status_and_a_wrong_one_is_a_mistake(node):
    """None says "not known"; a text that is no id is told so."""
    assert node.status("00000000-0000-4000-8000-000000000000") is None
    with pytest.raises(UsageError):
        node.status("order 7")


def test_a_batch_is_stored_whole_at_the_end_of_its_block(node):
    """Before that nobody sees any of it; afterwards the handles are there in order."""
    with node.batch() as batch:
        for number in range(3):
            batch.send(b"%d" % number, to="rome", dedup_key=str(number) if number else None)
        assert (len(batch), depth(node), list(batch.sent)) == (3, 0, [])
    assert depth(node) == 3
    assert [sent.state for sent in batch.sent] == [State.QUEUED] * 3
    assert [delivery.sequence for sent in batch.sent for delivery in sent.deliveries] == [1, 2, 3]


def test_a_batch_that_fails_stores_nothing(node):
    """Neither what came before the error, nor a large body of it."""
    with pytest.raises(ValueError, match="enough"), node.batch() as batch:
        batch.send(b"x", to="rome")
        batch.send(b"x" * 200_000, to="rome")
        raise ValueError("enough")
    assert depth(node) == 0
    assert not [path for path in node.runtime.bodies.directory.rglob("*") if path.is_file()]
    assert not batch.sent


def test_a_mistake_in_a_batch_is_said_where_it_is_made(node):
    """And it takes nothing else with it, if the caller goes on."""
    with node.batch() as batch:
        with pytest.raises(UnknownPeer):
            batch.send(b"x", to="nobody")
        batch.send(b"x", to="rome")
    assert depth(node) == 1
    with pytest.raises(UsageError, match="only inside of the block"):
        batch.send(b"x", to="rome")


def test_a_full_queue_is_waited_for_as_long_as_the_caller_says(tmp_path):
    """Without a time-out at once; with one, room that comes in time is used."""
    with open_node(tmp_path, limits={"min_free": 0, "max_messages": 2}) as node:
        first = node.send(b"1", to="rome")
        node.send(b"2", to="rome")
        for patience in (0, 0.05):
            with pytest.raises(QueueFull):
                node.send(b"3", to="rome", timeout=patience)
        with pytest.raises(QueueFull), node.batch() as batch:
            batch.send(b"3", to="rome")
        assert first.cancel()
        node.send(b"3", to="rome", timeout=0.05)
        assert depth(node) == 2


def test_retry_now_leaves_word_for_the_daemon(node):
    """For one peer or all; the name cannot lead anywhere else, whatever it is."""
    assert woken(node, topics.CONTROL, lambda: node.retry_now("rome"))
    node.retry_now("../x")
    node.retry_now()
    names = {path.name for path in (node.runtime.run_directory / "nudge").iterdir()}
    assert names == {b"rome".hex(), b"../x".hex(), "all"}


@pytest.fixture
def full(node, monkeypatch):
    """A queue that is full, on a disk where not even a file for listening has room; opened by ``full.clear()``."""
    reasons = ["no room"]
    append = node.outbox.append

    def refuse(messages):
        if reasons:
            raise QueueFull(reasons[0])
        return append(messages)

    def no_file(*_topics):
        raise WriteFailed("cannot listen for wake-ups: No space left on device")

    monkeypatch.setattr(node.runtime.storage.outbox, "append", refuse)
    monkeypatch.setattr(node.runtime.notifier, "subscribe", no_file)
    return reasons


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_a_full_queue_on_a_full_disk_is_called_full(node, full, timeout):
    """What hinders is the room for the message, not that for waiting: the error names the first."""
    with pytest.raises(QueueFull, match="no room"):
        node.send(b"x", to="rome", timeout=timeout)


def test_who_waits_for_room_gets_it_where_nobody_can_listen(node, full, monkeypatch):
    """Without a file for listening `send` looks now and then, and goes on when there is room."""
    monkeypatch.setattr(sender_module.time, "sleep", lambda _seconds: full.clear())
    node.send(b"x", to="rome", timeout=30)
    assert depth(node) == 1
