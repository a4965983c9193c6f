"""The child's side of the heart-beat, and the notices to systemd."""

import os
import socket
import tempfile

from dropr_core.angel.heartbeat import UNWATCHED_INTERVAL, Heartbeat, RecycleLimits, resident_bytes
from dropr_core.angel.systemd import ServiceManager


def pipes() -> tuple[dict[str, str], tuple[int, int, int, int]]:
    beat_r, beat_w = os.pipe()
    life_r, life_w = os.pipe()
    environ = {
        "DROPR_HEARTBEAT_FD": str(beat_w),
        "DROPR_LIFELINE_FD": str(life_r),
        "DROPR_HEARTBEAT_INTERVAL": "4",
        "KEEP": "1",
    }
    return environ, (beat_r, beat_w, life_r, life_w)


def test_without_an_angel_everything_is_a_no_op():
    """A daemon started by hand needs no angel."""
    with Heartbeat.from_environment({}) as heart:
        heart.ready()
        heart.beat()
        assert not heart.watched
        assert not heart.orphaned
        assert heart.lifeline is None
        assert heart.interval == UNWATCHED_INTERVAL
    heart.close()


def test_beats_and_ready_reach_the_pipe_and_fast_loops_are_thinned():
    """One byte says ready; a loop that turns a thousand times at once writes one beat."""
    environ, (beat_r, _, _, life_w) = pipes()
    with Heartbeat.from_environment(environ) as heart:
        assert environ == {"KEEP": "1"}
        assert heart.interval == 4
        heart.ready()
        for _ in range(1000):
            heart.beat()
        assert os.read(beat_r, 100) == b"R."
    os.close(beat_r)
    os.close(life_w)


def test_pipes_are_kept_from_grandchildren():
    """The file descriptors are not inherited any further."""
    environ, (beat_r, beat_w, life_r, life_w) = pipes()
    for fd in (beat_w, life_r):
        os.set_inheritable(fd, True)
    with Heartbeat.from_environment(environ):
        assert not os.get_inheritable(beat_w)
        assert not os.get_inheritable(life_r)
    os.close(beat_r)
    os.close(life_w)


def test_a_stale_number_in_the_environment_touches_no_other_file(tmp_path):
    """A number that means another file by now, or nothing, is ignored."""
    with (tmp_path / "data").open("wb") as file:
        for text in (str(file.fileno()), "9999", "-1", "x", "", "9" * 40):
            with Heartbeat.from_environment({"DROPR_HEARTBEAT_FD": text, "DROPR_LIFELINE_FD": text}) as heart:
                assert not heart.watched
                heart.ready()
    assert (tmp_path / "data").read_bytes() == b""


def test_a_full_pipe_neither_blocks_nor_raises():
    """An angel that does not read cannot stop its child."""
    environ, (beat_r, _, _, life_w) = pipes()
    with Heartbeat.from_environment(environ) as heart:
        for _ in range(70_000):
            heart.ready()
        assert not heart.orphaned
    os.close(beat_r)
    os.close(life_w)


def test_the_end_of_the_angel_is_seen_on_either_pipe():
    """A broken beat pipe and the end of the lifeline both mean: the angel is gone."""
    environ, (beat_r, _, _, life_w) = pipes()
    with Heartbeat.from_environment(environ) as heart:
        assert not heart.orphaned
        os.close(life_w)
        assert heart.orphaned
    os.close(beat_r)
    environ, (beat_r, _, _, life_w) = pipes()
    with Heartbeat.from_environment(environ) as heart:
        os.close(beat_r)
        heart.ready()
        assert heart.orphaned
    os.close(life_w)


def test_wear_limits_say_when_and_why():
    """Count and memory each end a life; without limits nothing does."""
    assert RecycleLimits().due(10**9) == ""
    assert RecycleLimits(max_count=10).due(9) == ""
    assert "limit for one life is 10" in RecycleLimits(max_count=10).due(10)
    assert "memory" in RecycleLimits(max_memory=1).due(0)
    assert resident_bytes() > 1_000_000
    assert resident_bytes(2**22 + 5) is None


def test_systemd_notices_arrive_and_the_variables_are_taken():
    """Each verb is the datagram of the protocol, on a path and on an abstract address."""
    with tempfile.TemporaryDirectory() as directory:
        for address in (f"{directory}/n", f"@dropr-test-{os.getpid()}"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
                line.bind("\0" + address[1:] if address.startswith("@") else address)
                line.settimeout(60)
                environ = {
                    "NOTIFY_SOCKET": address,
                    "WATCHDOG_USEC": "3000000",
                    "WATCHDOG_PID": str(os.getpid()),
                }
                manager = ServiceManager.from_environment(environ)
                assert environ == {}
                assert manager.watchdog == 3.0
                manager.ready()
                manager.status("two\nlines")
                manager.alive()
                manager.reloading()
                manager.stopping()
                got = [line.recv(4096).decode() for _ in range(5)]
                assert got[:3] == ["READY=1", "STATUS=two lines", "WATCHDOG=1"]
                assert got[3].startswith("RELOADING=1\nMONOTONIC_USEC=")
                assert got[4] == "STOPPING=1"


def test_systemd_absent_or_gone_is_no_trouble():
    """Outside systemd, or with its socket gone, notices go nowhere in silence."""
    ServiceManager.from_environment({}).ready()
    ServiceManager("/nonexistent/notify").ready()
    elsewhere = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}
    assert ServiceManager.from_environment(elsewhere).watchdog is None
    odd = {"NOTIFY_SOCKET": "vsock:2:3", "WATCHDOG_USEC": "x"}
    assert ServiceManager.from_environment(odd).watchdog is None
