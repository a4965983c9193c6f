"""What the daemon does first when it wakes up."""

import logging

import pytest

from dropr_core.api.store_trouble import StoreTrouble
from dropr_core.processes.agenda import Agenda, Task
from dropr_core.system.clock import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def agenda(clock):
    return Agenda(clock, StoreTrouble(clock, lambda _name, _details: None, logging.getLogger("dropr.daemon")))


def test_what_is_done_because_the_process_is_awake_comes_after_what_woke_it(agenda, clock):
    """A message does not wait for a sweep that could be done at any time; a sweep that is due keeps its place."""
    done = []

    def note(name, seconds):
        return lambda now: done.append(name) or now + seconds

    agenda.add(Task(("sweep",), note("sweep", 300.0), 0.25))
    agenda.add(Task(("links",), note("links", 5.0), 0.0))
    agenda.turn()
    assert done == ["sweep", "links"]
    clock.advance(1.0)
    agenda.turn()
    assert done[2:] == ["links", "sweep"]
    clock.advance(300.0)
    agenda.turn()
    assert done[4:] == ["sweep", "links"]


def test_what_a_later_task_brings_for_an_earlier_one_is_done_in_the_same_turn(agenda, clock):
    """The links come first, for a message may wait; a request to retry that is found behind them is not left lying."""
    done = []

    def bring(now):
        done.append("retry")
        links.again = len(done) < 3
        return now + 5.0

    links = agenda.add(Task(("links",), lambda now: done.append("links") or now + 5.0, 0.0))
    agenda.add(Task(("retry",), bring, 0.0))
    assert agenda.turn() == pytest.approx(clock.now() + 5.0)
    assert done == ["links", "retry", "links"]
    agenda.turn()
    assert done == ["links", "retry", "links", "links", "retry"]


def test_a_task_that_can_wait_is_done_at_its_spacing_at_the_latest(agenda, clock):
    """Whatever woke the process may have made it due sooner than it said: it looks again, and then sleeps."""
    agenda.add(Task(("sweep",), lambda now: now + 300.0, 0.25))
    assert agenda.turn() == pytest.approx(clock.now() + 300.0)
    clock.advance(0.125)
    wake = agenda.turn()
    assert wake == pytest.approx(clock.now() + 0.125)
    clock.advance(0.125)
    assert agenda.turn() == pytest.approx(clock.now() + 300.0)


def test_a_process_with_nothing_to_do_gets_up_for_what_is_due_alone(agenda, clock):
    """Once for the thing that is due, and all the others with it: a clock that was set tells nobody."""
    done = []

    def note(name, seconds):
        return lambda now: done.append(name) or now + seconds

    agenda.add(Task(("staged",), note("staged", 5.0), 5.0))
    agenda.add(Task(("schedules",), note("schedules", 300.0), 1.0))
    agenda.add(Task(("sweep",), note("sweep", 300.0), 0.25))
    wake = agenda.turn()
    turns = 0
    ends = clock.now() + 62.0
    while clock.now() < ends:
        clock.advance(wake - clock.now())
        wake = agenda.turn(woken=False)
        turns += 1
    assert turns == 13
    assert done.count("sweep") == done.count("schedules") == 14


def test_what_happened_once_is_followed_by_each_task_once(agenda, clock):
    """A turn that something woke plans what can wait; the turns for that plan nothing more."""
    agenda.add(Task(("schedules",), lambda now: now + 300.0, 1.0))
    agenda.add(Task(("sweep",), lambda now: now + 300.0, 0.25))
    agenda.turn()
    clock.advance(0.125)
    assert agenda.turn(woken=True) == pytest.approx(clock.now() + 0.125)
    clock.advance(0.125)
    assert agenda.turn(woken=False) == pytest.approx(clock.now() + 0.75)
    clock.advance(0.75)
    assert agenda.turn(woken=False) == pytest.approx(clock.now() + 299.25, abs=1.0)
