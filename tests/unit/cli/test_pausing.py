"""The verbs pause and unpause, and who shows what is paused."""

from dropr_core.api.node import Node
from dropr_core.system.exit_codes import Exit


def test_pause_and_unpause(run, told, file):
    """A paused channel gives nothing and is shown with its reason and time; unpause ends it."""
    with Node.open(file) as node:
        node.put("x", channel="notes")
    assert told("pause", "notes", "--for", "10m", "--reason", "moving house") == {
        "channel": "notes", "paused": True, "for": 600.0, "reason": "moving house"
    }  # fmt: skip
    notes = next(one for one in told("status")["channels"] if one["channel"] == "notes")
    assert (notes["paused"], notes["paused_because"], notes["ready"]) == (True, "moving house", 1)
    assert 500 < notes["paused_for"] <= 600
    assert "moving house" in run("status").stdout
    assert "notes is paused" in run("list").stdout
    assert run("receive", "notes", "--wait", "0").stdout == ""
    assert told("unpause", "notes") == {"channel": "notes", "paused": False, "was_paused": True}
    assert told("unpause", "notes")["was_paused"] is False
    assert "x" in run("receive", "notes", "--wait", "0").stdout


def test_a_pause_without_an_end(run, told):
    """Without --for it lasts until somebody ends it, also of a channel on which nothing came yet."""
    assert "dropr unpause later" in run("pause", "later").stdout
    later = next(one for one in told("status")["channels"] if one["channel"] == "later")
    assert (later["paused"], later["paused_for"]) == (True, None)
    assert "goes on" in run("unpause", "later").stdout


def test_what_is_no_channel_is_a_usage_error(run):
    """A bad name or time: exit 64, and what would be right."""
    assert run("pause", "no such!").exit_code == Exit.USAGE
    assert run("pause", "notes", "--for", "soon").exit_code == Exit.USAGE
