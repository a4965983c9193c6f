"""The table of docs/limits.md, walked: each limit is kept by one side and checked by the other."""

from pathlib import Path

import pytest
from support.lanes import KEY, SHOP, THERE, Node, Sender, ident

import dropr_core as dropr
from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import Selection
from dropr_core.contracts.transport import Caller
from dropr_core.delivery.body_upload import LARGEST
from dropr_core.errors import BadEnvelope, BadFrame, ConfigError, Refused, UsageError
from dropr_core.model import envelope
from dropr_core.model.limits import (
    MAX_ANSWER,
    MAX_BATCH_BYTES,
    MAX_BATCH_COUNT,
    MAX_CHANNEL,
    MAX_CONTENT_TYPE,
    MAX_ENVELOPE_HEADER,
    MAX_FRAME_HEADER,
    MAX_HEADERS,
    MAX_HOPS,
    MAX_INLINE,
    MAX_KEY,
    MAX_NAME,
    MAX_REASON,
    MAX_REJECTION,
    MAX_RESULT,
    MAX_SECONDS,
    MAX_WAIT,
    PIECE,
    TABLE,
    clip,
    max_request,
)
from dropr_core.model.message import Message
from dropr_core.protocol import messages as wire
from dropr_core.protocol.batches import accept_push
from dropr_core.protocol.endpoint import Limits
from dropr_core.protocol.frames import HEAD_SIZE, REQUEST, FrameHeader, read_head, seal
from dropr_core.protocol.outcomes import from_outcome, to_outcomes
from dropr_core.system.clock import FakeClock

LONG = "c" * (MAX_CHANNEL + 1)


def config(directory, **changes):
    """A node with one peer, over the storage in memory."""
    mapping = {"node": SHOP, "storage": "memory", "insecure": True, "data": str(directory / "data"),
               "peers": {THERE: {"mode": "pull"}}}  # fmt: skip
    return from_mapping(mapping | changes, directory)


def send_refuses(**fields):
    """`send` says no, and nothing is stored."""

    def check(directory):
        with dropr.open(config(directory)) as node:
            with pytest.raises(UsageError):
                node.send(b"x", to=THERE, **fields)
            assert not node.outbox.lanes()

    return check


def configuration_refuses(**changes):
    """The configuration says no."""

    def check(directory):
        with pytest.raises(ConfigError):
            config(directory, **changes)

    return check


def delivery_fails(code, channel="orders", age=0.0, max_body=None, body=b"", **fields):
    """A receiver refuses that one delivery with a code, whoever made it."""

    def check(_directory):
        node = Node(THERE, SHOP, FakeClock())
        message = Message(**({"id": ident(1), "sender": SHOP, "channel": channel} | fields))
        notes = [(0, age, False)] if age else []
        part = wire.LanePart(channel, 5, (0, bytes(16)), (1, ident(1)), [envelope.encode(message, body)], notes)
        (verdict,), _ = accept_push(node.inbox, SHOP, b"s" * 8, [part], lambda _channel: True, max_body)
        assert [(index, said) for index, said, _reason in verdict.rejected] == [(0, code)]
        assert verdict.taken

    return check


def envelope_with_a_long_header_is_refused(_directory):
    """No header is longer than that, whatever stands in it."""
    message = Message(id=ident(1), sender=SHOP, headers={"a": "x" * MAX_ENVELOPE_HEADER})
    with pytest.raises(BadEnvelope):
        envelope.check(envelope.encode(message, b""))


def headers_fit_into_an_envelope(_directory):
    """The shortest names and values, with the longest of everything else, fit into an envelope's header."""
    names = [chr(0x4E00 + number) for number in range(MAX_HEADERS // 3)]
    message = Message(id=ident(1), sender="s" * MAX_NAME, channel="c" * MAX_CHANNEL, key="\U0001f4ee" * MAX_KEY,
                      content_type="t" * MAX_CONTENT_TYPE, headers=dict.fromkeys(names, ""), delay=1e9,
                      expires_in=1e9, created_at=1e9)  # fmt: skip
    assert len(envelope.encode(message, b"")) < MAX_ENVELOPE_HEADER


def ack_refuses(directory):
    """A result over the limit is refused where it is made."""
    with dropr.open(config(directory)) as node:
        node.put(b"x", channel="orders")
        for received in node.receive("orders", wait=0):
            with pytest.raises(dropr.DroprError):
                received.ack("r" * (MAX_RESULT + 1))
            received.ack("r" * MAX_RESULT)


def page_of(**fields):
    """A receipt as it comes home."""
    row = wire.OutcomeRow(**({"number": 1, "id": ident(1), "state": "failed"} | fields))
    return to_outcomes([row], pytest.fail)[0]


def receipt_is_kept_without_it(_directory):
    """The work is done though its result is too long."""
    assert page_of(result=b"r" * (MAX_RESULT + 1)).result is None


def reasons_are_cut_where_they_arise(directory):
    """What a handler says, surrogates and all, is stored and sent within the limit."""
    with dropr.open(config(directory)) as node:
        node.put(b"x", channel="orders")
        for received in node.receive("orders", wait=0):
            received.bury("\udcff\u00e4" * 10_000)
            (info,) = node.inbox.scan(Selection())
            assert 0 < len(info.reason.encode()) <= MAX_REASON
    assert len(clip("\udcff\u00e4" * 10_000).encode()) <= MAX_REASON
    assert from_outcome(page_of(reason="x" * 10_000)).reason == clip("x" * 10_000)


def reasons_are_cut_on_arrival(_directory):
    """A peer that says too much is cut short."""
    assert len(page_of(reason="\u00e4" * MAX_REASON).reason.encode()) <= MAX_REASON


def rejections_are_short(_directory):
    """Fifty thousand of them fit into an answer."""
    node = Node(THERE, SHOP, FakeClock())
    part = wire.LanePart(LONG * 100, 5, (0, bytes(16)), (1, ident(1)), [b""])
    (verdict,), _ = accept_push(node.inbox, SHOP, b"s" * 8, [part], lambda _channel: True, None)
    assert len(verdict.rejected[0][2].encode()) <= MAX_REJECTION
    assert MAX_BATCH_COUNT * (MAX_REJECTION + 80) < MAX_ANSWER


def sender_keeps_rejections_short(_directory):
    """What the receiver says of a delivery is cut before it is stored."""
    sender, there = Sender(FakeClock(), None), Node(THERE, SHOP, FakeClock())
    sender.server = sender.wires.server = there
    sender.send(1)
    push = sender.ship()
    answer = there.endpoint.answer

    def loud(request, **more):
        there.endpoint.answer = answer
        said = wire.PushResult(True, (1, ident(1)), [(0, "c" * 1000, "r" * 1000)])
        return there.endpoint._seal(request, wire.encode(wire.Pushed([said])), "ok")

    there.endpoint.answer = loud
    push.carry()
    sender.turn()
    (delivery,) = sender.outbox.status(ident(1))
    assert str(delivery.state) == "failed"
    assert len(delivery.reason) <= MAX_REJECTION + 100


def request_is_refused(_directory):
    """By its first bytes, before the rest is read."""
    node = Node(THERE, SHOP, FakeClock())
    most = node.endpoint.limits.max_request
    assert most == max_request(Limits().batch_bytes)
    with pytest.raises(Refused) as caught:
        node.endpoint.admit(frame(most + 1), Caller("test"))
    assert caught.value.code == "too_big"


def frame(tail=0, **changes):
    """The beginning of a request by the shop."""
    fields = {"sender": SHOP, "receiver": THERE, "request": b"r" * 16, "verb": "push", "digest": b""}
    return seal(REQUEST, FrameHeader(**(fields | changes)), b"", KEY, tail)[0][:HEAD_SIZE]


def stranger_is_refused(_directory):
    """A name that no configuration may have is nobody's."""
    node = Node(THERE, SHOP, FakeClock())
    with pytest.raises(Refused):
        node.endpoint.admit(frame(sender="n" * (MAX_NAME + 1)), Caller("test"))


def answers_are_bounded(_directory):
    """The largest batch and one message more, and all that travels with it."""
    assert MAX_ANSWER >= MAX_BATCH_BYTES + MAX_INLINE


def answer_is_none(_directory):
    """A longer answer is not read."""
    with pytest.raises(Refused):
        read_head(frame(MAX_ANSWER + 1), MAX_ANSWER)


def pieces_are_cut(_directory):
    """Nothing that is brought is larger than what is taken at once."""
    assert LARGEST <= PIECE


def piece_is_refused(_directory):
    """A larger one is refused, though the request has room for it."""
    from dropr_core.protocol.body_requests import BodyRequests

    bodies = BodyRequests(Node(THERE, SHOP, FakeClock()).outbox, None, lambda: None, lambda _name, _details: None)
    chunk = wire.Chunk(wire.Have(ident(1), "orders", 1 << 30, bytes(32)), 0, b"")
    with pytest.raises(Refused, match="too_big"):
        bodies.chunk(SHOP, chunk, memoryview(bytes(PIECE + 1)))


def frame_header_is_refused(_directory):
    """Longer headers are made by nobody and read by nobody."""
    with pytest.raises(BadFrame):
        frame(session=b"s" * (MAX_FRAME_HEADER + 1))


def polls_are_short(_directory):
    """A node asks for no longer poll than its peer keeps."""
    sender, there = Sender(FakeClock(), None), Node(THERE, SHOP, FakeClock())
    sender.server = sender.wires.server = there
    sender.send(1, receipt=True)
    sender.flow(3)
    (poll,) = [flight for flight in sender.turn() if flight.held is not None or not flight.arrive()]
    head = read_head(poll.frame, 1 << 30)
    assert wire.decode(poll.frame[head.offset :], wire.AskReceipts).wait <= MAX_WAIT


def body_is_refused(directory):
    """`send` keeps to the limit of its own node."""
    with dropr.open(config(directory, limits={"max_body": "5B"})) as node, pytest.raises(UsageError):
        node.send(b"123456", to=THERE)


HERE = "test_limits.py"
NUMBERS = "test_bad_numbers.py"

SIDES = {
    "name of a channel": (send_refuses(channel=LONG), delivery_fails("bad_name", channel=LONG)),
    "name of a node": (configuration_refuses(node="n" * (MAX_NAME + 1)), stranger_is_refused),
    "ordering key": (send_refuses(key="k" * (MAX_KEY + 1)), delivery_fails("bad_message", key="k" * (MAX_KEY + 1))),
    "content type": (
        send_refuses(content_type="x" * 300_000),
        delivery_fails("bad_message", content_type="x" * (MAX_CONTENT_TYPE + 1)),
    ),
    "headers together": (
        send_refuses(headers={"a": "x" * MAX_HEADERS}),
        delivery_fails("bad_message", headers={"a": "x" * MAX_HEADERS}),
    ),
    "header of an envelope": (headers_fit_into_an_envelope, envelope_with_a_long_header_is_refused),
    "body within its envelope (`limits.inline_body`)": (
        configuration_refuses(limits={"inline_body": f"{MAX_INLINE + 1}B"}),
        request_is_refused,
    ),
    "body (`limits.max_body`, of each node)": (
        body_is_refused,
        delivery_fails("too_big", max_body=5, body=b"123456"),
    ),
    "delay, expiry, age": (send_refuses(delay=float("nan")), delivery_fails("bad_message", age=MAX_SECONDS * 2)),
    "relays": (None, delivery_fails("loop", hops=MAX_HOPS + 1)),
    "result": (ack_refuses, receipt_is_kept_without_it),
    "reason, error text": (reasons_are_cut_where_they_arise, reasons_are_cut_on_arrival),
    "reason of a refused delivery": (rejections_are_short, sender_keeps_rejections_short),
    "receipts in a page": (
        f"{HERE}:test_large_results_ride_on_pushes_in_pages_of_bounded_size",
        f"{HERE}:test_the_receiver_refuses_what_the_sender_should_have_cut",
    ),
    "lanes in a push, a probe, a fetch": (
        f"{HERE}:test_more_lanes_than_a_push_takes_go_with_the_next",
        f"{HERE}:test_the_receiver_refuses_what_the_sender_should_have_cut",
    ),
    "envelopes in a push (`limits.batch_count` of the receiver, announced)": (
        configuration_refuses(limits={"batch_count": MAX_BATCH_COUNT + 1}),
        f"{HERE}:test_the_receiver_refuses_what_the_sender_should_have_cut",
    ),
    "envelopes in a push (`limits.batch_bytes` of the receiver, announced)": (
        f"{HERE}:test_a_push_is_cut_in_bytes_though_single_messages_are_large",
        request_is_refused,
    ),
    "request": (f"{HERE}:test_the_largest_request_has_room_for_all_that_a_batch_may_hold", request_is_refused),
    "answer": (answers_are_bounded, answer_is_none),
    "piece of a body": (pieces_are_cut, piece_is_refused),
    "header of a frame": (frame_header_is_refused, frame_header_is_refused),
    "sequence number": (None, f"{NUMBERS}:test_a_lane_with_impossible_positions_waits_and_the_others_go_on"),
    "long poll": (polls_are_short, f"{NUMBERS}:test_numbers_that_nobody_counts_to_are_no_request_and_no_answer"),
}


@pytest.mark.parametrize("side", [0, 1], ids=["made", "taken"])
@pytest.mark.parametrize("limit", TABLE, ids=lambda limit: limit.what)
def test_each_limit_is_kept_and_checked(limit, side, tmp_path):
    """For each line of the table both sides do what the line says."""
    check = SIDES[limit.what][side]
    if isinstance(check, str):  # a test of its own
        file, _, name = check.partition(":")
        assert f"def {name}(" in (Path(__file__).parent / file).read_text(encoding="utf-8")
    elif check is not None:
        check(tmp_path)


def test_the_table_has_no_line_that_nobody_checks():
    """Nothing is checked here that the table does not say, and the reverse."""
    assert [limit.what for limit in TABLE] == list(SIDES)


def test_the_page_about_limits_says_what_the_code_has():
    """docs/limits.md has one line for each limit of the table, with its numbers."""
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert lines == [f"| {' | '.join(limit)} |" for limit in TABLE]
