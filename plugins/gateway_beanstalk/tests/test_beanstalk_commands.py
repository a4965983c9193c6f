"""The protocol's text, without sockets: commands from bytes, answers, names of tubes."""

import itertools

import pytest
import yaml
from dropr_gateway_beanstalk import commands as c
from dropr_gateway_beanstalk import replies
from dropr_gateway_beanstalk.commands import Put, Refused
from dropr_gateway_beanstalk.parser import Parser
from dropr_gateway_beanstalk.tubes import channel_of, tube_of
from hypothesis import given
from hypothesis import strategies as st

from dropr_core.model.names import is_channel

BAD, UNKNOWN = [Refused(c.BAD_FORMAT)], [Refused(c.UNKNOWN_COMMAND)]

ACCEPTED = [
    (b"put 1 2 3 4\r\nabcd\r\n", [Put(1, 2, 3, b"abcd")]),
    (b"put 0 0 0 0\r\n\r\n", [Put(0, 0, 1, b"")]),
    (b"put  4294967295  4294967295  4294967295  1\r\nx\r\n", [Put(c.MAX_U32, c.MAX_U32, c.MAX_U32, b"x")]),
    (b"put 1 0 1 4\r\n\r\n\r\n\r\n", [Put(1, 0, 1, b"\r\n\r\n")]),
    (b"use A-z09+/;.$_()\r\n", [c.Use("A-z09+/;.$_()")]),
    (b"use " + b"a" * 200 + b"\r\n", [c.Use("a" * 200)]),
    (b"watch a\r\n", [c.Watch("a")]),
    (b"ignore a\r\n", [c.Ignore("a")]),
    (b"reserve\r\n", [c.Reserve()]),
    (b"reserve-with-timeout 5\r\n", [c.Reserve(5, True)]),
    (b"reserve-with-timeout 0 x\r\n", [c.Reserve(0, True)]),
    (b"reserve-with-timeout -1\r\n", [c.Reserve(None, True)]),
    (b"reserve-job 7\r\n", [c.ReserveJob(7)]),
    (b"delete  18446744073709551615\r\n", [c.Delete(c.MAX_U64)]),
    (b"release 1 2 3\r\n", [c.Release(1, 2, 3)]),
    (b"bury 1 2\r\n", [c.Bury(1, 2)]),
    (b"touch 1\r\n", [c.Touch(1)]),
    (b"peek 1\r\n", [c.Peek(1)]),
    (b"peek-ready\r\n", [c.PeekState("ready")]),
    (b"peek-delayed\r\n", [c.PeekState("delayed")]),
    (b"peek-buried\r\n", [c.PeekState("buried")]),
    (b"kick  7x\r\n", [c.Kick(7)]),
    (b"kick +7\r\n", [c.Kick(7)]),
    (b"kick -1\r\n", [c.Kick(c.MAX_U32)]),
    (b"kick-job 7\r\n", [c.KickJob(7)]),
    (b"pause-tube a 3\r\n", [c.PauseTube("a", 3)]),
    (b"pause-tubea 3\r\n", [c.PauseTube("a", 3)]),
    (b"stats\r\n", [c.Plain("stats")]),
    (b"stats-job 3\r\n", [c.StatsJob(3)]),
    (b"stats-tube a\r\n", [c.StatsTube("a")]),
    (b"list-tubes\r\n", [c.Plain("list-tubes")]),
    (b"list-tube-used\r\n", [c.Plain("list-tube-used")]),
    (b"list-tubes-watched\r\n", [c.Plain("list-tubes-watched")]),
    (b"quit\r\n", [c.Plain("quit")]),
    (b"quit now\r\n", [c.Plain("quit")]),
]

REFUSED = [
    (b"put 1 0 1 1x\r\na\r\n", [Refused(c.BAD_FORMAT, "put"), *UNKNOWN]),
    (b"put 1 0 1 1 \r\na\r\n", [Refused(c.BAD_FORMAT, "put"), *UNKNOWN]),
    (b"put 4294967296 0 1 1\r\n", BAD),
    (b"put 1 4294967296 1 1\r\n", BAD),
    (b"put 1 0 4294967296 1\r\n", BAD),
    (b"put 1 0 1 4294967296\r\n", BAD),
    (b"put -1 0 1 1\r\n", BAD),
    (b"put 1 0 1\r\n", BAD),
    (b"put\r\n", UNKNOWN),
    (b"put 1 0 1 3\r\nabcde\r\n", [Refused(c.EXPECTED_CRLF, "put"), *UNKNOWN]),
    (b"put 1 0 1 65536\r\n" + b"x" * 65538 + b"quit\r\n", [Refused(c.JOB_TOO_BIG, "put"), c.Plain("quit")]),
    (b"PUT 1 0 1 1\r\n", UNKNOWN),
    (b"\r\n", UNKNOWN),
    (b"use\r\n", UNKNOWN),
    (b"use -a\r\n", BAD),
    (b"use a b\r\n", BAD),
    (b"use \xc3\xa4\r\n", BAD),
    (b"use " + b"a" * 201 + b"\r\n", BAD),
    (b"watch  a\r\n", BAD),
    (b"delete +1\r\n", BAD),
    (b"delete 18446744073709551616\r\n", BAD),
    (b"touch 1 \r\n", BAD),
    (b"release 1\r\n", BAD),
    (b"release 1 1 4294967296\r\n", BAD),
    (b"bury 1\r\n", BAD),
    (b"kick\r\n", UNKNOWN),
    (b"kick \r\n", BAD),
    (b"kick 99999999999999999999\r\n", BAD),
    (b"pause-tube a\r\n", BAD),
    (b"pause-tube -a 1\r\n", BAD),
    (b"pause-tube a 1 \r\n", BAD),
    (b"reserved\r\n", BAD),
    (b"reserve-jobs 1\r\n", BAD),
    (b"reserve-with-timeout x\r\n", BAD),
    (b"reserve-with-timeout 2147483648\r\n", BAD),
    (b"peek-readyx\r\n", BAD),
    (b"peek\r\n", UNKNOWN),
    (b"stats-foo\r\n", BAD),
    (b"list-tubesx\r\n", BAD),
    (b"list-tube-used\0\r\n", BAD),
    (b"a" * 222 + b"\r\nquit\r\n", [*UNKNOWN, c.Plain("quit")]),
    (b"a" * 223 + b"\r\nquit\r\n", [*BAD, c.Plain("quit")]),
    (b"a" * 5000 + b"\r\nquit\r\n", [*BAD, c.Plain("quit")]),
]


@pytest.mark.parametrize(("sent", "read"), ACCEPTED + REFUSED, ids=lambda one: repr(one)[:40])
def test_reads_every_form_of_every_command_whole_and_byte_by_byte(sent, read):
    """What beanstalkd takes is taken and what it refuses is refused with its word, however the bytes arrive."""
    assert Parser().feed(sent) == read
    parser = Parser()
    assert [one for byte in sent for one in parser.feed(bytes([byte]))] == read


@given(
    st.lists(st.sampled_from([sent for sent, _ in ACCEPTED]), max_size=12), st.lists(st.integers(0, 400), max_size=6)
)
def test_pipelined_commands_are_read_alike_however_they_are_cut(lines, cuts):
    """Where a read ends makes no difference."""
    data, parser = b"".join(lines), Parser()
    wanted = [one for line in lines for one in Parser().feed(line)]
    edges = sorted({0, len(data), *(cut for cut in cuts if cut <= len(data))})
    pieces = [data[begin:end] for begin, end in itertools.pairwise(edges)]
    assert [one for piece in pieces for one in parser.feed(piece)] == wanted


@given(st.binary(max_size=2000), st.integers(1, 64))
def test_garbage_is_answered_in_bounded_memory(data, size):
    """No input raises, and no more than an unfinished line or job is kept."""
    parser = Parser(max_job=100)
    for at in range(0, len(data), size):
        for one in parser.feed(data[at : at + size]):
            assert not isinstance(one, Refused) or one.reply in (
                c.BAD_FORMAT, c.UNKNOWN_COMMAND, c.EXPECTED_CRLF, c.JOB_TOO_BIG,
            )  # fmt: skip
        assert len(parser._data) <= max(c.MAX_LINE, 102)


@given(st.binary(max_size=300))
def test_any_body_is_read_as_it_was_sent(body):
    """CR, LF and commands within a body are body."""
    data = b"put 1 0 1 %d\r\n%b\r\nquit\r\n" % (len(body), body)
    assert Parser().feed(data) == [Put(1, 0, 1, body), c.Plain("quit")]


def test_a_job_may_be_as_big_as_is_said():
    """The limit is an option, and a job of exactly that size is taken."""
    parser = Parser(max_job=10)
    assert parser.feed(b"put 1 0 1 10\r\n0123456789\r\n") == [Put(1, 0, 1, b"0123456789")]
    assert parser.feed(b"put 1 0 1 11\r\n01234567890\r\n") == [Refused(c.JOB_TOO_BIG, "put")]
    assert parser.feed(b"put 1 0 1 11x\r\n01234567890\r\n") == [Refused(c.JOB_TOO_BIG, "put")]


_LETTER = st.sampled_from("aZ9+/;.$_()-")


@given(st.text(_LETTER, min_size=1, max_size=60).filter(c.is_tube))
def test_each_tube_is_a_channel_of_its_own(tube):
    """No two tubes share a channel, and the name comes back."""
    channel = channel_of(tube)
    assert channel is not None
    assert is_channel(channel)
    assert tube_of(channel) == tube


@pytest.mark.parametrize("tube", ["orders", "a/b.c", "A_1-2", "default"])
def test_a_name_that_a_channel_may_have_stays_as_it_is(tube):
    """Other dialects find the tube under its own name."""
    assert channel_of(tube) == tube_of(tube) == tube


@pytest.mark.parametrize("tube", ["tube.x", "tube._2b", "a//b", "..", "a+b", "/"])
def test_a_name_that_no_channel_can_have_is_escaped_and_comes_back(tube):
    """Also where it looks like an escaped one."""
    assert channel_of(tube) != tube
    assert tube_of(channel_of(tube)) == tube


def test_a_name_that_is_too_long_when_escaped_has_no_channel():
    """It is refused instead of cut."""
    assert channel_of("$" * 100) is None


def test_a_foreign_channel_that_looks_escaped_keeps_its_name():
    """Only what `channel_of` makes is translated back."""
    assert tube_of("tube._zz") == "tube._zz"
    assert tube_of("tube.plain") == "tube.plain"


@given(st.text(max_size=30))
def test_a_quoted_text_is_read_back_from_the_yaml(text):
    """Names such as 123 or true stay texts."""
    printable = "".join(one for one in text if one.isprintable() and ord(one) < 127)
    answer = replies.facts([("name", replies.quoted(printable)), ("pid", 7)])
    head, body = answer.split(b"\r\n", 1)
    assert head == b"OK %d" % (len(body) - 2)
    assert yaml.safe_load(body) == {"name": printable, "pid": 7}


def test_a_list_is_yaml():
    """As list-tubes gives it."""
    assert replies.names(["default", "a"]) == b"OK 18\r\n---\n- default\n- a\n\r\n"
