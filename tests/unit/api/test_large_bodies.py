"""Large bodies and the ends of their messages, on one node."""

import os

import pytest

import dropr_core as dropr
from dropr_core.contracts.storage import Selection
from dropr_core.errors import Conflict, UsageError

YAML = """
node: shop
limits: {min_free: 0}
peers:
  berlin: {url: "http://127.0.0.1:9", key: "0123456789abcdef-this-is-secret"}
  rome: {url: "http://127.0.0.1:9", key: "0123456789abcdef-this-is-secret"}
channels:
  kept: {retention: 1h}
"""
LARGE = os.urandom(100_000)


@pytest.fixture
def node(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(YAML)
    with dropr.open(path) as node:
        yield node


def count(node):
    """Body files of a node after a sweep."""
    node.runtime.sweep_bodies()
    return sum(path.is_file() for path in node.runtime.bodies.directory.rglob("*"))


def test_a_cancelled_message_takes_its_body_along(node):
    """Cancelled for one of two peers it stays, cancelled for both it goes."""
    sent = node.send(LARGE, to=["berlin", "rome"])
    node.outbox.cancel(sent._message_id, ["berlin"])
    assert count(node) == 1
    assert sent.cancel()
    assert count(node) == 0


def test_a_dead_message_keeps_its_body_until_it_is_wiped(node):
    """Who may be sent again needs its body; wiped, nobody does."""
    sent = node.send(LARGE, to="berlin")
    lane = node.outbox.lanes()[0].lane
    node.outbox.dead_letter(lane, 1, "it never worked")
    assert count(node) == 1
    assert node.outbox.redrive(Selection()) == 1
    assert count(node) == 1
    node.outbox.dead_letter(lane, 2, "it still does not work")
    assert node.outbox.wipe(Selection()) == 1
    assert count(node) == 0
    assert node.find(sent.id) is None


def test_an_acknowledged_message_takes_its_body_along_at_once(node):
    """Without a sweep: when the acknowledgement returns, the body is gone; a kept message keeps it."""
    node.put(LARGE, channel="films")
    node.put(LARGE, channel="kept")
    for message in node.receive("films", "kept", wait=0):
        assert message.body == LARGE
    assert count(node) == 1
    node.inbox.wipe(Selection())
    assert count(node) == 0


def test_a_released_and_a_buried_message_keep_their_bodies(node):
    """What may be handled again can be read again."""
    node.put(LARGE, channel="films")
    for message in node.receive("films", wait=0, limit=1):
        message.release(0.0)
    for message in node.receive("films", wait=0, limit=1):
        assert message.body == LARGE
        message.bury("no")
    assert count(node) == 1
    assert node.inbox.kick(Selection()) == 1
    assert [message.body for message in node.receive("films", wait=0)] == [LARGE]


def test_the_same_id_twice_is_one_message_and_one_body(node):
    """Sent again with the same content nothing is stored anew; with other content it is a Conflict."""
    first = node.send(LARGE, to="berlin", dedup_key="film-1")
    again = node.send(LARGE, to="berlin", dedup_key="film-1")
    assert (again.id, again.existed) == (first.id, True)
    with pytest.raises(Conflict):
        node.send(LARGE[::-1], to="berlin", dedup_key="film-1")
    assert count(node) in {1, 2}  # the other content's file belongs to a known id, and goes with it
    first.cancel()
    assert count(node) == 0


def test_a_batch_that_is_not_sent_leaves_no_body(node):
    """An exception in the block: nothing is stored, no file stays."""
    with pytest.raises(UsageError), node.batch() as batch:
        batch.send(LARGE, to="berlin")
        batch.send(LARGE, to="nobody")
    assert count(node) == 0
    assert node.outbox.lanes() == []


def test_large_messages_keep_their_order_and_their_priority(node):
    """They have lanes of their own, and the priority that was asked for."""
    for number in range(3):
        node.send(LARGE + b"%d" % number, to="berlin", priority=2)
    (stats,) = node.outbox.lanes()
    assert (stats.lane.priority, stats.depth) == (12, 3)
    node.put(LARGE, channel="films", priority=7)
    node.put(b"small", channel="films", priority=7)
    assert [(message.priority, message.size) for message in node.receive("films", wait=0)] == [(7, 100_000), (7, 5)]
