"""The picture of a node: what it tells, that it survives JSON, and what it never tells."""

import json
import os
from collections.abc import Mapping
from types import UnionType
from typing import get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.one_node import KEY, Peer, configure, open_node, pass_time

import dropr_core as dropr
from dropr_core.monitor import snapshot as shapes
from dropr_core.monitor.gathering import FILES, public_url, take_snapshot
from dropr_core.monitor.process_reports import life_of, read_processes
from dropr_core.monitor.snapshot import Snapshot
from dropr_core.system.presence import Presence


def write_report(node, document):
    """As a daemon does: a report, believed while the lock is held."""
    directory = node.runtime.run_directory
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "daemon.json").write_text(json.dumps(document))


@pytest.fixture
def node(tmp_path):
    with open_node(tmp_path) as opened:
        yield opened


@pytest.fixture
def lively(node, monkeypatch):
    """A node to which a daemon's report can be given."""
    monkeypatch.setattr("dropr_core.monitor.process_reports.is_held", lambda path: path.name == "daemon.lock")
    return node


def test_what_waits_is_told_for_peer_flow_and_lane(node):
    """Backlog, bytes and age stand with the peer, with its channels and with their priorities."""
    node.send(b"one", to="berlin", channel="orders")
    node.send(b"two", to="berlin", channel="orders", priority=0)
    node.send(b"three", to="berlin", channel="notes")
    pass_time(node, 5)
    seen = take_snapshot(node.runtime)
    berlin = seen.peers[0]
    assert (berlin.peer, berlin.waiting, berlin.sent, berlin.shipped, berlin.state) == ("berlin", 3, 3, 0, "unknown")
    assert berlin.oldest >= 5
    assert [(flow.channel, flow.waiting, flow.sent) for flow in seen.flows] == [("notes", 1, 1), ("orders", 2, 2)]
    assert sorted((lane.channel, lane.priority, lane.waiting) for lane in seen.lanes) == [
        ("notes", 5, 1), ("orders", 0, 1), ("orders", 5, 1),
    ]  # fmt: skip
    assert berlin.bytes == sum(lane.bytes for lane in seen.lanes) == sum(flow.bytes for flow in seen.flows)


def test_counters_go_on_when_messages_leave(node):
    """What was shipped and what was processed is counted, though nothing of it waits any more."""
    Peer(node).push(b"a", b"b", b"c")
    node.send(b"out", to="berlin", channel="orders")
    (lane,) = node.outbox.lanes()
    batch = node.outbox.take(lane.lane, 10, 1000)
    node.outbox.settle(lane.lane, batch.upto)
    assert sum(1 for _ in node.receive("jobs", limit=2, wait=0)) == 2
    seen = take_snapshot(node.runtime)
    (jobs,) = seen.channels
    assert (jobs.ready, jobs.processed, jobs.received) == (1, 2, 3)
    berlin = seen.peers[0]
    assert (berlin.waiting, berlin.sent, berlin.shipped, berlin.received) == (0, 1, 1, 3)


def test_what_the_daemon_tells_of_a_peer_is_in_it(lively):
    """State and since when, failures, the next try, the last error with its time, what is in flight."""
    now = lively.runtime.clock.now()
    write_report(lively, {"pid": None, "store": "a lane rests", "peers": {"berlin": {
        "state": "resting", "reason": "no route", "failures": 3, "next_try": now + 30, "since": now - 60,
        "moving": {"error": "no route", "failed_at": now - 10, "answered_at": now - 70, "in_flight": 2},
    }}})  # fmt: skip
    seen = take_snapshot(lively.runtime)
    berlin = seen.peers[0]
    assert (berlin.state, berlin.reason, berlin.failures, berlin.in_flight) == ("resting", "no route", 3, 2)
    assert berlin.last_error == "no route"
    ages = (berlin.last_error_age, berlin.last_answer, berlin.state_for, berlin.next_try_in)
    assert [round(age, -1) for age in ages] == [10, 70, 60, 30]
    assert seen.processes.daemon.store == "a lane rests"


def test_a_report_of_an_older_daemon_is_no_fault(lively):
    """A daemon that is not restarted yet tells less; what it does not tell is null."""
    write_report(lively, {"peers": {"berlin": {"state": "up"}}})
    berlin = take_snapshot(lively.runtime).peers[0]
    assert (berlin.state, berlin.state_for, berlin.last_error, berlin.last_answer) == ("up", None, "", None)


def test_a_peer_that_is_only_fetched_from_shows_how_fetching_goes(lively):
    """Where nothing is to be shipped, the state is that of the fetching side."""
    fetch = {"state": "resting", "reason": "refused", "failures": 1, "next_try": None}
    write_report(lively, {"peers": {"berlin": {"state": "idle", "reason": "", "fetch": fetch}}})
    berlin = take_snapshot(lively.runtime).peers[0]
    assert (berlin.state, berlin.reason) == ("resting", "refused")


def test_processes_are_named_and_measured(node):
    """Each living process has its number, its life, memory and processor time, and its last report."""
    presence = Presence(node.runtime.run_directory, "worker")
    node.runtime.run_directory.mkdir(parents=True, exist_ok=True)
    presence.announce({"name": "worker-2", "channels": ["jobs"], "threads": 4, "at_work": 1,
                       "longest": {"id": "x", "channel": "jobs", "since": 0.0}})  # fmt: skip
    try:
        ((role, worker),) = read_processes(node.runtime, None).all()
    finally:
        presence.withdraw()
    assert (role, worker.name, worker.pid, worker.threads) == ("worker", "worker-2", os.getpid(), 4)
    assert worker.memory > 1_000_000
    assert worker.cpu > 0
    assert worker.since >= 0
    assert worker.longest.seconds > 0
    assert worker.last_report is not None


def test_a_process_that_is_gone_is_not_measured():
    """A number that nobody has any more is no error."""
    assert life_of(2**22 + 1) is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@host:8420/in?token=secret#secret", "http://host:8420/in"),
        ("zmq+tcp://10.0.0.9:8421", "zmq+tcp://10.0.0.9:8421"),
        ("http://[secret", "http:"),
        (None, None),
    ],
)
def test_an_address_is_shown_without_what_is_secret_in_it(url, shown):
    """User, password and query of a URL are left out."""
    assert public_url(url) == shown


def test_no_key_is_in_a_picture(node):
    """What is shown to anybody who may look holds nothing that lets him speak for a node."""
    assert KEY not in json.dumps(take_snapshot(node.runtime).as_dict())


def test_a_directory_of_very_many_files_is_not_counted_to_its_end(node):
    """Large bodies are files: their number does not make a picture dear, and what is told says that it is not all."""
    folder = node.config.data / "bodies" / "many"
    folder.mkdir(parents=True)
    assert take_snapshot(node.runtime).disk.whole
    for number in range(FILES + 1):
        (folder / str(number)).touch()
    disk = take_snapshot(node.runtime).disk
    assert not disk.whole
    assert 0 < disk.free <= disk.total


def test_a_node_can_be_looked_at_by_who_may_only_read(tmp_path):
    """A picture needs no more than a node that is open to look."""
    config = configure(tmp_path, storage="sqlite")
    with dropr.Node.open(config) as node:
        node.send(b"x", to="rome", channel="orders")
    with dropr.Node.open(config, read_only=True) as node:
        assert [peer.waiting for peer in take_snapshot(node.runtime).peers] == [0, 1]


# ── the values ───────────────────────────────────────────────────────────────────────────────────

PARTS = [one for one in vars(shapes).values() if isinstance(one, type) and issubclass(one, shapes.Part)]
TEXT = st.text(max_size=20)


def values(kind):
    """Any value of a field, or of a class of the picture; lists are short."""
    if isinstance(kind, UnionType):
        return st.one_of([values(one) for one in get_args(kind)])
    if get_origin(kind) is tuple:
        return st.lists(values(get_args(kind)[0]), max_size=1).map(tuple)
    if get_origin(kind) is Mapping:
        return st.dictionaries(TEXT, values(get_args(kind)[1]), max_size=1)
    if kind in PARTS:
        return st.fixed_dictionaries({one.name: values(one.type) for one in msgspec.structs.fields(kind)}).map(
            lambda fields: kind(**fields)
        )
    plain = {int: st.integers(0, 2**53), float: st.floats(0, 1e9), str: TEXT, bool: st.booleans()}
    return st.none() if kind is type(None) else plain[kind]


@pytest.mark.parametrize("kind", [shapes.Processes, shapes.Peer, shapes.Flow, shapes.LaneBacklog, shapes.Channel])
def test_each_part_survives_json(kind):
    """What is sent and kept as JSON comes back as it was, whatever stands in it."""

    @settings(max_examples=20, deadline=None)
    @given(values(kind))
    def holds(part):
        assert msgspec.convert(json.loads(json.dumps(part.as_dict())), kind) == part

    holds()


def test_a_picture_survives_json(node):
    """And so does the whole."""
    node.send(b"one", to="berlin", channel="orders")
    Peer(node).push(b"a")
    picture = take_snapshot(node.runtime)
    assert Snapshot.from_dict(json.loads(json.dumps(picture.as_dict()))) == picture


def test_a_picture_cannot_be_changed(node):
    """It is kept and compared: nobody may alter it under those who look."""
    with pytest.raises(AttributeError):
        take_snapshot(node.runtime).node = "other"
