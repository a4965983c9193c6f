"""Envelope, frames and wire bodies: what goes out comes back, what is damaged is refused."""

import os

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropr_core.errors import BadEnvelope, BadFrame, ProtocolError, Refused
from dropr_core.model import envelope
from dropr_core.model.message import Message
from dropr_core.protocol import messages as wire
from dropr_core.protocol.frames import (
    ANSWER,
    HEAD_SIZE,
    REQUEST,
    FrameHeader,
    ReplayWindow,
    open_body,
    read_head,
    seal,
    verify,
)

KEY = b"k" * 32
texts = st.text(st.characters(codec="utf-8"), max_size=20)
messages = st.builds(
    Message,
    id=st.binary(min_size=16, max_size=16),
    sender=st.just("shop"),
    channel=st.just("orders"),
    priority=st.integers(0, 9),
    headers=st.dictionaries(texts, texts, max_size=4),
    key=st.none() | texts,
    receipt=st.booleans(),
    delay=st.none() | st.floats(0, 1e9),
    expires_in=st.none() | st.floats(0, 1e9),
)


@given(messages, st.binary(max_size=2000))
def test_envelope_round_trip(message, body):
    """An envelope gives back the very message and body that it was made of."""
    data = envelope.encode(message, body)
    assert envelope.decode(data) == (message, body)
    assert envelope.body_size(data) == len(body)


@given(messages, st.binary(max_size=300), st.data())
def test_envelope_prefix_is_never_valid(message, body, data):
    """No proper beginning of an envelope passes for one: a torn write is seen."""
    whole = envelope.encode(message, body)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(BadEnvelope):
        envelope.decode(whole[:cut])


@given(messages, st.binary(max_size=200), st.data())
def test_envelope_any_flipped_bit_is_seen(message, body, data):
    """One flipped bit anywhere is damage, never another message."""
    whole = bytearray(envelope.encode(message, body))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadEnvelope):
        envelope.decode(bytes(whole))


def test_fault_56_unknown_fields_are_kept_and_unknown_flags_refused():
    """A newer sender's extra header field does not hurt; its critical flag is refused by name."""
    import struct
    import zlib

    import msgspec

    header = msgspec.msgpack.encode({"id": b"i" * 16, "sender": "shop", "colour": "blue"})
    fixed = struct.pack(">BBIQ", 0xD1, 0, len(header), 0)
    data = fixed + struct.pack(">I", zlib.crc32(header, zlib.crc32(fixed))) + header
    assert envelope.decode(data).message.sender == "shop"
    fixed = struct.pack(">BBIQ", 0xD1, 0x40, len(header), 0)
    data = fixed + struct.pack(">I", zlib.crc32(header, zlib.crc32(fixed))) + header
    with pytest.raises(BadEnvelope, match="newer dropr"):
        envelope.decode(data)


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_garbage_never_crashes_a_parser(data):
    """Every parser of outside bytes answers garbage with ProtocolError (or Refused), nothing else."""
    for shape in (wire.Hello, wire.Push, wire.Pushed, wire.Outcomes, wire.Fetch, wire.Fetched, wire.HeadsAnswer):
        try:
            wire.decode(data, shape)
        except BadFrame:
            pass
    try:
        read_head(data, 1000)
    except (BadFrame, Refused):
        pass
    try:
        envelope.decode(data)
    except ProtocolError:
        pass


def frame(body=b"hello", kind=REQUEST, key=KEY, **changes):
    header = FrameHeader(
        **({"sender": "shop", "receiver": "store", "request": b"r" * 16, "verb": "push", "digest": b""} | changes)
    )
    return seal(kind, header, body, key)


@given(st.binary(max_size=3000))
def test_frame_round_trip(body):
    """A sealed frame is verified by its beginning alone and gives back its body."""
    data, mac = frame(body)
    head = read_head(data[:HEAD_SIZE], 10_000)
    assert head.length == len(data)
    assert head.mac == mac
    assert verify(head, [b"other" * 8, KEY]) == KEY
    assert open_body(head, data) == (body, b"")


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_a_tail_follows_the_frame_and_is_not_covered_by_its_digest(body, tail):
    """What follows is given back beside the body; the whole length is known from the beginning."""
    header = FrameHeader("shop", "store", b"r" * 16, "chunk", b"")
    data = seal(REQUEST, header, body, KEY, len(tail))[0] + tail
    head = read_head(data[:HEAD_SIZE], 10_000)
    assert (head.length, verify(head, [KEY])) == (len(data), KEY)
    assert open_body(head, data) == (body, tail)


def test_a_tail_longer_than_the_body_is_refused():
    """A frame that lies about its tail, signed or not, is a bad frame and not a crash."""
    data, _ = frame()
    head = read_head(data, 10_000)
    for tail in (6, 1 << 40, -1):
        lying = attrs.evolve(head, header=msgspec.structs.replace(head.header, tail=tail))
        with pytest.raises(BadFrame):
            open_body(lying, data)


def test_frame_altered_anywhere_is_refused():
    """Whatever bit of a frame is changed on the way, it does not pass."""
    data, _ = frame()
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        try:
            head = read_head(bytes(altered[:HEAD_SIZE]), 10_000)
            passed = verify(head, [KEY]) is not None
            if passed:
                open_body(head, bytes(altered))
        except (BadFrame, Refused):
            passed = False
        assert not passed, position


def test_frame_of_another_key_is_refused():
    """Without the pair's key no frame verifies."""
    data, _ = frame(key=b"x" * 32)
    assert verify(read_head(data, 10_000), [KEY]) is None


def test_frame_claiming_a_huge_body_is_refused_by_its_head():
    """A length over the limit is refused before anything of that size is read or allocated."""
    data, _ = frame(os.urandom(2000))
    with pytest.raises(Refused) as caught:
        read_head(data[:HEAD_SIZE], 1999)
    assert caught.value.code == "too_big"


def test_request_reflected_is_no_answer():
    """A frame says whether it is a request or an answer."""
    assert read_head(frame(kind=REQUEST)[0], 100).kind != read_head(frame(kind=ANSWER)[0], 100).kind


@given(st.lists(st.integers(1, 3000), max_size=200))
def test_replay_window_takes_each_counter_once(counters):
    """However requests overtake each other, none is taken twice."""
    window, taken = ReplayWindow(), set()
    for counter in counters:
        if window.take(counter):
            assert counter not in taken
            taken.add(counter)


def test_replay_window_takes_what_overtook():
    """Late requests within the window are good once."""
    window = ReplayWindow()
    assert [window.take(n) for n in (5, 3, 4, 3, 5, 0, -1)] == [True, True, True, False, False, False, False]
