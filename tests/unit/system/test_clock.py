"""Node time: it never steps back, counts sleep and downtime, and a wrong wall clock cannot move it far."""

import json
import time

import pytest

from dropr_core.system import clock as clocks
from dropr_core.system.clock import MAX_TRUSTED_GAP, FakeClock, SystemClock, keep_clock, open_clock, read_clock


@pytest.fixture
def machine(monkeypatch):
    """A machine whose boot, boot clock and wall clock the test sets."""

    class Machine:
        boot, since_boot, wall = "boot-1", 1000.0, 1_700_000_000.0

        def reboot(self, away):
            """Down for so many seconds, by the wall clock."""
            self.boot, self.since_boot, self.wall = self.boot + "x", 5.0, self.wall + away

    machine = Machine()
    monkeypatch.setattr(clocks, "boot_id", lambda: machine.boot)
    monkeypatch.setattr(clocks, "boot_seconds", lambda: machine.since_boot)
    monkeypatch.setattr(time, "clock_gettime", lambda _clock: machine.since_boot)
    monkeypatch.setattr(time, "time", lambda: machine.wall)
    return machine


def test_processes_of_one_boot_have_the_same_time(machine, tmp_path):
    """Whoever opens the node later reads what the first wrote down."""
    first = open_clock(tmp_path)
    machine.since_boot += 50
    assert open_clock(tmp_path).now() == first.now() == read_clock(tmp_path).now()


def test_time_goes_on_over_a_reboot(machine, tmp_path):
    """With the time that the machine was down, by the wall clock."""
    keep_clock(tmp_path, open_clock(tmp_path))
    before = read_clock(tmp_path).now()
    machine.reboot(600)
    assert open_clock(tmp_path).now() == pytest.approx(before + 600)


@pytest.mark.parametrize("away", [-86400.0, MAX_TRUSTED_GAP + 1])
def test_a_wrong_wall_clock_over_a_reboot_is_not_believed(machine, tmp_path, away):
    """Back, or far ahead: time goes on from where it was, and nothing expires or waits for years."""
    keep_clock(tmp_path, open_clock(tmp_path))
    before = read_clock(tmp_path).now()
    machine.reboot(away)
    assert open_clock(tmp_path).now() == pytest.approx(before)


def test_a_step_of_the_wall_clock_moves_nothing(machine, tmp_path):
    """Neither now nor for who opens the node after it."""
    clock = open_clock(tmp_path)
    before = clock.now()
    machine.wall -= 1e8
    assert clock.now() == open_clock(tmp_path).now() == before
    assert clock.wall() == machine.wall


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": 1}', '{"boot": "x", "wall": "soon", "node": 1}', "null"])
def test_a_damaged_file_is_a_fresh_start(machine, tmp_path, text):
    """The file is a help, not a promise: the node opens, and writes a good one."""
    (tmp_path / "clock.json").write_text(text)
    assert open_clock(tmp_path).now() == machine.since_boot
    assert json.loads((tmp_path / "clock.json").read_text())["boot"] == machine.boot


def test_looking_changes_nothing(machine, tmp_path):
    """A copy of a node on another machine is read and not written."""
    read_clock(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_clock_of_tests_moves_when_told():
    """Both times with `advance`, the wall alone with a step."""
    clock = FakeClock(10.0, 100.0)
    clock.advance(5)
    clock.step_wall(-50)
    assert (clock.now(), clock.wall()) == (15.0, 55.0)


def test_the_real_clock_does_not_go_back():
    """Its own base is added to the clock that counts from the boot."""
    clock = SystemClock(100.0)
    times = [clock.now() for _ in range(1000)]
    assert times == sorted(times)
    assert times[0] > 100.0
