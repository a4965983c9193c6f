"""The handle of a message on its way: what it says, what it waits for, when it can be taken back."""

import threading

import pytest
from support.one_node import open_node

from dropr_core.api.sent import Sent
from dropr_core.errors import DeliveryFailed, WaitTimeout
from dropr_core.model import topics
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import Head, StoreId

LOG = StoreId(b"log-----")


@pytest.fixture
def node(tmp_path):
    with open_node(tmp_path, channels={"typed": {"to": "rome", "serializer": "json"}}) as node:
        yield node


def accept(node, peer):
    """The peer commits all that is on its way."""
    for stats in node.outbox.lanes(peer):
        node.outbox.settle(stats.lane, node.outbox.take(stats.lane, 100, 1 << 20).upto)
    node.runtime.notifier.notify(topics.RECEIPTS)


def report(node, sent, peer, state=State.PROCESSED, reason="", result=None, content_type=""):
    """Its receipt comes home."""
    accept(node, peer)
    identity = bytes.fromhex(sent.id.replace("-", ""))
    cursor = node.outbox.peers()[peer].cursor + 1
    node.outbox.receipts(peer, LOG, [Outcome(cursor, identity, state, reason, result, content_type)], cursor)
    node.runtime.notifier.notify(topics.RECEIPTS)


def test_a_plain_message_is_done_when_its_peer_has_it(node):
    """The store has forgotten it then; the handle knows what that means."""
    sent = node.send(b"x", to="rome")
    assert (sent.state, sent.status.ended) == (State.QUEUED, False)
    accept(node, "rome")
    assert (sent.state, sent.status.ended) == (State.ACCEPTED, True)
    assert [(delivery.peer, delivery.state) for delivery in sent.deliveries] == [("rome", State.ACCEPTED)]
    assert node.find(sent.id) is None, "an id alone says nothing of what was forgotten"


def test_with_a_receipt_it_is_not_done_before_that_is_home(node):
    """Accepted is on the way; processed is the end."""
    sent = node.send(b"x", to="rome", receipt=True)
    accept(node, "rome")
    assert (sent.state, sent.status.ended) == (State.ACCEPTED, False)
    report(node, sent, "rome")
    assert (sent.state, sent.status.ended) == (State.PROCESSED, True)
    assert node.status(sent.id).state is State.PROCESSED


def test_what_waits_for_a_held_peer_is_shown_as_held(node):
    """Only what is queued: what the peer has is not held by holding it."""
    both = node.send(b"x", to="all", receipt=True)
    accept(node, "berlin")
    for peer in ("berlin", "rome"):
        node.outbox.hold(peer, "test")
    assert {delivery.peer: delivery.state for delivery in both.deliveries} == {
        "berlin": State.ACCEPTED, "rome": State.HELD,
    }  # fmt: skip


def test_waiting_gives_the_result_as_its_channel_reads_it(node):
    """One peer: its result. Several: each by its name, None for who said nothing."""
    one = node.send({"a": 1}, channel="typed", receipt=True)
    report(node, one, "rome", result=b'{"total":7}', content_type="application/json")
    assert one.wait(0) == {"total": 7}
    several = node.send(b"x", to="all", receipt=True)
    report(node, several, "rome", result=b"done", content_type="text/plain; charset=utf-8")
    report(node, several, "berlin")
    assert several.wait(0) == {"berlin": None, "rome": "done"}


def test_waiting_fails_with_what_every_peer_said(node):
    """All that ended badly are named with their reasons, and nobody else."""
    sent = node.send(b"x", to="all", receipt=True)
    report(node, sent, "rome", State.FAILED, "out of stock")
    report(node, sent, "berlin")
    with pytest.raises(DeliveryFailed, match=rf"message {sent.id}: rome: failed: out of stock$"):
        sent.wait(0)


def test_waiting_has_an_end(node):
    """The message stays on its way, and the error says in which state it is."""
    sent = node.send(b"x", to="rome")
    with pytest.raises(WaitTimeout, match=r"queued after 0.01 s; it stays on its way"):
        sent.wait(0.01)
    assert sent.state is State.QUEUED


def test_waiting_is_ended_by_the_news(node):
    """A thread that waits without a limit is woken by the receipt."""
    sent = node.send(b"x", to="rome", receipt=True)
    found = []
    thread = threading.Thread(target=lambda: found.append(sent.wait(60)))
    thread.start()
    report(node, sent, "rome", result=b"done", content_type="application/octet-stream")
    thread.join(60)
    assert found == [b"done"]


def test_only_what_no_peer_will_get_is_taken_back(node):
    """True if nobody gets it; a message that one peer has, or may have, is not taken back."""
    assert node.send(b"x", to="all").cancel()
    sent = node.send(b"x", to="all")
    accept(node, "rome")
    assert not sent.cancel()
    assert {delivery.peer: delivery.state for delivery in sent.deliveries} == {
        "berlin": State.CANCELLED, "rome": State.ACCEPTED,
    }  # fmt: skip
    under_way = node.send(b"x", to="rome")
    (stats,) = node.outbox.lanes("rome")
    node.outbox.take(stats.lane, 10, 1 << 20)
    assert not under_way.cancel()


def test_a_handle_for_an_id_alone_says_what_the_store_knows(node):
    """And of an id that nobody sent: nothing, and that is no end."""
    sent = node.send(b"x", to="rome", receipt=True)
    assert node.find(sent.id).state is State.QUEUED
    assert node.find("00000000-0000-4000-8000-000000000000") is None
    unknown = Sent.known(node.runtime, bytes(16))
    assert unknown.existed
    assert unknown.deliveries == ()


def test_sending_the_same_id_again_is_the_same_message(node):
    """Said by the handle, so that a caller who tries again can tell."""
    first = node.send(b"x", to="rome", dedup_key="7")
    again = node.send(b"x", to="rome", dedup_key="7")
    assert (first.existed, again.existed) == (False, True)
    assert first.id == again.id
    assert sum(stats.depth for stats in node.outbox.lanes("rome")) == 1


def test_the_next_number_of_the_lane_does_not_matter_to_an_old_handle(node):
    """It speaks of its own message, not of what was sent after it."""
    first, second = node.send(b"1", to="rome"), node.send(b"2", to="rome")
    (stats,) = node.outbox.lanes("rome")
    batch = node.outbox.take(stats.lane, 1, 1 << 20)
    node.outbox.settle(stats.lane, Head(1, batch.entries[0].id))
    assert (first.state, second.state) == (State.ACCEPTED, State.QUEUED)
