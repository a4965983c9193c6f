"""The verbs that look and change nothing: list, show, status, count."""

import json
import os
import uuid

from dropr_core.system.exit_codes import Exit
from dropr_core.system.presence import Presence


def test_a_node_without_data_says_so(run, file):
    """Looking at a node that never ran makes nothing on the disk and says what would."""
    for arguments in (["status"], ["list"], ["count"], ["show", str(uuid.uuid4())]):
        result = run(*arguments)
        assert result.exit_code == Exit.NO_INPUT, result.output
        assert "has nothing yet" in result.stderr
    assert not (file.parent / "data").exists()


def test_list_filters_and_pages(run, put, told, monkeypatch):
    """list walks page by page and shows what the filters mean, on both sides."""
    monkeypatch.setattr("dropr_core.monitor.selection.PAGE", 2)
    put(*[str(n).encode() for n in range(5)])
    put(b"later", channel="late", delay="1h")
    for _ in range(5):
        run("send", "x", "--to", "everywhere")
    assert len(told("list")["messages"]) == 16
    assert len(told("list", "--limit", "0", "--in", "outbox")["messages"]) == 10
    assert len(told("list", "--limit", "3")["messages"]) == 3
    assert len(told("list", "--peer", "laptop")["messages"]) == 5
    assert len(told("list", "--channel", "late")["messages"]) == 1
    assert [m["channel"] for m in told("list", "--state", "delayed")["messages"]] == ["late"]
    assert told("list", "--state", "dead")["messages"] == []
    assert told("list", "--older-than", "1h")["messages"] == []
    one = told("list", "--limit", "1")["messages"][0]["id"]
    assert {m["id"] for m in told("list", "--id", one)["messages"]} == {one}
    text = run("list").stdout.splitlines()
    assert len(text) == 17
    assert run("list", "--state", "dead").stdout == "no messages\n"


def test_what_is_not_there_ends_with_66(run, put):
    """show, cat and cancel of an unknown id say so."""
    put(b"x")
    for verb in ("show", "cat", "cancel", "bury"):
        result = run(verb, str(uuid.uuid4()))
        assert result.exit_code == Exit.NO_INPUT, (verb, result.output)
        assert "no such message" in result.stderr


def test_status_shows_peers_channels_and_no_processes(run, put, told):
    """status has each peer of the configuration, what waits for it, each channel, and who runs: nobody."""
    put(b"x")
    run("send", "four", "--to", "berlin")
    document = told("status")
    berlin, laptop = document["peers"]
    assert (berlin["peer"], berlin["waiting"], berlin["state"]) == ("berlin", 1, "unknown")
    assert berlin["bytes"] > 0
    assert berlin["oldest"] >= 0
    assert (laptop["peer"], laptop["mode"], laptop["waiting"], laptop["oldest"]) == ("laptop", "pull", 0, None)
    assert document["channels"][0]["ready"] == 1
    nothing = {"daemon": None, "servers": [], "workers": [], "gateways": [], "pages": [], "monitors": [], "angel": None}
    assert document["processes"] == nothing
    text = run("status").stdout
    assert "nothing runs here" in text
    assert "berlin" in text


def test_status_measures_when_it_is_asked_to(run, put, told):
    """With --rates there are speeds, in JSON and in the tables; without, scripts wait for nothing."""
    put(b"x")
    assert told("status")["rates"] is None
    assert "out/s" not in run("status").stdout
    found = told("status", "--rates", "0.01s")["rates"]
    assert found["seconds"] > 0
    assert found["peers"]["berlin"]["sent"] == 0
    assert found["channels"]["jobs"]["backlog"] == 0
    text = run("status", "--rates", "0.01s").stdout
    assert "out/s" in text
    assert "done/s" in text


def test_status_says_how_the_disk_is(run, put, monkeypatch):
    """What is used and free is one line; a disk below the floor says what that means."""
    put(b"x")
    assert "disk: " in run("status").stdout
    monkeypatch.setattr("dropr_core.monitor.gathering.floor_of", lambda _total, _least: 1 << 60)
    assert "nothing more is taken in" in run("status").stdout


def test_status_believes_only_the_living(run, file, told):
    """A report that a dead process left is not shown, whoever has its number since."""
    run("send", "x", "--to", "berlin")
    directory = file.parent / "data" / "run"
    server = Presence(directory, "server")
    server.announce({"urls": ["https://y"]})
    (directory / "server-1.json").write_text(json.dumps({"pid": 1, "urls": ["https://x"]}))
    (directory / "server-3.json").write_text("torn")
    (directory / "daemon.json").write_text(json.dumps({"pid": os.getpid(), "peers": {"berlin": {"state": "up"}}}))
    document = told("status")
    assert [server["urls"] for server in document["processes"]["servers"]] == [["https://y"]]
    assert document["processes"]["daemon"] is None
    assert document["peers"][0]["state"] == "unknown"
    assert "https://y" in run("status").stdout
    server.withdraw()
    assert told("status")["processes"]["servers"] == []


def test_count_adds_up(run, put, told):
    """count has a row for each peer and channel, and for each channel of the inbox."""
    put(b"a", b"b")
    run("receive", "jobs", "--limit", "1")
    run("send", "1", "--channel", "orders")
    document = told("count")
    (out,) = document["outbox"]
    assert (out["peer"], out["channel"], out["queued"], out["sent"]) == ("berlin", "orders", 1, 1)
    (came,) = document["inbox"]
    assert (came["channel"], came["ready"], came["processed"]) == ("jobs", 1, 1)
    assert "orders" in run("count").stdout
