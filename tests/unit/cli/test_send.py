"""`dropr send` on a real node: what it stores, what it refuses, what it waits for."""

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from dropr_core.system.exit_codes import Exit


def test_send_stores_and_prints_the_id(run, told):
    """send prints the id of a message that then is listed as queued, and cat gives its body back."""
    result = run("send", '{"sku": 7}', "--channel", "orders")
    assert result.exit_code == 0, result.output
    identity = str(uuid.UUID(result.stdout.strip()))
    (listed,) = told("list")["messages"]
    assert [listed[key] for key in ("id", "peer", "channel", "state")] == [identity, "berlin", "orders", "queued"]
    assert listed["receipt"] is True
    assert json.loads(run("cat", identity).stdout_bytes) == {"sku": 7}


def test_send_reads_files_and_standard_input_byte_for_byte(run, told, tmp_path):
    """--file and - carry any bytes to any peer, and cat gives exactly them."""
    body = bytes(range(256)) * 3 + b"\n\n"
    (tmp_path / "body").write_bytes(body)
    for options, extra in ((["--file", str(tmp_path / "body")], {}), (["-"], {"input": body})):
        sent = told("send", *options, "--to", "berlin", **extra)
        assert run("cat", sent["id"]).stdout_bytes == body


def test_send_passes_every_option_on(run, told):
    """What the command line says about a message is what the message says."""
    given = str(uuid.uuid4())
    sent = told(
        "send", "hello", "--to", "everywhere", "--channel", "notes", "--priority", "2", "--delay", "5m",
        "--expires-in", "1d", "--header", "a=b=c", "--header", "x=", "--key", "k", "--id", given, "--receipt",
    )  # fmt: skip
    assert sent["id"] == given
    assert {d["peer"] for d in sent["deliveries"]} == {"berlin", "laptop"}
    message = told("show", given)["message"]
    assert (message["priority"], message["delay"], message["expires_in"]) == (2, 300.0, 86400.0)
    assert (message["headers"], message["key"], message["receipt"]) == ({"a": "b=c", "x": ""}, "k", True)
    text = run("show", given).stdout
    assert "header a: b=c" in text
    assert "to berlin: queued" in text


def test_send_takes_a_moment(run, told):
    """--at is the delay until then; one that has passed is now."""
    moment = (datetime.now(UTC) + timedelta(hours=2)).isoformat()
    sent = told("send", "x", "--to", "berlin", "--at", moment)
    assert 7000 < told("show", sent["id"])["message"]["delay"] <= 7200
    sent = told("send", "x", "--to", "berlin", "--at", "2001-01-01 00:00+01:00")
    assert told("show", sent["id"])["message"]["delay"] == 0.0


def test_send_twice_with_a_dedup_key_is_one_message(told, run):
    """The same dedup key and content: the first message; other content: exit 64."""
    first = told("send", "a", "--to", "berlin", "--dedup-key", "order-1")
    second = told("send", "a", "--to", "berlin", "--dedup-key", "order-1")
    assert (first["existed"], second["existed"], first["id"]) == (False, True, second["id"])
    other = run("send", "b", "--to", "berlin", "--dedup-key", "order-1")
    assert other.exit_code == Exit.USAGE
    assert len(told("list")["messages"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["x", "--file", "/dev/null"],
        ["x"],
        ["x", "--to", "berln"],
        ["no json", "--channel", "orders"],
        ["x", "--to", "berlin", "--channel", "not a channel"],
        ["x", "--to", "berlin", "--delay", "soon"],
        ["x", "--to", "berlin", "--at", "soon"],
        ["x", "--to", "berlin", "--at", "2026-12-24T18:00:00"],
        ["x", "--to", "berlin", "--at", "2026-12-24T18:00:00Z", "--delay", "5s"],
        ["x", "--to", "berlin", "--priority", "10"],
        ["x", "--to", "berlin", "--header", "none"],
        ["x", "--to", "berlin", "--header", "a=1", "--header", "a=2"],
        ["x", "--to", "berlin", "--id", "7"],
    ],
)
def test_a_wrong_send_stores_nothing(run, told, arguments):
    """Each mistake at send is exit 64, one line, and nothing is in the outbox."""
    run("send", "", "--to", "laptop")  # the store exists
    result = run("send", *arguments)
    assert result.exit_code == Exit.USAGE, result.output
    assert len(result.stderr.splitlines()) == 1
    assert len(told("list")["messages"]) == 1


def test_send_wait_ends_with_1_when_it_takes_too_long(run, told):
    """--wait that runs out is exit 1 and says that the message stays on its way, and that no daemon runs."""
    result = run("send", "x", "--to", "berlin", "--wait", "0.01")
    assert result.exit_code == Exit.FAILED
    assert "stays on its way" in result.stderr
    assert "dropr up" in result.stderr
    assert len(told("list")["messages"]) == 1


def test_a_large_file_goes_in_and_out_byte_for_byte(run, tmp_path, put):
    """`send --file` streams, `cat` and `receive --format raw` write the very bytes, `show` says the true size."""
    data = bytes(range(256)) * 1000
    (tmp_path / "large.bin").write_bytes(data)
    identity = run("send", "--file", str(tmp_path / "large.bin"), "--to", "berlin")
    assert identity.exit_code == 0, identity.output
    identity = identity.stdout.strip()
    assert run("cat", identity).stdout_bytes == data
    shown = json.loads(run("show", identity, "--json").stdout)
    assert shown["message"]["size"] == len(data)
    assert shown["message"]["headers"] == {"filename": "large.bin"}
    assert shown["deliveries"][0]["priority"] == 5
    (waiting,) = json.loads(run("list", "--json").stdout)["messages"]
    assert waiting["priority"] == 5
    put(data)
    assert run("receive", "jobs", "--peek", "--format", "raw").stdout_bytes == data
    assert run("receive", "jobs", "--format", "raw").stdout_bytes == data
