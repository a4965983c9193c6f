"""The verbs that mend: hold, retry, cancel, bury, kick, redrive, wipe."""

from dropr_core.api.node import Node
from dropr_core.system.exit_codes import Exit


def test_hold_and_release(run, told):
    """A held peer is shown as held with its reason, and so are its deliveries; release ends it."""
    run("send", "x", "--to", "everywhere")
    assert told("hold", "berlin", "--reason", "moving house")["held"] is True
    berlin = told("status")["peers"][0]
    assert (berlin["state"], berlin["reason"]) == ("held", "moving house")
    assert [m["peer"] for m in told("list", "--state", "held")["messages"]] == ["berlin"]
    assert [m["peer"] for m in told("list", "--state", "queued")["messages"]] == ["laptop"]
    assert told("release", "berlin")["was_held"] is True
    assert told("release", "berlin")["was_held"] is False
    assert told("list", "--state", "held")["messages"] == []


def test_an_unknown_peer_is_a_usage_error(run):
    """hold, release and retry of a name that is no peer: exit 64 and the names that were meant."""
    for verb in ("hold", "release", "retry"):
        result = run(verb, "berln")
        assert result.exit_code == Exit.USAGE, result.output
        assert "berlin" in result.stderr


def test_retry_leaves_word_for_the_daemon(run, told):
    """retry works without a daemon and says that none runs."""
    assert told("retry", "berlin") == {"peer": "berlin", "daemon": False}
    assert "no daemon runs" in run("retry").stdout


def test_cancel_takes_back_what_was_not_shipped(run, told):
    """cancel ends queued deliveries, of one peer or all; once more is too late and exit 1."""
    sent = told("send", "x", "--to", "everywhere")
    assert told("cancel", sent["id"], "--peer", "laptop") == {"id": sent["id"], "cancelled": 1, "too_late": 0}
    assert told("cancel", sent["id"])["cancelled"] == 1
    assert told("cancel", sent["id"], code=Exit.FAILED)["cancelled"] == 0
    assert {m["state"] for m in told("list")["messages"]} == {"cancelled"}


def test_bury_and_kick(run, put, told):
    """A buried message keeps its reason until kick makes it ready; what is buried cannot be buried again."""
    first, _second = put(b"a", b"b")
    assert told("bury", first, "--reason", "poison")["buried"] is True
    assert told("status")["dead_letters"]["inbox"] == 1
    (buried,) = told("list", "--state", "buried")["messages"]
    assert "poison" in buried["reason"]
    again = run("bury", first)
    assert again.exit_code == Exit.FAILED
    assert "is buried" in again.stderr
    assert told("kick", "--id", first) == {"kicked": 1}
    assert told("kick", "--channel", "jobs") == {"kicked": 0}
    assert sorted(run("receive", "jobs").stdout.split()) == ["a", "b"]


def test_redrive_sends_ended_deliveries_again(run, told, file):
    """A delivery that was set aside as dead is queued again; without any filter or --all nothing is done."""
    sent = told("send", "x", "--to", "berlin")
    with Node.open(file) as node:
        (lane,) = node.outbox.lanes()
        node.outbox.dead_letter(lane.lane, lane.last, "peer fails on it")
    assert told("status")["dead_letters"]["outbox"] == 1
    assert run("redrive").exit_code == Exit.USAGE
    assert told("redrive", "--id", sent["id"]) == {"redriven": 1}
    assert [m["state"] for m in told("list")["messages"]] == ["queued"]


def test_wipe_removes_only_what_has_ended(run, told, put):
    """wipe --all forgets ended messages of both halves and leaves what waits."""
    first, _second = put(b"a", b"b")
    run("bury", first)
    ended, _alive = told("send", "x", "--to", "berlin"), told("send", "y", "--to", "berlin")
    run("cancel", ended["id"])
    assert told("wipe", "--all", "--yes") == {"outbox": 1, "inbox": 1}
    assert sorted(m["state"] for m in told("list")["messages"]) == ["queued", "ready"]


def test_wipe_asks_first(run, told, put):
    """Without --yes and with nobody to ask nothing is removed; neither without a filter, nor a living state."""
    (first,) = put(b"a")
    run("bury", first)
    nobody = run("wipe", "--state", "buried")
    assert nobody.exit_code == Exit.USAGE
    assert "forget 1 of the inbox for good? nothing was removed" in nobody.stderr
    for wrong in ([], ["--state", "queued"], ["--all", "--channel", "jobs"], ["--state", "dead", "--in", "inbox"]):
        assert run("wipe", *wrong, "--yes").exit_code == Exit.USAGE
    assert len(told("list", "--state", "buried")["messages"]) == 1
