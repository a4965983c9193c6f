"""How the processes of one node share a `rate` or a `concurrency`, and what one that dies leaves."""

import os
import signal
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.nodes import eventually
from unit.api.limited_channels import Stock

from dropr_core.errors import WriteFailed
from dropr_core.model.rates import parse_rate


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    rate=st.sampled_from(["1/s", "8/s", "60/m", "3/m"]),
    burst=st.integers(1, 5),
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(1, 7), st.booleans()), max_size=25),
)
def test_processes_share_a_rate_over_restarts(tmp_path_factory, rate, burst, steps):
    """Three processes that claim at any moments, and die and start in between, never get more than burst + rate * t."""
    stock = Stock(tmp_path_factory.mktemp("rate"), rate=rate, burst=burst)
    processes = [stock.process() for _ in range(3)]
    for rest, who, count, restarts in steps:
        stock.seconds += rest / 4
        if restarts:
            processes[who] = stock.process()
        processes[who].claim(stock.take, ["jobs"], count, "me", ahead=False)
    each = parse_rate(rate).interval / 1e9
    for first, start in enumerate(stock.given):
        for last, end in enumerate(stock.given[first:], first):
            assert last - first + 1 <= burst + (end - start) / each + 1e-6


def test_a_rate_that_was_made_faster_counts_at_once(tmp_path):
    """What a slower rate still owed does not hold up the new one for longer than that would."""
    Stock(tmp_path, rate="1/d").process().claim(Stock(tmp_path, rate="1/d").take, ["jobs"], 1, "me", ahead=False)
    stock = Stock(tmp_path, rate="1/s")
    limits = stock.process()
    assert limits.claim(stock.take, ["jobs"], 1, "me", ahead=False) == []
    stock.seconds += 1.01
    assert len(limits.claim(stock.take, ["jobs"], 1, "me", ahead=False)) == 1


def test_a_claim_that_fails_takes_nothing(tmp_path):
    """A store that refuses uses up no place and no message of the rate; what it gave before is handed out."""
    stock = Stock(tmp_path, rate="1/h", burst=2, concurrency=2)
    limits = stock.process()

    def fail(channels, count):
        raise WriteFailed("no room")

    for _ in range(3):
        with pytest.raises(WriteFailed):
            limits.claim(fail, ["jobs"], 5, "me", ahead=False)
    assert len(limits.claim(stock.take, ["jobs"], 5, "me", ahead=False)) == 2


def test_a_killed_process_leaves_its_places_at_once(tmp_path):
    """kill -9 of who holds the only place: the next claim of another process has it."""
    stock = Stock(tmp_path, concurrency=1)
    program = (
        "import sys, time\nfrom pathlib import Path\nsys.path[:0] = sys.argv[2:]\n"
        "from unit.api.limited_channels import Stock\n"
        "stock = Stock(Path(sys.argv[1]), concurrency=1)\nlimits = stock.process()\n"
        "print(len(limits.claim(stock.take, ['jobs'], 5, 'me', ahead=False)), flush=True)\ntime.sleep(3600)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), *sys.path], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"1\n"
        limits = stock.process()
        assert limits.claim(stock.take, ["jobs"], 5, "me", ahead=False) == []
        child.send_signal(signal.SIGKILL)
        child.wait(60)
        assert len(limits.claim(stock.take, ["jobs"], 5, "me", ahead=False)) == 1
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_forked_child_keeps_no_place(tmp_path):
    """A child that lives on after its parent has settled does not hold the place."""
    stock = Stock(tmp_path, concurrency=1)
    limits = stock.process()
    (claim,) = limits.claim(stock.take, ["jobs"], 1, "me", ahead=False)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        limits.settled([claim])
        eventually(lambda: stock.process().claim(stock.take, ["jobs"], 1, "me", ahead=False))
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(child, 0)
