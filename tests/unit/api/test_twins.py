"""The same run of a schedule from two nodes is handled once, by whoever takes messages out."""

import pytest
from support.one_node import KEY, open_node

from dropr_core.api.node import Node
from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import Arrival, Job
from dropr_core.model import envelope
from dropr_core.model.message import Message
from dropr_core.model.names import START, Head, SourceLane, StoreId, id_of_run

RUN = id_of_run("nightly", "jobs", 1_767_225_600_000)
WAYS = ["receive", "batches", "by hand", "acknowledged"]


@pytest.fixture(params=["memory", "sqlite", "fs"])
def node(tmp_path, request):
    """A node to which two others send, over each storage."""
    mapping = {
        "node": "ware", "data": str(tmp_path / "data"), "storage": request.param, "limits": {"min_free": 0},
        "peers": {name: {"url": "http://127.0.0.1:9", "key": KEY} for name in ("berlin", "rome")},
    }  # fmt: skip
    with Node.open(from_mapping(mapping, tmp_path)) as node:
        yield node


def arrive(node, sender, identity=RUN, sequence=1, after=START):
    """A message that a peer has brought."""
    lane = SourceLane(sender, StoreId(sender.ljust(8, "-").encode()), "jobs", 5)
    message = Message(id=identity, sender=sender, channel="jobs", priority=5)
    job = Job(identity, envelope.encode(message, sender.encode()), sequence, None, True)
    (answer,) = node.inbox.accept([Arrival(lane, after, Head(sequence, identity), [job])])
    assert answer.taken


def take(node, way):
    """The bodies of what is handed out and acknowledged."""
    if way == "receive":
        return [message.body for message in node.receive("jobs", wait=0)]
    if way == "batches":
        return [message.body for batch in node.receive_batches("jobs", wait=0) for message in batch]
    if way == "acknowledged":
        return [(message.ack(), message.body)[1] for message in node.receive("jobs", wait=0)]
    consumer, bodies = node.consumer("jobs"), []
    try:
        while found := consumer.claim():
            bodies += [found[0].body]
            found[0].ack("done")
    finally:
        consumer.close()
    return bodies


@pytest.mark.parametrize("way", WAYS)
def test_the_second_of_two_is_not_handed_out(node, way):
    """Both wait: the first that came is handled; the other's sender is told that it was."""
    arrive(node, "rome")
    arrive(node, "berlin")
    assert take(node, way) == [b"rome"]
    assert node.inbox.counts()["jobs"].get("ready", 0) == 0
    _, (told,) = node.inbox.outcomes("berlin", None, 0, 10)
    assert str(told.state) == "processed"
    assert "the same run came from rome before" in told.reason


@pytest.mark.parametrize("way", WAYS)
def test_it_is_known_also_when_it_was_handled_long_before(node, way):
    """Hours lie between the two, and the channel keeps nothing of what is done."""
    arrive(node, "rome")
    assert take(node, way) == [b"rome"]
    node.inbox.sweep()
    arrive(node, "berlin")
    assert take(node, way) == []


def test_one_that_failed_does_not_count(node):
    """Its twin may do what it could not."""
    arrive(node, "rome")
    arrive(node, "berlin")
    for message in node.receive("jobs", wait=0, limit=1):
        message.bury("not today")
    assert take(node, "receive") == [b"berlin"]


def test_while_the_first_is_in_work_the_second_is_not_handed_out(node):
    """Two consumers at once get one of the two."""
    arrive(node, "rome")
    arrive(node, "berlin")
    with_first = node.consumer("jobs")
    try:
        (first,) = with_first.claim()
        assert take(node, "receive") == []
        first.ack()
    finally:
        with_first.close()


def test_equal_ids_of_other_kinds_are_left_alone(node):
    """Only runs of schedules are compared: what else has an id of its own is its sender's matter."""
    for sender in ("rome", "berlin"):
        arrive(node, sender, RUN[:6] + b"\x70" + RUN[7:])
    assert sorted(take(node, "receive")) == [b"berlin", b"rome"]


def test_the_gateways_door_takes_only_the_first(tmp_path):
    """Programs in foreign dialects get one of the two as well."""
    import logging

    from dropr_core.gateway.claiming import Claimer, Wanted

    with open_node(tmp_path) as node:
        arrive(node, "rome")
        arrive(node, "berlin")
        claimer = Claimer(node.runtime, 1000, logging.getLogger("test"))
        taken = claimer.take(Wanted(("jobs",), 10, waits=False))
        assert [envelope.body_of(claim.envelope) for claim, _ in taken.claims] == [b"rome"]
        claimer.close()
