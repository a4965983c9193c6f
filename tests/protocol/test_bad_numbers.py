"""A peer with a valid key sends what no dropr makes: only that delivery, lane or receipt is refused, with a code."""

import pytest
from support.lanes import SHOP, THERE, Node, ident

from dropr_core.contracts.storage import Ack
from dropr_core.errors import BadFrame
from dropr_core.model import envelope
from dropr_core.model.limits import MAX_CONTENT_TYPE, MAX_HEADERS, MAX_KEY, MAX_REASON, MAX_REJECTION, MAX_RESULT
from dropr_core.model.message import Message
from dropr_core.model.names import START
from dropr_core.protocol import messages as wire
from dropr_core.protocol.batches import accept_push
from dropr_core.protocol.outcomes import to_outcomes
from dropr_core.system.clock import FakeClock

NAN, INF = float("nan"), float("inf")


def make_part(*messages, channel="orders", notes=(), after=START, upto=None):
    """A lane's share of a push with these messages."""
    data = [envelope.encode(message, b"body") for message in messages]
    last = (after[0] + len(data), messages[-1].id if messages else bytes(16)) if upto is None else upto
    return wire.LanePart(channel, 5, after, last, data, list(notes))


def make_message(number, **fields):
    """A message of the shop."""
    return Message(**({"id": ident(number), "sender": SHOP, "channel": "orders"} | fields))


def push(*parts):
    """What the receiver says, and the numbers that entered its queue."""
    node = Node(THERE, SHOP, FakeClock())
    verdicts, _ = accept_push(node.inbox, SHOP, b"s" * 8, parts, lambda _channel: True, None)
    claims = node.inbox.claim(["orders", "news"], 100, node.consumer)
    assert all(node.inbox.settle([Ack(claim) for claim in claims])), "everything that entered can be handled"
    return verdicts, [int.from_bytes(claim.id, "big") for claim in claims]


@pytest.mark.parametrize(
    "fields",
    [
        {"delay": NAN}, {"delay": INF}, {"delay": -1.0}, {"delay": 1e11}, {"expires_in": NAN}, {"expires_in": -INF},
        {"created_at": NAN}, {"created_at": INF}, {"hops": -1}, {"key": ""}, {"key": "k" * (MAX_KEY + 1)},
        {"content_type": ""}, {"content_type": "x" * (MAX_CONTENT_TYPE + 1)}, {"content_type": "text/plain\nX: y"},
        {"content_type": "text/\u00e4"}, {"headers": {"a": "x" * MAX_HEADERS}}, {"sender": "shop\nX=1"}, {"sender": ""},
    ],
    ids=str,
)  # fmt: skip
def test_only_the_message_that_breaks_a_rule_is_refused(fields):
    """Its neighbours in the same lane arrive; the code says that it is the message."""
    (verdict,), arrived = push(make_part(make_message(1), make_message(2, **fields), make_message(3)))
    assert verdict.taken
    assert [(index, code) for index, code, _ in verdict.rejected] == [(1, "bad_message")]
    assert len(verdict.rejected[0][2].encode()) <= MAX_REJECTION
    assert arrived == [1, 3]


def test_a_message_among_many_alike_is_checked_as_well():
    """The fast way for messages that are made alike lets no time pass that is none."""
    many = [make_message(number, created_at=1.7e9 + number) for number in range(1, 21)]
    many[10] = make_message(11, created_at=NAN)
    (verdict,), arrived = push(make_part(*many))
    assert [(index, code) for index, code, _ in verdict.rejected] == [(10, "bad_message")]
    assert arrived == [number for number in range(1, 21) if number != 11]


@pytest.mark.parametrize("age", [NAN, INF, -INF, -1.0, 1e300])
def test_an_impossible_age_refuses_its_message_only(age):
    """A note of a push is a number from outside as well."""
    notes = [(1, age, False), (2, 5.0, False), (7, 1.0, False), (-1, 1.0, True)]
    (verdict,), arrived = push(make_part(make_message(1), make_message(2), make_message(3), notes=notes))
    assert [(index, code) for index, code, _ in verdict.rejected] == [(1, "bad_message")]
    assert arrived == [1, 3]


@pytest.mark.parametrize(
    "positions",
    [
        {"upto": (2**63, ident(1))}, {"after": (2**63, ident(9)), "upto": (2**63 + 1, ident(1))},
        {"after": (-1, bytes(16)), "upto": (0, ident(1))}, {"upto": (0, bytes(16))}, {"upto": (1, b"short")},
        {"after": (0, b""), "upto": (1, ident(1))}, {"after": (5, ident(5)), "upto": (4, ident(4))},
    ],
    ids=str,
)  # fmt: skip
def test_a_lane_with_impossible_positions_waits_and_the_others_go_on(positions):
    """A sequence of 2^63 and above reaches no storage; it is the lane's trouble and nobody else's."""
    wrong = make_part(make_message(1), **positions)
    good = make_part(make_message(2, channel="news"), channel="news")
    verdicts, arrived = push(wrong, good)
    assert not verdicts[0].taken
    assert verdicts[0].later > 0
    assert verdicts[0].reason.startswith("bad_lane: ")
    assert verdicts[1].taken
    assert arrived == [2]


@pytest.mark.parametrize(
    "value",
    [
        wire.AskReceipts(wire.Cursor(b"l" * 8, 2**63), 1.0), wire.AskReceipts(wire.Cursor(b"l" * 8, -1), 1.0),
        wire.AskReceipts(wire.Cursor(b"l" * 9, 1), 1.0), wire.AskReceipts(wire.Cursor(b"l" * 8, 1), NAN),
        wire.AskReceipts(wire.Cursor(b"l" * 8, 1), INF), wire.AskReceipts(wire.Cursor(b"l" * 8, 1), -1.0),
        wire.Push(b"store", []), wire.Push(b"s" * 8, [], wire.Cursor(b"l" * 8, 2**63)),
        wire.Fetch([(b"s" * 8, "orders", 5, 2**63, bytes(16))], None, 0.0),
        wire.Fetch([(b"s" * 8, "orders", 5, 1, b"short")], None, 0.0), wire.Fetch([], None, NAN),
        wire.Fetch([], wire.Outcomes(b"l" * 8, 2**63, []), 0.0), wire.AskHeads(b"", []),
        wire.Have(b"id", "orders", 1, bytes(32)), wire.Have(ident(1), "orders", -1, bytes(32)),
        wire.Read(wire.Have(ident(1), "orders", 1, bytes(32)), -1, 5), wire.Had(-1),
        wire.HeadsAnswer([(-1, bytes(16))]),
        wire.Welcome(1, b"n", b"s", b"i" * 8, 0, 1, 1), wire.PushResult(True, (2**63, bytes(16))),
        wire.PushResult(False, (0, bytes(16)), later=NAN), wire.Fetched(b"store", [], wire.Cursor(b"", 0)),
    ],
    ids=repr,
)  # fmt: skip
def test_numbers_that_nobody_counts_to_are_no_request_and_no_answer(value):
    """Whatever number of a request or an answer is impossible, it is a bad frame and reaches no store."""
    with pytest.raises(BadFrame):
        wire.decode(wire.encode(value), type(value))


def test_a_receipt_that_no_receiver_may_claim_does_not_stop_the_others():
    """Impossible rows of a page are left out and told; what is only too long is cut, for the work is done."""
    rows = [
        wire.OutcomeRow(1, ident(1), "processed", result=b"r" * (MAX_RESULT + 1), content_type="x" * 1000),
        wire.OutcomeRow(2, ident(2), "queued"), wire.OutcomeRow(2**63, ident(3), "processed"),
        wire.OutcomeRow(3, b"id", "processed"), wire.OutcomeRow(-1, ident(3), "processed"),
        wire.OutcomeRow(4, ident(4), "failed", "\u00e4" * 10_000),
    ]  # fmt: skip
    told = []
    page = to_outcomes(rows, told.append)
    assert [(outcome.number, str(outcome.state)) for outcome in page] == [(1, "processed"), (4, "failed")]
    assert len(told) == 4
    assert page[0].result is None
    assert "over the limit" in page[0].reason
    assert len(page[0].content_type) <= MAX_CONTENT_TYPE
    assert len(page[1].reason.encode()) <= MAX_REASON


def test_every_number_of_the_protocol_is_bounded():
    """No shape of the protocol takes a bare number or float, but those that the endpoint checks one by one."""
    checked = {"Hello.version", "Welcome.version", "LanePart.priority", "OutcomeRow.number", "FrameHeader.counter"}
    bare = [
        f"{shape.__name__}.{field.name}"
        for shape in vars(wire).values()
        if isinstance(shape, type) and issubclass(shape, wire.msgspec.Struct) and shape is not wire.msgspec.Struct
        for field in wire.msgspec.structs.fields(shape)
        if field.type in (int, float)
    ]
    assert set(bare) <= checked
