"""Limits have two sides: what one node makes, the other takes, in bytes and in number."""

import random

import msgspec
import pytest
from support.lanes import SHOP, THERE, Fetcher, Node, Sender, ident

from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import Ack, NewMessage
from dropr_core.errors import ConfigError
from dropr_core.model import envelope
from dropr_core.model.limits import (
    MAX_BATCH_BYTES,
    MAX_BATCH_COUNT,
    MAX_INLINE,
    MAX_LANES,
    PUSH_LANES,
    RECEIPTS_BYTES,
    max_request,
)
from dropr_core.model.message import Message
from dropr_core.model.names import Lane
from dropr_core.protocol import messages as wire
from dropr_core.protocol.frames import read_head
from dropr_core.protocol.link import Link, LinkSettings
from dropr_core.system.clock import FakeClock


def pair(**context):
    """A sender and its receiver, under a clock of their own."""
    clock = FakeClock()
    there = Node(THERE, SHOP, clock)
    return Sender(clock, there, **context), there


def fetching():
    """A node that fetches, and the one that it fetches from."""
    clock = FakeClock()
    office = Sender(clock, None)
    return Fetcher(clock, office), office


def process(node, size, count=1000):
    """Handle what is ready, each with a result of ``size`` bytes."""
    claims = node.inbox.claim(["orders"], count, node.consumer)
    node.inbox.settle([Ack(claim, b"r" * size, "text/plain") for claim in claims])
    return len(claims)


def test_large_results_come_home_from_a_node_that_fetches():
    """150 results of 60 kB are no page that the other side refuses: they come in pages that it takes."""
    fetcher, office = fetching()
    for number in range(1, 151):
        office.send(number, receipt=True)
    fetcher.flow()
    assert process(fetcher, 60_000) == 150
    fetcher.flow(60)
    assert [office.state(number) for number in range(1, 151)] == ["processed"] * 150


def test_large_results_ride_on_pushes_in_pages_of_bounded_size():
    """What a receiver answers with is bounded in bytes as well as in number."""
    sender, there = pair()
    for number in range(1, 151):
        sender.send(number, receipt=True)
    sender.flow(5)
    assert process(there, 60_000) == 150
    sizes = []
    for _ in range(60):
        for flight in sender.turn():
            flight.arrive()
            if isinstance(flight.answer, bytes):
                sizes.append(len(flight.answer))
            flight.come_back()
    assert [sender.state(number) for number in range(1, 151)] == ["processed"] * 150
    assert max(sizes) < RECEIPTS_BYTES + 1000


def test_more_lanes_than_a_push_takes_go_with_the_next():
    """2,100 channels that wait arrive without a refusal, and so do their heads when all are in doubt."""
    sender, there = pair()
    refused = []
    answer = there.endpoint.answer
    there.endpoint.answer = lambda request, **more: watch(answer(request, **more), refused)
    for number in range(1, 2101):
        sender.send(number, channel=f"c{number}")
    first = sender.ship()
    assert len(lanes_of(first)) == PUSH_LANES <= MAX_LANES
    sender.flow(6)
    assert len(there.ids) == 2100
    assert not refused


def watch(answer, refused):
    """Note an answer that is a refusal."""
    if isinstance(answer, bytes) and (status := read_head(answer, 1 << 30).header.status) != "ok":
        refused.append(status)
    return answer


def lanes_of(flight):
    """The lanes that a push carries."""
    head = read_head(flight.frame, 1 << 30)
    return wire.decode(flight.frame[head.offset :], wire.Push).lanes


def test_a_probe_asks_for_no_more_lanes_than_the_peer_answers():
    """3,000 lanes in doubt after a lost answer are asked for in two probes."""
    link = Link(THERE, LinkSettings(), random.Random(1))
    link.greeted(wire.Welcome(1, b"n" * 16, b"s", b"i" * 8, 1 << 20, 1000, 1 << 40))
    link.doubt(Lane(THERE, f"c{number}", 5) for number in range(3000))
    asked = []
    for _ in range(2):
        (probe,) = link.orders(0.0, [], awaiting=True)
        link.begin(probe)
        asked.append(len(probe.lanes))
        link.probed(probe, [(0, bytes(16))] * len(probe.lanes))
    assert asked == [MAX_LANES, 3000 - MAX_LANES]


def test_a_push_is_cut_in_bytes_though_single_messages_are_large():
    """Lanes whose messages are as large as any go one after the other: no request is above what the peer takes."""
    sender, there = pair()
    for number, channel in enumerate(("a", "b", "c"), 1):
        put(sender, number, channel, MAX_INLINE)
    longest = 0
    for _ in range(12):
        for flight in sender.turn():
            longest = max(longest, len(flight.frame))
            flight.carry()
    assert sorted(there.ids) == [ident(1), ident(2), ident(3)]
    assert longest <= there.endpoint.limits.max_request
    assert sender.told("peer_down") == 0


def put(sender, number, channel, size):
    """A message with a body of ``size`` bytes within its envelope."""
    identity = ident(number)
    data = envelope.encode(Message(id=identity, sender=SHOP, channel=channel), bytes(size))
    sender.outbox.append([NewMessage(identity, channel, 5, (THERE,), data)])


def test_one_message_that_no_peer_takes_is_set_aside_and_its_lane_goes_on():
    """A store of an earlier version may hold an envelope of 16 MiB: it ends with a reason, the next one arrives."""
    sender, there = pair()
    put(sender, 1, "orders", 16 * 1024 * 1024)
    sender.send(2)
    sender.flow(5)
    assert there.ids == [ident(2)]
    assert sender.state(1) == "dead"
    assert "takes" in sender.outbox.status(ident(1))[0].reason
    assert sender.told("peer_down") == 0


@pytest.mark.parametrize(
    ("option", "most"),
    [("inline_body", f"{MAX_INLINE + 1}B"), ("batch_bytes", f"{MAX_BATCH_BYTES + 1}B"),
     ("batch_count", MAX_BATCH_COUNT + 1)],
)  # fmt: skip
def test_no_node_is_configured_beyond_what_every_node_takes(option, most, tmp_path):
    """An option that only the other side would refuse is refused here, where somebody can change it."""
    with pytest.raises(ConfigError, match=f"limits.{option}.*use at most"):
        from_mapping({"node": "shop", "limits": {option: most}}, tmp_path)


def test_the_receiver_refuses_what_the_sender_should_have_cut():
    """Lanes in a push or a probe, messages in a push, receipts in a page: over the limit is a refusal with a code."""
    sender, _there = pair()
    sender.send(1)
    sender.flow(2)
    part = wire.LanePart("orders", 5, (0, bytes(16)), (1, ident(1)), [])
    full = msgspec.structs.replace(part, envelopes=[b""] * (MAX_BATCH_COUNT + 1))
    row = wire.OutcomeRow(1, ident(1), "processed")
    cursor = wire.Outcomes(b"l" * 8, 1, [row] * 1001)
    assert ask(sender, wire.PUSH, wire.Push(b"s" * 8, [part] * (MAX_LANES + 1))) == "too_big"
    assert ask(sender, wire.PUSH, wire.Push(b"s" * 8, [full])) == "too_big"
    assert ask(sender, wire.HEADS, wire.AskHeads(b"s" * 8, [("orders", 5)] * (MAX_LANES + 1))) == "too_big"
    assert ask(sender, wire.FETCH, wire.Fetch([], cursor, 0.0)) == "too_big"


def ask(sender, name, value):
    """The code of the receiver's refusal of a request that is made by hand."""
    result = []
    talk = sender.pusher._talk
    talk.ask(name, value, wire.Pushed, result.append)
    sender.wires.open[-1].carry()
    sender.turn()
    return getattr(result[0], "code", result[0])


def test_the_largest_request_has_room_for_all_that_a_batch_may_hold():
    """What the sender counts, and all that travels with it, is never more than what the receiver takes."""
    long = "c" * 200
    lanes = [wire.LanePart(long, 19, (2**63 - 1, bytes(16)), (2**63 - 1, bytes(16)), []) for _ in range(MAX_LANES)]
    notes = [(number, 1e9 / 3, True) for number in range(MAX_BATCH_COUNT)]
    lanes[0] = msgspec.structs.replace(lanes[0], envelopes=[b""] * MAX_BATCH_COUNT, notes=notes)
    beside = len(wire.encode(wire.Push(b"s" * 8, lanes, wire.Cursor(b"l" * 8, 2**63 - 1))))
    for batch_bytes in (1024, 4 * 1024 * 1024, MAX_BATCH_BYTES):
        most = max(batch_bytes, MAX_INLINE + 256 * 1024)
        assert most + beside + 5 * MAX_BATCH_COUNT <= max_request(batch_bytes)
