"""`dropr receive` and `dropr peek` on a real node: what they print, and what a reader that goes away does not lose."""

import errno
import json

import pytest

from dropr_core.cli.failures import BROKEN_PIPE, TIMED_OUT
from dropr_core.system.exit_codes import Exit


def test_receive_prints_and_acknowledges(run, put, told):
    """receive drains a channel in order; a second time there is nothing."""
    put(b"one", b"two", b"three")
    assert run("receive", "jobs", "--limit", "2").stdout == "one\ntwo\n"
    assert run("receive", "jobs").stdout == "three\n"
    assert run("receive", "jobs").stdout == ""
    (channel,) = told("status")["channels"]
    assert channel["processed"] == 3


def test_receive_that_waited_for_nothing_says_so(run, put, told):
    """A wait that ends without any message is told on standard error and ends with a code of its own; to look
    and find nothing, or fewer than the limit, is no failure."""
    nothing = run("receive", "jobs", "news", "--wait", "0.05")
    assert (nothing.exit_code, nothing.stdout) == (TIMED_OUT, "")
    assert "no message on jobs, news within 0.05 s" in nothing.stderr
    assert run("receive", "notes").exit_code == 0
    put("one")
    some = run("receive", "jobs", "--wait", "0.05", "--limit", "2")
    assert (some.exit_code, some.stdout, some.stderr) == (0, "one\n", "")


def test_receive_shows_what_is_asked_for(run, put):
    """raw is the bytes alone, json a document a line, table a line about each."""
    (identity,) = put(b"\xff\x00", headers={"a": "b"})
    peeked = run("receive", "jobs", "--peek", "--json")
    assert peeked.exit_code == 0, peeked.output
    document = json.loads(peeked.stdout)
    assert (document["id"], document["body"], document["body_base64"]) == (identity, None, "/wA=")
    assert (document["headers"], document["sender"], document["attempt"]) == ({"a": "b"}, "shop", 0)
    assert identity in run("receive", "jobs", "--peek", "--format", "table").stdout
    assert run("receive", "jobs", "--format", "raw").stdout_bytes == b"\xff\x00"
    assert run("receive", "jobs", "--format", "table").stdout == "no messages\n"


def test_a_table_shows_and_takes_nothing(run, put):
    """Sixty bytes of a body are no delivery: what a table showed is still there, as after --peek."""
    put(b"x" * 500)
    for _ in range(2):
        assert "x" * 60 + "…" in run("receive", "jobs", "--format", "table").stdout
    assert run("receive", "jobs", "--format", "table", "--wait", "1").exit_code == Exit.USAGE
    assert run("receive", "jobs", "--format", "raw").stdout == "x" * 500


def test_list_tells_the_size_of_a_large_body(run, told):
    """Not that of the envelope that names it."""
    run("send", "-", "--to", "berlin", input=b"\0" * 200_000)
    (message,) = told("list")["messages"]
    assert message["size"] > 200_000


def test_peek_takes_nothing(run, put, told):
    """--peek leaves every message ready and counts no attempt."""
    put(b"a", b"b", b"c")
    assert run("receive", "jobs", "--peek", "--limit", "2").stdout == "a\nb\n"
    states = [(m["state"], m["attempts"]) for m in told("list", "--in", "inbox")["messages"]]
    assert states == [("ready", 0)] * 3


@pytest.mark.parametrize(
    ("error", "code"),
    [(BrokenPipeError(errno.EPIPE, "gone"), BROKEN_PIPE), (OSError(errno.ENOSPC, "full"), Exit.IO_ERROR)],
)
def test_a_reader_that_goes_away_loses_nothing(run, put, told, monkeypatch, error, code):
    """When the output breaks, the message in hand is ready again at once, its attempt not counted."""
    put(b"x", b"y", b"z")
    written = []

    def write(data):
        if written:
            raise error
        written.append(data)

    with monkeypatch.context() as patch:
        patch.setattr("dropr_core.cli.output.write_bytes", write)
        assert run("receive", "jobs").exit_code == code
    assert written == [b"x\n"]
    assert [(m["state"], m["attempts"]) for m in told("list")["messages"]] == [("ready", 0)] * 2
    assert run("receive", "jobs").stdout == "y\nz\n"
