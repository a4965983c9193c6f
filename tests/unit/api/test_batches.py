"""Batches: what many sends have in common is done once, and nobody sees it."""

import msgspec
import pytest
from support.one_node import open_node

from dropr_core.errors import UsageError
from dropr_core.model import envelope
from dropr_core.model.names import Lane, format_id


@pytest.fixture
def node(tmp_path):
    with open_node(tmp_path, channels={"orders": {"to": "rome"}, "prices": {"to": "rome"}}) as node:
        yield node


def lane(node, channel):
    """What waits in a lane."""
    return node.runtime.storage.outbox.take(Lane("rome", channel, 5), 100, 1 << 20)


def test_a_batch_keeps_the_order_of_messages_of_all_kinds(node):
    """Bytes that go as they are, alone or with options, on several ways, as a loop mixes them: each lane has them in
    the order in which they were sent, and each handle is that of its message.
    """
    with node.batch() as batch:
        for number in range(30):
            options = {"receipt": True} if number % 7 == 6 else {}
            batch.send(b"%d" % number, channel="orders" if number % 5 else "prices", **options)
        assert len(batch) == 30
    lanes = {"orders": [n for n in range(30) if n % 5], "prices": [n for n in range(30) if not n % 5]}
    for channel, wanted in lanes.items():
        got = lane(node, channel)
        assert [int(envelope.body_of(one)) for one in got.envelopes] == wanted
        assert [envelope.header_of(one).receipt for one in got.envelopes] == [n % 7 == 6 for n in wanted]
        assert [format_id(entry.id) for entry in got.entries] == [batch.sent[n].id for n in wanted]


def test_a_batch_of_bytes_alike_is_as_many_sends(node):
    """The short cut for what batches carry most says of each message what a `send` of its own says."""
    with node.batch() as batch:
        for number in range(20):
            batch.send(b"x" * number, channel="orders")
    node.send(b"y", channel="orders")
    got = lane(node, "orders")
    opened = [envelope.decode(one) for one in got.envelopes]
    assert [one.body for one in opened] == [*(b"x" * number for number in range(20)), b"y"]
    assert (
        [one.message.id for one in opened]
        == [entry.id for entry in got.entries]
        == sorted(entry.id for entry in got.entries)
    )
    same = [msgspec.structs.replace(one.message, id=b"", created_at=0.0) for one in opened]
    assert all(one == same[-1] for one in same)
    assert {sent.durability for sent in batch.sent} == {"commit"}


def test_a_batch_refuses_at_once_what_does_not_fit_though_the_last_one_did(node):
    """Another channel, an option that does not exist, a body that is too big: each is refused where it is sent, and
    what was sent before it is stored.
    """
    with node.batch() as batch:
        batch.send(b"1", channel="orders")
        for wrong in ({"channel": "nowhere"}, {"channel": "orders", "to": "atlantis"}):
            with pytest.raises(UsageError):
                batch.send(b"2", **wrong)
        with pytest.raises(TypeError, match="no option"):
            batch.send(b"2", channel="orders", colour="red")
        batch.send(b"3", channel="orders")
    assert len(batch.sent) == len(lane(node, "orders").entries) == 2


def test_a_batch_for_several_peers_and_one_that_expires_are_stored_for_each(tmp_path):
    """What has more than a place in one lane to be remembered is none of the short cut's."""
    channels = {"all": {"to": ["rome", "berlin"]}, "brief": {"to": "rome", "expires_in": "1h"}}
    with open_node(tmp_path, channels=channels) as node:
        with node.batch() as batch:
            for number in range(6):
                batch.send(b"%d" % number, channel="all" if number < 3 else "brief")
        assert [[one.peer for one in sent.deliveries] for sent in batch.sent] == [["rome", "berlin"]] * 3 + [
            ["rome"]
        ] * 3
        assert all((one.until is not None) is (number > 2) for number, sent in enumerate(batch.sent)
                   for one in sent.deliveries)  # fmt: skip
