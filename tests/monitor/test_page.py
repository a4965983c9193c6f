"""What the page asks for and its buttons press, over HTTP: limits, errors, and what it costs."""

import threading

import pytest
from support.monitor import TOKEN, monitored
from support.one_node import configure

from dropr_core.api.node import Node
from dropr_core.model.names import parse_id
from dropr_core.monitor import looking


@pytest.fixture
def node(tmp_path):
    """A node in memory, with a page."""
    monitor = {"listen": "http://127.0.0.1:0", "token": TOKEN}
    with Node.open(configure(tmp_path, monitor=monitor)) as node:
        yield node


@pytest.fixture
def caller(node):
    """Asks its monitor."""
    with monitored(node.runtime) as caller:
        yield caller


def test_files_of_the_page_are_open_and_nothing_else_is_a_file(caller):
    """They hold nothing of the node; no path leads out of their folder."""
    page = caller.ask("GET", "/", token=None)
    assert page.status == 200
    assert b"shop" not in page.body
    assert caller.ask("GET", "/page/app.js", token=None).headers["content-type"].startswith("text/javascript")
    for path in ("/page/", "/page/../table.py", "/page/%2e%2e/table.py", "/page/nothing.js", "/page/__init__.py"):
        assert caller.ask("GET", path, token=None).status == 404
    for path in ("/api/snapshot", "/api/messages", "/api/message/x", "/api/body/x"):
        assert caller.ask("GET", path, token=None).status == 401


def test_the_page_needs_nothing_from_elsewhere(caller):
    """No file of it names another place, but for the name space of SVG."""
    for name in ("", "page/style.css", "page/app.js", "page/dom.js", "page/graph.js", "page/icon.svg", "page/api.js"):
        body = caller.ask("GET", f"/{name}", token=None).body.decode()
        assert "//" not in body.replace("http://www.w3.org/2000/svg", "").replace("// ", "").replace("//\n", ""), name


def test_one_picture_however_many_look_and_none_while_nobody_does(node, monkeypatch):
    """It is gathered when somebody asks, at most once in a while."""
    taken = []
    real = looking.take_snapshot
    monkeypatch.setattr(looking, "take_snapshot", lambda runtime: (taken.append(1), real(runtime))[1])
    monkeypatch.setattr(looking, "FRESH", 3600.0)
    with monitored(node.runtime) as caller:
        assert taken == []
        bodies = set()
        threads = [
            threading.Thread(target=lambda: bodies.add(caller.ask("GET", "/api/snapshot").body)) for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(bodies) == len(taken) == 1
        monkeypatch.setattr(looking, "FRESH", 0.0)
        document = caller.ask("GET", "/api/snapshot").document
        assert len(taken) == 2
    assert document["snapshot"]["node"] == "shop"
    assert document["rates"]["peers"]["rome"]["shipped"] == 0


def test_lists_and_searches_end(node, caller, monkeypatch):
    """A list has its limit and says that there is more; a search says when it did not look at everything."""
    ids = [node.put(b"x", channel="jobs") for _ in range(5)]
    assert len(caller.ask("GET", "/api/messages").document["messages"]) == 5
    some = caller.ask("GET", "/api/messages?limit=2&side=inbox&channel=jobs").document
    assert (len(some["messages"]), some["more"]) == (2, True)
    found = caller.ask("GET", f"/api/messages?id={ids[3]}").document
    assert [one["id"] for one in found["messages"]] == [ids[3]]
    assert len(caller.ask("GET", f"/api/messages?id={ids[0][:4]}").document["messages"]) == 5
    monkeypatch.setattr(looking, "SEARCHED", 3)
    part = caller.ask("GET", f"/api/messages?id={ids[0][:4]}").document
    assert (len(part["messages"]), part["whole"]) == (3, False)


@pytest.mark.parametrize(
    "path",
    ["/api/messages?side=up", "/api/messages?state=asleep", "/api/messages?id=xyz", "/api/messages?id=12",
     "/api/messages?channel=%00", "/api/message/not-an-id", "/api/body/not-an-id"],
)  # fmt: skip
def test_questions_without_sense_get_a_sentence(caller, path):
    """Never a traceback."""
    reply = caller.ask("GET", path)
    assert reply.status == 400
    assert reply.document["error"]


@pytest.mark.parametrize(
    ("name", "words", "status"),
    [
        ("kick", {}, 400),
        ("kick", {"ids": "all"}, 400),
        ("kick", {"ids": ["x"]}, 400),
        ("kick", {"all": 1}, 400),
        ("redrive", {"ids": ["0" * 32] * 501}, 400),
        ("hold", {}, 400),
        ("hold", {"peer": "nobody"}, 400),
        ("hold", {"peer": "rome", "reason": "x" * 501}, 400),
        ("retry", {"peer": 5}, 400),
        ("pause", {"channel": "jobs", "seconds": -1}, 400),
        ("pause", {"channel": "jobs", "seconds": True}, 400),
        ("pause", {"channel": "not a name\n"}, 400),
        ("bury", {"id": "01980000-0000-7000-8000-000000000000"}, 409),
        ("cancel", {"id": "01980000-0000-7000-8000-000000000000"}, 409),
        ("wipe", {"all": True}, 404),
    ],
)
def test_buttons_without_sense_change_nothing(node, caller, name, words, status):
    """Each says why not."""
    buried = node.put(b"x", channel="jobs")
    node.runtime.inbox.bury(parse_id(buried), "it broke")
    reply = caller.ask("POST", f"/api/do/{name}", words)
    assert (reply.status, bool(reply.document["error"])) == (status, True)
    assert str(node.runtime.inbox.status(parse_id(buried)).state) == "buried"
    assert not node.runtime.pauses.now()


def test_what_was_done_is_one_line_in_the_log(node, caller, caplog):
    """For whoever asks later who did it."""
    with caplog.at_level("INFO"):
        assert caller.ask("POST", "/api/do/hold", {"peer": "rome"}).document["said"] == "rome is held: held by hand"
    assert caplog.messages.count("by the page, hold: rome is held: held by hand") == 1
    assert node.runtime.outbox.peers()["rome"].held


def test_a_message_is_told_with_its_story_and_its_body(node, caller):
    """Text as text, other bytes as digits, and only the beginning of a long one."""
    text = node.put("grüße".encode(), channel="jobs")
    raw = node.put(b"\xff\x00", channel="jobs")
    long = node.put(b"x" * (65 << 10), channel="jobs")
    story = caller.ask("GET", f"/api/message/{text}").document
    assert (story["message"]["channel"], story["inbox"]["state"], story["deliveries"]) == ("jobs", "ready", [])
    assert "came from" in story["events"][1]["what"]
    assert caller.ask("GET", f"/api/body/{text}").document == {"form": "text", "text": "grüße", "whole": True}
    assert caller.ask("GET", f"/api/body/{raw}").document == {"form": "hex", "text": "ff 00", "whole": True}
    shown = caller.ask("GET", f"/api/body/{long}").document
    assert (len(shown["text"]), shown["whole"]) == (64 << 10, False)
    missing = caller.ask("GET", "/api/message/01980000-0000-7000-8000-000000000000")
    assert missing.status == 404
