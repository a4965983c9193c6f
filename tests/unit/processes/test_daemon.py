"""The daemon's turns: what is tried again when, what is said of it, and what is left of an old configuration."""

import logging

import pytest

import dropr_core as dropr
from dropr_core.angel.heartbeat import Heartbeat
from dropr_core.api.store_trouble import StoreTrouble
from dropr_core.config.node import parse
from dropr_core.errors import StoreReadOnly, WriteFailed
from dropr_core.processes import daemon as daemon_module
from dropr_core.processes.agenda import Agenda, Task
from dropr_core.processes.mainloop import MainLoop
from dropr_core.system.clock import FakeClock

LOG = logging.getLogger("dropr.daemon")
YAML = """
node: ware
data: ./data
limits: {min_free: 0}
peers:
  shop: {url: "http://127.0.0.1:9", key: 0123456789abcdef0123}
  other: {url: "http://127.0.0.1:9", key: 0123456789abcdef0123}
"""


@pytest.fixture
def node(tmp_path):
    with dropr.Node.open(parse(YAML, tmp_path)) as opened:
        yield opened


@pytest.fixture
def daemon(node):
    node.runtime.clock = FakeClock()
    with MainLoop(Heartbeat.from_environment()) as loop:
        made = daemon_module.Daemon(node.runtime, loop)
        yield made
        made.close()


def live(daemon, seconds):
    """Turn whenever the daemon says so, for some time of its clock; how often it turned."""
    clock, turns = daemon._carrier.runtime.clock, 0
    ends = clock.now() + seconds
    while clock.now() < ends:
        wake = daemon.turn()
        turns += 1
        assert wake > clock.now(), "it wants to be woken at once, and spins"
        clock.advance(min(wake, ends) - clock.now())
    return turns


def counted(kind, tries):
    def fail(*_args, **_more):
        tries.append(1)
        raise kind

    return fail


TURNS = 300
"""In a minute: two peers that refuse connections are tried meanwhile, each answer is a turn. Spinning needs more."""
READ_ONLY = OSError(30, "Read-only file system", "somewhere")
CALLS = {
    "outbox.sweep": ("outbox", "sweep"), "inbox.sweep": ("inbox", "sweep"),
    "outbox.standing": ("outbox", "standing"), "bodies": ("runtime", "sweep_bodies"), "clock": ("module", "keep_clock"),
    "report": ("module", "replace_text"),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [StoreReadOnly("outbox.db: read-only"), WriteFailed("outbox.db: EIO"), READ_ONLY])
def test_what_fails_is_tried_once_a_second_said_once_and_again_soon_after_it_works(
    node, daemon, monkeypatch, caplog, call, kind
):
    """Each thing that the daemon does by itself: a minute of failures is one line, and then one line that it works."""
    where, name = CALLS[call]
    owner = {"outbox": node.outbox, "inbox": node.inbox, "runtime": node.runtime, "module": daemon_module}[where]
    tries = []
    caplog.set_level(logging.INFO)
    if call == "report":
        monkeypatch.setattr(daemon, "_shown", "something else")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, counted(kind, tries))
        assert live(daemon, 60.0) <= TURNS
    assert 20 <= len(tries) <= 61
    assert caplog.text.count("the store failed") == 1
    live(daemon, 2.01)
    assert caplog.text.count("the store works again") == 1


def test_a_read_only_file_system_is_one_line_in_the_log_and_turns_no_faster(node, daemon, monkeypatch, caplog):
    """Everything that writes fails at once: all of it rests together."""
    tries = []
    caplog.set_level(logging.INFO)
    with monkeypatch.context() as patch:
        for where, name in CALLS.values():
            if name != "standing":
                owner = {"outbox": node.outbox, "inbox": node.inbox, "runtime": node.runtime, "module": daemon_module}
                patch.setattr(owner[where], name, counted(READ_ONLY, tries))
        turns = live(daemon, 60.0)
        assert turns <= TURNS
        assert len(tries) <= 2 * 61
    assert caplog.text.count("the store failed") == 1
    live(daemon, 2.01)
    assert caplog.text.count("the store works again") == 1


def test_a_request_to_retry_that_cannot_be_removed_stops_nothing_else(node, daemon, monkeypatch):
    """It is not carried out again and again either: that would end every rest."""
    node.runtime.retry_now("shop")
    turned, ended = [], []
    links = daemon._carrier.links
    monkeypatch.setattr(links, "turn", lambda: turned.append(1))
    monkeypatch.setattr(links, "reset_backoff", ended.append)
    with monkeypatch.context() as patch:
        patch.setattr(daemon_module.Path, "unlink", counted(READ_ONLY, []))
        live(daemon, 10.0)
    assert turned
    assert ended == []
    live(daemon, 2.01)
    assert ended == ["shop"]


def test_an_agenda_wakes_for_what_is_due_first_and_a_rest_is_not_cut_short():
    """Turned ever so often, a task that fails is tried when its rest is over and not before."""
    clock = FakeClock()
    trouble = StoreTrouble(clock, lambda _name, _details: None, LOG)
    agenda, tried, done = Agenda(clock, trouble), [], []

    def fails(now):
        tried.append(now)
        raise WriteFailed("no")

    def works(now):
        done.append(now)
        return now + 10.0

    agenda.add(Task(("a",), fails, 0.0))
    agenda.add(Task(("b",), works, 0.5))
    began = clock.now()
    for _ in range(100):
        assert agenda.turn() > clock.now()
        clock.advance(0.1)
    assert [round(at - began, 1) for at in tried] == [0.0, 1.0, 2.8, 4.6, 6.4, 8.2]
    assert len(done) == 20


def test_what_a_closed_generation_posted_is_never_done():
    """Neither what was posted before it was closed nor what comes after; others' posts are."""
    with MainLoop(Heartbeat.from_environment()) as loop:
        old, fresh, done = loop.generation(), loop.generation(), []
        old.post(lambda: done.append("old"))
        fresh.post(lambda: done.append("fresh"))
        old.close()
        old.post(lambda: done.append("late"))
        loop.run_posts()
    assert done == ["fresh"]


def test_reload_keeps_the_old_configuration_where_the_new_one_cannot_be_opened(node, daemon, tmp_path, monkeypatch):
    """A store that fails just then ends nobody: the old links go on."""
    file = tmp_path / "node.yaml"
    file.write_text(YAML)
    before = daemon._carrier
    with monkeypatch.context() as patch:
        patch.setattr(daemon_module, "Links", counted(WriteFailed("outbox.db: EIO"), []))
        daemon._reload(file)
    assert daemon._carrier is before
    daemon._reload(file)
    assert daemon._carrier is not before
    daemon.turn()


def test_what_moves_with_every_answer_is_written_twice_a_second_at_most(node, daemon, monkeypatch):
    """A busy peer answers a thousand times a second: that costs no thousand files, and the last of it is not lost."""
    written, clock = [], node.runtime.clock
    links = daemon._carrier.links
    told = {"state": "up", "moving": {"answered_at": 0.0}}
    monkeypatch.setattr(links, "report", lambda: {"shop": told})
    monkeypatch.setattr(links, "turn", lambda: None)
    monkeypatch.setattr(daemon_module, "replace_text", lambda _path, text: written.append(text))
    for number in range(1000):
        told = {"state": "up", "moving": {"answered_at": float(number)}}
        links.stirs += 1
        daemon.turn()
        clock.advance(0.001)
    assert 2 <= len(written) <= 4
    live(daemon, 1.0)
    assert '"answered_at": 999.0' in written[-1]
    count = len(written)
    live(daemon, 60.0)
    assert len(written) == count


def test_a_peer_that_goes_down_is_written_at_once(node, daemon, monkeypatch):
    """A state is no news that may wait."""
    written, clock = [], node.runtime.clock
    links, told = daemon._carrier.links, {"state": "up", "moving": {}}
    monkeypatch.setattr(links, "report", lambda: {"shop": told})
    monkeypatch.setattr(daemon_module, "replace_text", lambda _path, text: written.append(text))
    monkeypatch.setattr(daemon_module, "SHOW_SHARE", 0.0)
    daemon.turn()
    clock.advance(0.01)
    told = {"state": "resting", "moving": {}}
    links.stirs += 1
    daemon.turn()
    assert "resting" in written[-1]


def test_the_body_of_a_settled_message_goes_soon_though_nothing_else_happens(node, daemon, monkeypatch):
    """A sweep that took long rests for long, but not when a message with a body has ended since."""
    links, clock, swept = daemon._carrier.links, node.runtime.clock, []
    live(daemon, 10.0)
    daemon._bodies.spacing, daemon._bodies.due = 40.0, clock.now() + 40.0
    monkeypatch.setattr(node.runtime, "sweep_bodies", lambda: swept.append(clock.now()))
    monkeypatch.setattr(links, "turn", lambda: setattr(links, "unloaded", True))
    daemon.turn()
    settled = clock.now()
    monkeypatch.setattr(links, "turn", lambda: None)
    daemon._woken = False
    live(daemon, 5.0)
    assert [at - settled <= daemon_module.BODIES_SOON for at in swept[:1]] == [True]


def test_with_many_peers_nothing_is_reported_while_nothing_stirs(node, daemon, monkeypatch):
    """To make the report of a thousand peers takes longer than all the rest of a turn."""
    made = []
    links = daemon._carrier.links
    monkeypatch.setattr(links, "turn", lambda: None)
    live(daemon, 30.0)
    real = links.report
    monkeypatch.setattr(links, "report", lambda: made.append(1) or real())
    live(daemon, 60.0)
    assert made == []
    links.reset_backoff(None)
    live(daemon, 1.0)
    assert made
