"""The page's schedules over HTTP: what is told, how much of it, and what its buttons refuse."""

import pytest
from support.monitor import monitored
from support.one_node import configure

from dropr_core.api.node import Node
from dropr_core.monitor import schedule_routes, schedules
from dropr_core.schedules.definitions import Definitions
from dropr_core.schedules.state import MAX_TEXT, Run, StateFile

SCHEDULES = {
    "nightly": {"cron": "0 3 * * *", "zone": "Europe/Berlin", "channel": "jobs", "text": "go"},
    "gone": {"every": "5m", "channel": "jobs", "file": "not-there"},
    "off": {"every": "5m", "channel": "jobs", "enabled": False},
}


@pytest.fixture
def node(tmp_path):
    """A node with schedules and a page."""
    monitor = {"listen": "http://127.0.0.1:0", "token": "a-token-of-these-tests"}
    with Node.open(configure(tmp_path, monitor=monitor, schedules=SCHEDULES)) as node:
        yield node


@pytest.fixture
def caller(node):
    """Asks its monitor."""
    with monitored(node.runtime) as caller:
        yield caller


def test_schedules_are_told_as_on_the_command_line(node, caller):
    """Those of the file and added ones, with rule, words, zone and state; a broken one with what is wrong."""
    Definitions(node.runtime.config, node.runtime.documents).add("extra", {"every": "1h", "channel": "jobs"})
    found = caller.ask("GET", "/api/schedules").document
    assert {one["name"]: (one["from"], one["state"], one["words"], one["zone"]) for one in found["schedules"]} == {
        "extra": ("added", "on", "every hour", None),
        "gone": ("file", "on", "every 5 minutes", None),
        "nightly": ("file", "on", "every day at 03:00", "Europe/Berlin"),
        "off": ("file", "disabled", "every 5 minutes", None),
    }
    assert found["schedules"] == schedules.schedule_documents(node.runtime)
    assert not found["more"]


def test_the_list_and_each_result_end(node, caller, monkeypatch):
    """The list says that there is more; a result is cut."""
    monkeypatch.setattr(schedule_routes, "MOST", 2)
    found = caller.ask("GET", "/api/schedules").document
    assert ([one["name"] for one in found["schedules"]], found["more"]) == (["gone", "nightly"], True)
    run = Run(1000, 1000, "", state="processed")
    monkeypatch.setattr(schedules, "_ending", lambda _node, _run: {"state": "done", "result": "x" * 9999, "reason": ""})
    with StateFile(node.runtime.documents, "nightly").changing() as state:
        state.add(run)
    (told,) = caller.ask("GET", "/api/schedule/nightly").document["runs"]
    assert len(told["result"]) == MAX_TEXT + 1


def test_buttons_do_what_the_command_line_does(node, caller, caplog):
    """Run now, pause, resume: each says what came of it, and stands in the log."""
    with caplog.at_level("INFO"):
        said = caller.ask("POST", "/api/do/schedule-run", {"schedule": "nightly"}).document["said"]
    (run,) = caller.ask("GET", "/api/schedule/nightly").document["runs"]
    assert said == f"nightly runs now: message {run['id']}"
    assert f"by the page, schedule-run: {said}" in caplog.messages
    assert (run["manual"], run["state"]) == (True, "ready")
    for name, says in (
        ("pause", "is paused"), ("pause", "was paused already"), ("resume", "goes on"), ("resume", "was not paused")
    ):  # fmt: skip
        assert says in caller.ask("POST", f"/api/do/schedule-{name}", {"schedule": "nightly"}).document["said"]


@pytest.mark.parametrize(
    ("method", "path", "words", "status"),
    [
        ("GET", "/api/schedule/nobody", None, 404),
        ("GET", "/api/schedule/../x%00", None, 404),
        ("POST", "/api/do/schedule-run", {}, 400),
        ("POST", "/api/do/schedule-run", {"schedule": 5}, 400),
        ("POST", "/api/do/schedule-run", {"schedule": "nobody"}, 404),
        ("POST", "/api/do/schedule-run", {"schedule": "gone"}, 409),
        ("POST", "/api/do/schedule-pause", {"schedule": "nobody"}, 404),
        ("POST", "/api/do/schedule-resume", {"schedule": "nobody"}, 404),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(node, caller, method, path, words, status):
    """And nothing is changed."""
    reply = caller.ask(method, path, words)
    assert (reply.status, bool(reply.document["error"])) == (status, True)
    assert not Definitions(node.runtime.config, node.runtime.documents).paused
    assert all(one["last"] is None for one in schedules.schedule_documents(node.runtime))


def test_strangers_see_and_press_nothing(caller):
    """Without the token there is neither list nor button."""
    assert caller.ask("GET", "/api/schedules", token=None).status == 401
    assert caller.ask("GET", "/api/schedule/nightly", token=None).status == 401
    assert caller.ask("POST", "/api/do/schedule-run", {"schedule": "nightly"}, token=None).status == 401
