"""Node time and the server's clock."""

import logging

import pytest

pytest.importorskip("psycopg")
from dropr_storage_postgres.engine.times import Times

from dropr_core.system.clock import FakeClock, SystemClock


def times(caplog, clock=None):
    caplog.set_level(logging.INFO)
    return Times(clock or SystemClock(), logging.getLogger("times"), "here")


def test_machines_meet_in_the_servers_time(caplog):
    """Two machines with different node times write the same moment as the same number, and read back their own."""
    one, other = times(caplog), times(caplog)
    one.measure(100.0, 5000.0, 100.0)
    other.measure(7.0, 5000.0, 7.0)
    assert one.stored(103.0) == other.stored(10.0) == 5003.0
    assert (one.node(5003.0), other.node(5003.0)) == (103.0, 10.0)


def test_a_drift_is_followed_and_a_step_is_not(caplog):
    """What two clocks drift apart is taken over at the next session; a clock that was set ages nothing, and is said
    once.
    """
    clocks = times(caplog)
    clocks.measure(100.0, 5000.0, 100.0)
    clocks.measure(200.0, 5100.5, 200.0)
    assert clocks.node(5100.5) == 200.0
    for _ in range(2):
        clocks.measure(300.0, 8800.5, 300.0)
    assert clocks.node(5200.5) == 300.0
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_clock_that_is_set_by_hand_is_the_servers(caplog):
    """Tests that move the time move it for everybody."""
    clock = FakeClock(now=1000.0)
    clocks = times(caplog, clock)
    clocks.measure(1000.0, 1_700_000_000.0, 1000.0)
    assert (clocks.now(), clocks.node(1000.0)) == (1000.0, 1000.0)
