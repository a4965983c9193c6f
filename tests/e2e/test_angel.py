"""The angel with real processes, pipes and signals."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest
from e2e.angels import DEAF, LOOP, gone, until

from dropr_core.angel.angel import Angel, ChildSpec, role_child
from dropr_core.angel.status_file import read_state
from dropr_core.errors import UsageError
from dropr_core.system.exit_codes import Exit

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGABRT])
def test_a_killed_child_is_started_again_and_the_status_file_says_so(heaven, death):
    """Each death, also by a library that aborts, is followed by a new process; the report counts and names them."""
    heaven.start({"daemon": heaven.child("daemon"), "server": heaven.child("server")})
    heaven.wait_for("server", "ready")
    for count in range(1, 4):
        pids = heaven.wait_for("daemon", "ready", count)
        os.kill(pids[-1], death)
    pid = heaven.wait_for("daemon", "ready", 4)[-1]
    report = heaven.wait_state("daemon", "running")
    assert (report.pid, report.restarts) == (pid, 3)
    assert report.last_exit.startswith(f"killed by {death.name}")
    assert heaven.report("server").restarts == 0
    assert heaven.stop() == Exit.OK
    assert len(heaven.notes("daemon", "drained")) == len(heaven.notes("server", "drained")) == 1
    assert heaven.report("daemon").state == "stopped"


def test_fault_25_a_child_that_lives_but_does_not_turn_is_killed_and_replaced(heaven):
    """A child stopped in mid-work, deaf to SIGTERM, is found by its silence."""
    heaven.start({"daemon": heaven.child("daemon")}, hang=2.0, grace=0.2)
    (stuck,) = heaven.wait_for("daemon", "ready")
    os.kill(stuck, signal.SIGSTOP)
    heaven.wait_for("daemon", "ready", 2)
    assert gone(stuck)
    assert "silent for 2 s" in heaven.report("daemon").last_exit
    assert "no heart-beat" in heaven.log.read_text()
    assert heaven.stop() == Exit.OK


def test_a_child_that_turns_slowly_is_left_alone(heaven):
    """Idle children beat often enough by their interval: nobody is killed over several hang times."""
    heaven.start({"daemon": heaven.child("daemon"), "silent": "import time; time.sleep(600)"}, hang=4.0)
    heaven.wait_for("daemon", "ready")
    heaven.wait_state("daemon", "running")
    begun = heaven.report("daemon").restarts  # a busy machine may take longer than that to start it
    until(lambda: (child := heaven.report("silent")) and child.restarts >= 2, "the silent child was ended")
    assert heaven.report("daemon").restarts == begun
    assert heaven.stop() == Exit.OK


def test_exit_78_is_left_down_and_the_others_go_on(heaven):
    """A configuration error is reported, not retried; SIGHUP gives a new chance."""
    broken = heaven.child("worker", "sys.exit(78)")
    heaven.start({"daemon": heaven.child("daemon"), "worker": broken})
    heaven.wait_state("worker", "misconfigured")
    (pid,) = heaven.wait_for("daemon", "ready")
    heaven.wait_state("daemon", "running")
    assert len(heaven.notes("worker", "start")) == 1
    heaven.process.send_signal(signal.SIGHUP)
    heaven.wait_for("worker", "start", 2)
    assert heaven.wait_for("daemon", "reload") == [pid]
    heaven.wait_state("worker", "misconfigured")
    assert heaven.stop() == Exit.OK
    assert "stays down until" in heaven.log.read_text()


def test_the_angel_exits_78_when_nothing_is_left_to_watch(heaven):
    """With every child misconfigured the angel hands the verdict on."""
    heaven.start({"a": "raise SystemExit(78)", "b": "raise SystemExit(78)"})
    assert heaven.process.wait(60) == Exit.CONFIG


def test_exit_75_is_a_recycling_and_no_crash(heaven):
    """A child that asks for a fresh start gets it at once, and it is not called a crash."""
    body = "heart.ready(); time.sleep(1.1); sys.exit(75)"
    heaven.start({"worker": heaven.child("worker", body)}, backoff=[1000, 1000])
    heaven.wait_for("worker", "start", 2)
    assert "A fresh one starts now" in heaven.log.read_text()
    assert heaven.stop() == Exit.OK


def test_a_child_over_the_memory_limit_drains_and_is_replaced(heaven):
    """The limit leads to SIGTERM, a drain and a fresh process."""
    heavy = """
if not os.path.exists(here + '.light'):
    open(here + '.light', 'w').close()
    ballast = bytearray(b'x') * 200_000_000
"""
    heaven.start({"worker": heaven.child("worker", heavy + LOOP)}, max_memory=150_000_000, hang=60.0)
    heaven.wait_for("worker", "drained")
    heaven.wait_for("worker", "ready", 2)
    assert "over the memory limit" in heaven.report("worker").last_exit
    assert heaven.stop() == Exit.OK


def test_what_does_not_drain_in_time_is_killed(heaven):
    """The drain time is a bound, for a child that ignores SIGTERM and for what it started."""
    heaven.start({"worker": heaven.child("worker", "os.fork()\n" + DEAF)}, drain=0.2)
    pids = heaven.wait_for("worker", "ready", 2)
    assert heaven.stop() == Exit.OK
    for pid in pids:
        until(lambda pid=pid: gone(pid), "the whole group is gone")


def test_a_second_interrupt_ends_the_patience(heaven):
    """Ctrl-C twice does not wait for the drain."""
    heaven.start({"worker": heaven.child("worker", DEAF)}, drain=500.0)
    (pid,) = heaven.wait_for("worker", "ready")
    heaven.process.send_signal(signal.SIGINT)
    heaven.wait_state("worker", "stopping")
    assert heaven.stop(signal.SIGINT) == Exit.OK
    assert gone(pid)


def test_ancestor_14_a_child_that_fails_at_once_is_backed_off(heaven):
    """A crash loop, and a command that does not even exist, slow down instead of burning a CPU."""
    children = {"daemon": heaven.child("daemon", "sys.exit(1)"), "typo": ["/nonexistent/program"]}
    heaven.start(children, backoff=[0.1, 30.0])
    heaven.wait_for("daemon", "start", 4)

    def waits():
        child = heaven.report("daemon")
        return child if child.state == "waiting" and child.restarts >= 4 else None

    report = until(waits, "daemon waits after its fourth crash")
    assert report.next_start is not None
    assert report.last_exit == "exit 1"
    assert "No such file" in heaven.report("typo").last_exit
    assert heaven.stop() == Exit.OK
    assert "crash 3 in a row" in heaven.log.read_text()


def test_a_child_notices_the_death_of_its_angel_and_makes_room(heaven):
    """SIGKILL for the angel leaves no stale daemon behind."""
    heaven.start({"daemon": heaven.child("daemon"), "server": heaven.child("server")})
    pids = heaven.wait_for("daemon", "ready") + heaven.wait_for("server", "ready")
    heaven.process.kill()
    heaven.process.wait()
    heaven.wait_for("daemon", "orphaned")
    heaven.wait_for("server", "orphaned")
    for pid in pids:
        until(lambda pid=pid: gone(pid), "the child ended")


def test_orphans_are_reaped_as_by_pid_1(heaven):
    """Grandchildren whose parent died do not stay as zombies."""
    body = """
for _ in range(5):
    if os.fork() == 0:
        if os.fork() == 0:
            while os.getppid() != int(angel):
                time.sleep(0.01)
            note("orphan")
            os._exit(0)
        os._exit(0)
    os.wait()
"""
    child = heaven.child("worker", "angel = os.getppid()\n" + body + LOOP)
    heaven.start({"worker": child}, subreaper=True)
    heaven.wait_for("worker", "ready")
    for pid in heaven.wait_for("worker", "orphan", 5):
        until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), "the orphan was reaped")
    assert heaven.report("worker").restarts == 0
    assert heaven.stop() == Exit.OK


def test_systemd_hears_ready_status_watchdog_reload_and_stop(heaven, tmp_path):
    """The whole notify protocol over a real socket; the children do not see the variables."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        address = f"@dropr-angel-{os.getpid()}"
        line.bind("\0" + address[1:])
        line.settimeout(60)
        heard = []

        def hear(start: str) -> int:
            while True:
                text = line.recv(4096).decode()
                heard.append(text)
                if text.startswith(start):
                    return len(heard)

        body = """
assert 'NOTIFY_SOCKET' not in os.environ
heart.beat()
note('beat')
while not os.path.exists(here + '.go'):
    time.sleep(0.02)
"""
        heaven.start(
            {"daemon": heaven.child("daemon"), "server": heaven.child("server", body + LOOP)},
            env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"},
        )
        heaven.wait_for("daemon", "ready")
        heaven.wait_for("server", "beat")
        hear("WATCHDOG=1")
        hear("WATCHDOG=1")
        assert "READY=1" not in heard
        (tmp_path / "server.go").touch()
        hear("READY=1")
        heaven.wait_state("server", "running")
        heaven.process.send_signal(signal.SIGHUP)
        hear("RELOADING=1\nMONOTONIC_USEC=")
        hear("READY=1")
        heaven.wait_for("server", "reload")
        heaven.process.send_signal(signal.SIGTERM)
        hear("STOPPING=1")
        assert heaven.process.wait(60) == Exit.OK
        assert any(text.startswith("STATUS=2 of 2 up") for text in heard)


def test_a_status_file_that_cannot_be_written_harms_nobody(heaven, tmp_path):
    """A missing directory or a full disk costs the report, not the children."""
    heaven.start({"daemon": heaven.child("daemon")}, state_file=str(tmp_path / "missing" / "angel.json"))
    heaven.wait_for("daemon", "ready")
    assert heaven.stop() == Exit.OK
    assert heaven.notes("daemon", "drained")
    assert "the children are not affected" in heaven.log.read_text()


def test_status_of_no_angel_or_of_rubbish_is_none(tmp_path):
    """Whoever reads the report never stumbles over the file."""
    assert read_state(tmp_path / "none.json") is None
    for text in ("", "[]", "{}", '{"angel": 1, "written": 0, "children": [{}]}', "null"):
        (tmp_path / "bad.json").write_text(text)
        assert read_state(tmp_path / "bad.json") is None


def test_an_angel_needs_children_with_names_of_their_own():
    """A mistake of the caller is said at once, before anything starts."""
    with pytest.raises(UsageError):
        Angel([])
    with pytest.raises(UsageError, match="twin"):
        Angel([ChildSpec("twin", ["true"]), ChildSpec("twin", ["true"])])


def test_a_role_runs_with_this_interpreter():
    """The standard children are dropr's own verbs."""
    spec = role_child("daemon", Path("node.yaml"))
    assert spec.name == "daemon"
    assert spec.argv == (sys.executable, "-m", "dropr_core", "daemon", "-c", "node.yaml")
