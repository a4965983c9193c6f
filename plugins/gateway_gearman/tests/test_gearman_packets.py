"""Gearman's packets and lines: what is encoded comes back, however the network cuts it, and limits hold."""

import itertools

import pytest
from dropr_gateway_gearman.packets import (
    ARGUMENTS,
    HEADER,
    MAX_ARGUMENT,
    MAX_LINE,
    REQUEST,
    Kind,
    Packet,
    Parser,
    TextLine,
    Unusable,
    encode,
)
from hypothesis import given
from hypothesis import strategies as st

LIMIT = 4096
WORD = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"x"))


@st.composite
def packets(draw):
    kind = draw(st.sampled_from(list(Kind)))
    count = ARGUMENTS[kind]
    if not count:
        return Packet(kind)
    return Packet(kind, (*(draw(WORD) for _ in range(count - 1)), draw(st.binary(max_size=300))))


TEXT = st.lists(
    st.text("abcdefghijklmnopqrstuvwxyz:-_0123456789", min_size=1, max_size=20).map(str.encode), min_size=1, max_size=4
).map(lambda words: TextLine(tuple(words)))


def raw(event):
    if isinstance(event, TextLine):
        return b" ".join(event.words) + b"\r\n"
    return encode(event.kind, *event.arguments, magic=REQUEST)


def cut(data, places):
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def test_every_kind_has_a_number_of_arguments():
    """The table of shapes names each kind of packet."""
    assert set(ARGUMENTS) == set(Kind)


@given(st.lists(packets() | TEXT, max_size=8), st.lists(st.integers(min_value=0), max_size=12))
def test_what_is_encoded_comes_back_however_it_is_cut(events, places):
    """Packets and lines mixed on one connection are read as they were written, cut at any places."""
    parser = Parser(LIMIT)
    found = [event for part in cut(b"".join(map(raw, events)), places) for event in parser.receive(part)]
    assert found == events
    assert parser.waiting == 0


@given(st.binary(max_size=400), st.lists(st.integers(min_value=0), max_size=6))
def test_garbage_is_told_once_and_keeps_nothing(data, places):
    """Any bytes give events; after one that cannot be read nothing more is said, and nothing is held."""
    parser = Parser(LIMIT)
    found = [event for part in cut(data, places) for event in parser.receive(part)]
    if any(isinstance(event, Unusable) for event in found):
        assert isinstance(found[-1], Unusable)
        assert sum(isinstance(event, Unusable) for event in found) == 1
        assert list(parser.receive(b"version\n")) == []
        assert parser.waiting == 0
    assert parser.waiting <= len(data)


@given(st.sampled_from(list(Kind)), st.integers(LIMIT + 1, 2**32 - 1))
def test_a_packet_over_the_limit_is_refused_by_its_header(kind, size):
    """Twelve bytes are enough to refuse a packet: not one byte of its body is waited for."""
    (found,) = Parser(LIMIT).receive(HEADER.pack(REQUEST, kind, size))
    assert isinstance(found, Unusable)
    assert str(size) in found.reason


def test_a_line_without_end_is_refused():
    """A line may not grow beyond its limit."""
    parser = Parser(LIMIT)
    assert list(parser.receive(b"x" * (MAX_LINE - 1))) == []
    (found,) = parser.receive(b"x")
    assert isinstance(found, Unusable)
    assert parser.waiting == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\0RES" + bytes(8),
        b"\0REQ" + (0).to_bytes(4, "big") + bytes(4),
        b"\0REQ" + (5).to_bytes(4, "big") + bytes(4),
        b"\0REQ" + (43).to_bytes(4, "big") + bytes(4),
        b"\0X",
        encode(Kind.SUBMIT_JOB, b"function only", magic=REQUEST),
        encode(Kind.GRAB_JOB, b"too much", magic=REQUEST),
        encode(Kind.SUBMIT_JOB, b"f" * (MAX_ARGUMENT + 1), b"", b"", magic=REQUEST),
    ],
    ids=["an answer", "packet 0", "packet 5", "packet 43", "no magic", "too few", "too many", "a long name"],
)
def test_what_is_no_request_is_unusable(data):
    """Wrong magic, unknown numbers, a wrong count of arguments and overlong ones are told apart from waiting."""
    (found,) = Parser(LIMIT).receive(data)
    assert isinstance(found, Unusable)


def test_the_last_argument_may_hold_nul_bytes():
    """Only as many NUL bytes part arguments as the kind of packet has; the rest is data."""
    (found,) = Parser(LIMIT).receive(encode(Kind.SUBMIT_JOB, b"f", b"u", b"a\0b\0", magic=REQUEST))
    assert found.arguments == (b"f", b"u", b"a\0b\0")
