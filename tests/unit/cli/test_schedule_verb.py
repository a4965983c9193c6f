"""`dropr schedule`: what is added, shown, paused and removed, and what is refused."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from dropr_core.schedules.state import StateFile
from dropr_core.system.exit_codes import Exit
from dropr_core.system.shared_document import FileDocuments

FILE = """
schedules:
  nightly: {cron: "0 3 * * *", zone: Europe/Berlin, channel: jobs, text: go}
  ping: {every: 5m, webhook: "http://127.0.0.1:9/ping", value: {a: 1}}
"""


@pytest.fixture
def scheduled(file):
    """The node's file with two schedules in it."""
    file.write_text(file.read_text() + FILE)
    return file


@pytest.mark.usefixtures("scheduled")
def test_list_shows_those_of_the_file_and_those_that_were_added(run, told):
    """With their rule, their channel and when they are due next; a webhook has a channel of its own."""
    told(
        "schedule", "add", "hourly", "--every", "1h", "--channel", "orders", "--value", '{"sku": 7}', "--missed", "all"
    )
    found = {one["name"]: one for one in told("schedule", "list")["schedules"]}
    assert {name: (one["from"], one["channel"], one["state"]) for name, one in found.items()} == {
        "nightly": ("file", "jobs", "on"),
        "ping": ("file", "schedules/ping", "on"),
        "hourly": ("added", "orders", "on"),
    }
    due = datetime.fromisoformat(found["hourly"]["next"])
    assert (due.minute, due.second) == (0, 0)
    assert "no daemon runs here" in run("schedule").stdout


def test_what_was_added_can_be_removed_and_paused(told, run):
    """Paused it is not due; removed it is gone, with what was kept of it."""
    told("schedule", "add", "a", "--every", "1m", "--channel", "jobs", "--text", "x")
    assert told("schedule", "pause", "a") == {"name": "a", "changed": True}
    assert told("schedule", "pause", "a") == {"name": "a", "changed": False}
    assert [told("schedule", "show", "a")[key] for key in ("state", "next")] == ["paused", None]
    assert told("schedule", "resume", "a")["changed"]
    assert told("schedule", "show", "a")["state"] == "on"
    assert told("schedule", "remove", "a")["changed"]
    assert told("schedule", "list")["schedules"] == []
    for action in ("show", "run", "pause", "resume", "remove"):
        assert run("schedule", action, "a").exit_code == Exit.NO_INPUT


def test_run_happens_now_and_is_shown_with_its_message(told, run):
    """By hand, with the id of its message; how it ended stands with the run and with the message."""
    told("schedule", "add", "a", "--every", "1d", "--channel", "jobs", "--text", "go")
    sent = told("schedule", "run", "a")
    shown = told("schedule", "show", "a")
    assert [(one["id"], one["manual"], one["state"]) for one in shown["runs"]] == [(sent["id"], True, "ready")]
    assert run("cat", sent["id"]).stdout_bytes == b"go"
    message = told("show", sent["id"])
    assert message["run"] | {"schedule": "a", "due": sent["due"]} == message["run"]
    assert "run of schedule a" in run("show", sent["id"]).stdout
    told("schedule", "add", "b", "--every", "1d", "--channel", "orders", "--value", "7")
    told("schedule", "run", "b")
    assert [one["state"] for one in told("schedule", "show", "b")["runs"]] == ["queued"]


def test_results_are_shown(told, file, tmp_path):
    """What a handler gave back, as the daemon has written it down."""
    told("schedule", "add", "a", "--every", "1d", "--channel", "jobs", "--text", "go")
    sent = told("schedule", "run", "a")
    with StateFile(FileDocuments(tmp_path / "data"), "a").changing() as state:
        state.runs[0].state, state.runs[0].result = "processed", "42 rows"
    assert told("schedule", "show", "a")["runs"][0]["result"] == "42 rows"
    assert told("show", sent["id"])["run"]["result"] == "42 rows"
    assert file.exists()


PAST = (datetime.now(UTC) - timedelta(hours=1)).isoformat()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add"], "needs a name"),
        (["list", "a"], "takes no name"),
        (["show", "nightly", "--every", "5m"], "goes with 'dropr schedule add'"),
        (["add", "a", "--channel", "jobs"], "one of cron, every and at"),
        (["add", "a", "--every", "5m", "--cron", "* * * * *", "--channel", "jobs"], "here are cron and every"),
        (["add", "a", "--every", "5m"], "one of channel and webhook"),
        (
            ["add", "a", "--every", "5m", "--webhook", "http://127.0.0.1/", "--channel", "jobs"],
            "one of channel and webh",
        ),
        (["add", "a", "--every", "5m", "--webhook", "http://127.0.0.1/", "--to", "laptop"], "called from this node"),
        (["add", "a", "--every", "5m", "--webhook", "ftp://127.0.0.1/"], "is no web address"),
        (["add", "a", "--cron", "* * *", "--channel", "jobs"], "write five fields"),
        (["add", "a", "--cron", "* * * * *", "--zone", "Berlin", "--channel", "jobs"], "no such time zone"),
        (["add", "a", "--every", "5m", "--channel", "jobs", "--value", "{"], "is no JSON"),
        (["add", "a", "--every", "5m", "--channel", "jobs", "--value", "{}"], "has no serializer"),
        (["add", "a", "--every", "5m", "--channel", "jobs", "--to", "berln"], "no peer or group"),
        (["add", "a", "--every", "0.1", "--channel", "jobs"], "too small"),
        (["add", "a/b", "--every", "5m", "--channel", "jobs"], "1 to 64 characters"),
        (["add", "a", "--at", PAST, "--channel", "jobs"], "has passed"),
        (["add", "nightly", "--every", "5m", "--channel", "jobs"], "stands in the node's file"),
        (["remove", "nightly"], "remove it there"),
    ],
)
@pytest.mark.usefixtures("scheduled")
def test_what_cannot_be_is_refused_in_one_line(run, told, arguments, says):
    """With what to write; nothing is added."""
    run("send", "", "--to", "laptop")  # the store exists
    result = run("schedule", *arguments)
    assert result.exit_code in (Exit.USAGE, Exit.CONFIG), result.output
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert len(told("schedule", "list")["schedules"]) == 2


def test_a_webhook_is_added_and_who_calls_it_is_said(run, told):
    """It has a channel of its own; its value goes out as JSON; its address, which may hold a secret, is not echoed."""
    result = run("schedule", "add", "a", "--every", "1d", "--webhook", "http://u:hidden@127.0.0.1:9/", "--value", "[7]")
    assert result.exit_code == Exit.OK, result.output
    assert "no worker calls its address yet" in result.stdout
    shown = told("schedule", "show", "a")
    assert (shown["channel"], shown["state"]) == ("schedules/a", "on")
    sent = told("schedule", "run", "a")
    assert run("cat", sent["id"]).stdout == "[7]"
    assert "application/json" in json.dumps(told("show", sent["id"]))
    assert "hidden" not in result.output + run("schedule").output + run("schedule", "show", "a").output


def test_a_second_one_of_a_name_is_refused(run, told):
    """The first stays as it is."""
    told("schedule", "add", "a", "--every", "1m", "--channel", "jobs")
    assert run("schedule", "add", "a", "--every", "2m", "--channel", "jobs").exit_code == Exit.USAGE
    assert told("schedule", "show", "a")["rule"] == "every 1m"


def test_a_file_that_cannot_be_read_is_an_error_with_what_to_do(run, told, tmp_path):
    """Made by a newer version, or damaged."""
    told("schedule", "add", "a", "--every", "1m", "--channel", "jobs")
    path = tmp_path / "data" / "schedules.json"
    path.write_text(json.dumps({"version": 99}))
    result = run("schedule", "list")
    assert result.exit_code == Exit.IO_ERROR
    assert "remove it and add them again" in result.stderr


def test_mistakes_in_the_file_come_all_at_once(run, file):
    """Each with its place."""
    file.write_text(
        file.read_text()
        + """
schedules:
  a: {cron: "99 * * * *", channel: jobs}
  b: {every: 5m, at: "2026-12-24T18:00:00Z", channel: jobs}
  c: {at: "2026-12-24T18:00:00", channel: jobs}
  d: {every: 5m, channel: jobs, value: {a: 1}}
  e: {every: 5m, channel: jobs, to: berln}
  f: {every: 5m, webhook: {secret: x}}
  g: {every: 5m, webhook: "http://127.0.0.1/", channel: jobs}
"""
    )
    told = run("check").stderr
    for name, says in {
        "a": "bad minute", "b": "every and at", "c": "no time zone", "d": "needs a serializer", "e": "no peer or group",
        "f": "expected a web address", "g": "one of channel and webhook",
    }.items():  # fmt: skip
        assert any(f"schedules.{name}" in line and says in line for line in told.splitlines()), (name, told)
