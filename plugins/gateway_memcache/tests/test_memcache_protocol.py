"""The three protocols without I/O: however the bytes are cut, whatever they are, within limits."""

import itertools
import struct

import pytest
from dropr_gateway_memcache.binary import HEADER, head_of
from dropr_gateway_memcache.reader import MAX_LINE, Reader
from dropr_gateway_memcache.requests import (
    MONTH,
    BadKey,
    Drop,
    Item,
    Login,
    Put,
    Read,
    Say,
    Stats,
    Take,
    expires_in,
    read_of,
)
from hypothesis import given
from hypothesis import strategies as st

MOST = 4096
WORDS = [b"get", b"gets", b"set", b"cas", b"add", b"delete", b"stats", b"version", b"quit", b"mg", b"ms", b"md", b"mn",
         b"me", b"q", b"q/open", b"q/close/open", b"q/t=5", b"/abort", b"0", b"3", b"-1", b"99999999999", b"noreply",
         b"k", b"b", b"O7", b"F5", b"T9", b"MS", b"\r\n", b"\n", b"\x80", b"abc\r\n", b"incr"]  # fmt: skip
streams = st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(WORDS), max_size=30).map(b" ".join))


def reader(**options):
    """A reader of one connection."""
    return Reader(**{"max_item": MOST, "version": "1.6.0"} | options)


def facts(request):
    """What a request says; how it is answered is another matter."""
    return type(request), {
        name: getattr(request, name) for name in request.__slots__ if name not in ("answers", "__weakref__")
    }


def read(*pieces, **options):
    """The requests in these bytes."""
    one = reader(**options)
    return [request for piece in pieces for request in one.feed(piece)]


@given(streams, st.lists(st.integers(0, 300), max_size=8))
def test_the_same_requests_come_out_however_the_bytes_are_cut(data, cuts):
    """A network cuts where it likes; garbage raises nothing."""
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    whole = [facts(request) for request in read(data)]
    assert [facts(request) for request in read(*pieces)] == whole
    assert [facts(request) for request in read(*[data[at : at + 1] for at in range(len(data))])] == whole


@given(st.lists(st.binary(min_size=1, max_size=3000), max_size=60))
def test_what_is_kept_is_bounded(pieces):
    """Whatever is announced, no connection makes the gateway keep more than one request."""
    one = reader()
    for piece in [b"set q 0 0 2000000000\r\n", *pieces]:
        list(one.feed(piece))
        assert one.waiting <= max(MAX_LINE, MOST + 600) + len(piece)


def test_an_endless_line_ends_the_connection():
    """No line grows beyond its limit."""
    (said,) = read(b"get " + b"k" * MAX_LINE)
    assert said.hang_up
    assert said.answer.startswith(b"CLIENT_ERROR")


@given(
    st.lists(st.tuples(st.binary(max_size=200), st.integers(0, (1 << 32) - 1), st.integers(-1, 1 << 31)), max_size=10),
    st.booleans(),
)
def test_messages_come_through_as_they_were_set(messages, silent):
    """Any bytes, with line ends in them too; flags and time of expiry beside them."""
    data = b"".join(
        b"set orders/eu %d %d %d%s\r\n%s\r\n" % (flags, expires, len(body), b" noreply" if silent else b"", body)
        for body, flags, expires in messages
    )
    found = read(data)
    assert [(put.body, put.flags, put.exptime) for put in found] == messages
    assert {put.queue for put in found} <= {"orders/eu"}
    assert {put.answers.stored(7) for put in found} <= ({b""} if silent else {b"STORED\r\n"})


@given(
    st.binary(max_size=200),
    st.integers(0, (1 << 32) - 1),
    st.integers(0, (1 << 31) - 1),
    st.binary(min_size=4, max_size=4),
)
def test_binary_packets_say_the_same(body, flags, expires, opaque):
    """The packet of a set, and that of its value with the opaque of the request."""
    packet = struct.pack(">BBHBBHI4sQ", 0x80, 1, 1, 8, 0, 0, 9 + len(body), opaque, 0)
    (put,) = read(packet + struct.pack(">II", flags, expires) + b"q" + body)
    assert (put.queue, put.body, put.flags, put.exptime) == ("q", body, flags, expires)
    (take,) = read(struct.pack(">BBHBBHI4sQ", 0x80, 0x0C, 1, 0, 0, 0, 1, opaque, 0) + b"q")
    answer = take.answers.value(b"q", Item(body, flags, 9))
    assert answer[:1] == b"\x81"
    assert answer[12:16] == opaque
    assert answer[HEADER.size :] == struct.pack(">I", flags) + b"q" + body


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        (b"work", Read(b"work", "work")),
        (b"work/t=500/open", Read(b"work/t=500/open", "work", wait=0.5, open=True)),
        (b"work/close/open", Read(b"work/close/open", "work", open=True, close=True)),
        (b"work/abort", Read(b"work/abort", "work", abort=True)),
        (b"work/peek", Read(b"work/peek", "work", peek=True)),
        (b"orders/eu", Read(b"orders/eu", "orders/eu")),
        (b"open/eu/open", Read(b"open/eu/open", "open/eu", open=True)),
    ],
)
def test_words_of_kestrel_end_a_key(key, meant):
    """What stands behind the name of the queue says how it is read; other slashes belong to the name."""
    assert read_of(key) == meant


@pytest.mark.parametrize("key", [b"/open", b"q/peek/open", b"q/abort/close", b"q/peek/abort"])
def test_words_that_contradict_each_other_are_refused(key):
    """As Kestrel does, but with the reason."""
    with pytest.raises(BadKey):
        read_of(key)
    (said,) = read(b"get " + key + b"\r\n")
    assert said.answer.startswith(b"CLIENT_ERROR ")


def test_times_of_expiry_are_those_of_memcached():
    """Seconds up to a month, the Unix clock from there on, never, and long ago."""
    assert expires_in(0, 1e9) is None
    assert expires_in(MONTH, 1e9) == MONTH
    assert expires_in(1_000_000_060, 1e9) == 60
    assert expires_in(MONTH + 1, 1e9) < 0
    assert expires_in(-1, 1e9) < 0


def test_what_a_queue_cannot_do_is_said_and_its_data_is_not_taken_for_commands():
    """A command of a cache is answered with what to use instead; the next command is read as it should be."""
    found = read(b"add q 0 0 9\r\nversion\r\n\r\ncas q 0 0 1 5\r\nx\r\nincr q 1\r\nflush_all\r\nget q\r\n")
    assert [type(one) for one in found] == [Say, Say, Say, Say, Take]
    assert all(one.answer.startswith(b"CLIENT_ERROR ") for one in found[:4])


def test_meta_commands_are_read():
    """Flags, opaque, quiet; without `v` a get only looks."""
    put, take, look, drop, debug, noop = read(
        b"ms q 3 F5 T60 O1 k c\r\nabc\r\nmg q v f k O2 q\r\nmg q s\r\nmd q q\r\nme q\r\nmn\r\n"
    )
    assert isinstance(put, Put)
    assert (put.body, put.flags, put.exptime) == (b"abc", 5, 60)
    assert put.answers.stored(9) == b"HD O1 kq c9\r\n"
    assert take.answers.value(b"q", Item(b"abc", 5, 9)) == b"VA 3 f5 kq O2\r\nabc\r\n"
    assert take.answers.miss(b"q") == b""
    assert look.reads[0].peek
    assert look.answers.value(b"q", Item(b"abc")) == b"HD s3\r\n"
    assert isinstance(drop, Drop)
    assert drop.answers.deleted(found=True) == b""
    assert isinstance(debug, Stats)
    assert noop.answer == b"MN\r\n"


def test_nothing_is_done_before_a_login_where_one_is_wanted():
    """In text and in binary: what comes before it is refused, and its data is not stored."""
    found = read(b"get q\r\nadd q 0 0 1\r\nx\r\nversion\r\nset x 0 0 7\r\napp abc\r\n", locked=True)
    assert [type(one) for one in found] == [Say, Say, Say, Login]
    assert (found[-1].user, found[-1].password) == ("app", "abc")
    packet = HEADER.pack(0x80, 1, 1, 8, 0, 0, 10, 0, 0) + bytes(8) + b"qx"
    login = HEADER.pack(0x80, 0x21, 5, 0, 0, 0, 13, 0, 0) + b"PLAIN" + b"\0app\0abc"
    refused, wanted = read(packet + login, locked=True)
    assert head_of(refused.answer[:24].replace(b"\x81", b"\x80", 1)).vbucket == 0x20
    assert (wanted.user, wanted.password) == ("app", "abc")


def test_a_line_means_the_same_each_time_it_is_said():
    """What a line means is remembered: of few lines, without what stands around them, and it opens no door."""
    lines = [b"get q%d\r\nset q%d 1 0 1\r\n%d\r\n" % (number, number, number % 10) for number in range(100)]
    once = [facts(request) for line in lines for request in read(line)]
    one = reader()
    assert [facts(request) for _ in range(2) for line in lines for request in one.feed(line)] == 2 * once
    assert len(one._lines) <= 64
    same = read(b"set q 0 0 1\r\na\r\n" * 2 + b"set q 0 0 1\r\nb\r\n")
    assert [put.body for put in same] == [b"a", b"a", b"b"]
    refused = read(b"get q\r\n\r\n" * 2, locked=True)
    assert [b"unauthenticated" in one.answer for one in refused] == [True, False] * 2


def test_a_value_over_the_limit_is_refused_and_skipped():
    """In both protocols, without keeping it; the connection goes on."""
    body = b"x" * (MOST + 1000)
    said, version = read(b"set q 0 0 %d\r\n%s\r\nversion\r\n" % (len(body), body))
    assert said.answer == b"SERVER_ERROR object too large for cache\r\n"
    assert version.answer == b"VERSION 1.6.0\r\n"
    packet = HEADER.pack(0x80, 1, 1, 8, 0, 0, 9 + len(body), 0, 0) + bytes(8) + b"q" + body
    said, noop = read(packet + HEADER.pack(0x80, 0x0A, 0, 0, 0, 0, 0, 0, 0))
    assert said.answer[7] == 3
    assert noop.answer[1] == 0x0A
