"""Metrics: their names, that Prometheus reads them, and that neither backlog nor crowds make many of them."""

import re
import shutil
import stat
import subprocess

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from support.one_node import open_node, pass_time

from dropr_core.cli.app import application
from dropr_core.monitor.exposition import exposition, write_textfile
from dropr_core.monitor.gathering import take_snapshot
from dropr_core.monitor.metrics import OTHER, Bounds, families
from dropr_core.monitor.metrics_routes import metrics_routes
from dropr_core.monitor.routes import Request
from dropr_core.monitor.snapshot import Angel, Channel, Child, Daemon, Flow, Longest, Processes, Worker
from dropr_core.system.exit_codes import Exit


@pytest.fixture
def node(tmp_path):
    with open_node(tmp_path) as opened:
        yield opened


def scrape(found):
    """(name, label → value …) → value, as Prometheus would read it."""
    text = exposition(found).decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_waits_and_what_came_is_told(node):
    """Backlog and age for each peer, flow and channel; counters of what was sent and processed; dead letters, disk."""
    node.send(b"one", to="berlin", channel="orders")
    node.send(b"two", to="berlin", channel="orders")
    node.put(b"three", channel="jobs")
    pass_time(node, 5)
    for message in node.receive("jobs", limit=1):
        assert message.body == b"three"
    seen = scrape(families(take_snapshot(node.runtime), "1"))
    name = node.runtime.name
    berlin, at = ("peer", "berlin"), ("node", name)
    assert seen["dropr_peer_waiting_messages", at, berlin] == 2
    assert seen["dropr_peer_sent_messages_total", at, berlin] == 2
    assert seen["dropr_peer_oldest_waiting_seconds", at, berlin] >= 5
    assert seen["dropr_flow_waiting_messages", ("channel", "orders"), at, berlin] == 2
    assert seen["dropr_peer_state", at, berlin, ("state", "unknown")] == 1
    assert seen["dropr_peer_state", at, berlin, ("state", "resting")] == 0
    assert seen["dropr_channel_processed_messages_total", ("channel", "jobs"), at] == 1
    assert seen["dropr_channel_messages", ("channel", "jobs"), at, ("state", "ready")] == 0
    assert seen["dropr_dead_letters", ("half", "inbox"), at] == 0
    assert seen["dropr_disk_free_bytes", at] > 0
    assert seen["dropr_metrics_folded", ("kind", "peer"), at] == 0
    assert seen["dropr_snapshot_timestamp_seconds", at] > 1e9


def test_names_keep_to_the_rules_of_prometheus(node):
    """Counters end in _total and nothing else does; durations are seconds and sizes bytes, not parts or multiples."""
    node.send(b"one", to="berlin", channel="orders")
    text = exposition(families(busy(take_snapshot(node.runtime)), "1")).decode()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", text, re.MULTILINE))
    assert kinds.keys() == helps.keys()
    for name, kind in kinds.items():
        assert re.fullmatch(r"dropr_[a-z]+(_[a-z]+)+", name)
        assert name.endswith("_total") == (kind == "counter")
        assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|kib|mib|percent)(_|$)", name)
    promtool = shutil.which("promtool")
    if promtool:
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def busy(snapshot):
    """The same node with every kind of process."""
    import msgspec

    child = Child(name="worker-1", state="running", pid=4, restarts=3, last_exit="")
    longest = Longest(id="x", channel="jobs", seconds=7.0)
    processes = Processes(
        daemon=Daemon(pid=1, name="daemon", since=1.0, memory=2, cpu=3.0, store="it broke"),
        workers=(Worker(pid=4, name="worker-1", since=1.0, memory=2, cpu=3.0, at_work=2, longest=longest),),
        angel=Angel(pid=9, name="angel", since=1.0, memory=2, cpu=3.0, children=(child,)),
    )
    return msgspec.structs.replace(snapshot, processes=processes)


def test_processes_are_told_with_their_restarts(node):
    """Age, memory and processor of each, restarts and state as the angel counts them, and what a worker is at."""
    seen = scrape(families(busy(take_snapshot(node.runtime)), "1"))
    at, worker = ("node", node.runtime.name), ("process", "worker-1")
    assert seen["dropr_process_restarts_total", at, worker] == 3
    assert seen["dropr_process_running", at, worker] == 1
    assert seen["dropr_process_cpu_seconds_total", at, worker, ("role", "worker")] == 3
    assert seen["dropr_process_resident_memory_bytes", at, ("process", "daemon"), ("role", "daemon")] == 2
    assert seen["dropr_worker_longest_handling_seconds", at, worker] == 7
    assert seen["dropr_store_trouble", at] == 1


def test_what_is_beyond_a_bound_stands_together(node):
    """Of many peers, channels and flows the first keep their series; of the rest numbers are added, ages are not."""
    import msgspec

    snapshot = take_snapshot(node.runtime)
    peer = snapshot.peers[0]
    peers = tuple(
        msgspec.structs.replace(peer, peer=f"peer{number}", waiting=10, oldest=float(number)) for number in range(5)
    )
    flow = Flow(peer="p", channel="c", waiting=1, awaiting=0, oldest=None, bytes=2, sent=3, shipped=2, ended={})
    channel = Channel(
        channel="c", ready=1, blocked=0, delayed=0, leased=0, buried=0, processed=4, received=5, bytes=6, oldest=1.0,
        paused=False, paused_for=None, paused_because="",
    )  # fmt: skip
    crowd = msgspec.structs.replace(
        snapshot,
        peers=peers,
        flows=tuple(msgspec.structs.replace(flow, channel=f"c{number}") for number in range(4)),
        channels=tuple(msgspec.structs.replace(channel, channel=f"c{number}") for number in range(3)),
    )
    seen = scrape(families(crowd, "1", Bounds(peers=2, channels=1, flows=3)))
    at = ("node", node.runtime.name)
    assert seen["dropr_peer_waiting_messages", at, ("peer", "peer1")] == 10
    assert ("dropr_peer_waiting_messages", at, ("peer", "peer2")) not in seen
    assert seen["dropr_peer_waiting_messages", at, ("peer", OTHER)] == 30
    assert seen["dropr_peer_oldest_waiting_seconds", at, ("peer", OTHER)] == 4
    assert seen["dropr_channel_messages", ("channel", OTHER), at, ("state", "ready")] == 2
    assert seen["dropr_flow_sent_messages_total", ("channel", OTHER), at, ("peer", OTHER)] == 3
    folded = {kind: seen["dropr_metrics_folded", ("kind", kind), at] for kind in ("peer", "channel", "flow")}
    assert folded == {"peer": 3, "channel": 2, "flow": 1}


def test_a_backlog_makes_no_more_metrics(node):
    """As many series with a thousand messages as with one."""

    def series():
        return len(scrape(families(take_snapshot(node.runtime), "1")))

    node.send(b"one", to="berlin", channel="orders")
    before = series()
    with node.batch() as batch:
        for _ in range(1000):
            batch.send(b"more", to="berlin", channel="orders")
    assert series() == before


def test_labels_of_strangers_cannot_break_the_text(node):
    """Whatever stands in a label comes out as it went in."""
    import msgspec

    snapshot = take_snapshot(node.runtime)
    odd = 'a"b\\c\nd'
    peers = tuple(msgspec.structs.replace(peer, peer=odd) for peer in snapshot.peers[:1])
    seen = scrape(families(msgspec.structs.replace(snapshot, peers=peers), "1"))
    assert seen["dropr_peer_waiting_messages", ("node", node.runtime.name), ("peer", odd)] == 0


def test_the_route_answers_as_prometheus_expects(node):
    """Text of version 0.0.4, for those who have the token."""
    (route,) = metrics_routes(node.runtime, None)
    assert (route.path, route.open) == ("/metrics", False)
    answer = route.function(Request("GET", "/metrics"))
    assert answer.media_type.startswith("text/plain; version=0.0.4")
    assert b"dropr_node_info" in answer.body


def test_a_textfile_is_replaced_whole(tmp_path):
    """The new text is there at once, readable for everybody, under the name alone; a failure leaves the old one."""
    path = tmp_path / "dropr.prom"
    write_textfile(path, b"one\n")
    inode = path.stat().st_ino
    write_textfile(path, b"two\n")
    assert path.read_bytes() == b"two\n"
    assert path.stat().st_ino != inode
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [one.name for one in tmp_path.iterdir()] == ["dropr.prom"]
    with pytest.raises(OSError, match="No such file"):
        write_textfile(tmp_path / "no" / "dropr.prom", b"three\n")


def test_the_verb_prints_or_writes_them(tmp_path):
    """`dropr metrics` prints, `--textfile` writes; both can be read by Prometheus."""
    file = tmp_path / "node.yaml"
    file.write_text("node: shop\nstorage: sqlite\nlimits: {min_free: 0}\npeers: {}\n")
    run = CliRunner().invoke
    run(application(), ["receive", "jobs", "--wait", "0", "-c", str(file)])
    printed = run(application(), ["metrics", "-c", str(file)])
    assert printed.exit_code == 0, printed.output
    names = {family.name for family in text_string_to_metric_families(printed.stdout) if family.samples}
    assert {"dropr_node_info", "dropr_disk_free_bytes"} <= names
    target = tmp_path / "dropr.prom"
    written = run(application(), ["metrics", "-c", str(file), "--textfile", str(target)])
    assert (written.exit_code, written.stdout) == (0, "")
    found = {family.name for family in text_string_to_metric_families(target.read_text()) if family.samples}
    assert found == names
    wrong = run(application(), ["metrics", "-c", str(file), "--textfile", str(tmp_path / "no" / "dropr.prom")])
    assert wrong.exit_code == Exit.CANTCREAT
    assert "no/dropr.prom cannot be written: No such file or directory" in wrong.stderr
