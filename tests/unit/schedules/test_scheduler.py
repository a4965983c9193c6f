"""The turns of a scheduler on a store: kills between its two steps, restarts, a clock that is set, what is kept."""

import json
import logging
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.one_node import configure

from dropr_core.api.node import Node
from dropr_core.builtin.memory import medium_of
from dropr_core.contracts.storage import Selection
from dropr_core.errors import QueueFull
from dropr_core.model.names import due_of_run, id_of_run, is_of_key, is_of_run
from dropr_core.schedules.definitions import Definitions
from dropr_core.schedules.scheduler import Scheduler
from dropr_core.schedules.state import KEPT, StateFile
from dropr_core.system.clock import FakeClock
from dropr_core.system.shared_document import FileDocuments

LOG = logging.getLogger("test.schedules")
MINUTE = 60.0
HERE = {"every": "1m", "channel": "jobs", "text": "go", "missed": "all"}
THERE = {"every": "1m", "channel": "orders", "to": "rome", "text": "go", "missed": "all"}


class Killed(BaseException):
    """The process is killed here."""


class Life:
    """A node whose daemon is killed and started again, with a clock that anybody may set."""

    def __init__(self, directory, **schedules):
        self.directory = directory
        self.config = configure(directory, schedules=schedules)
        self._medium = medium_of(SimpleNamespace(data=self.config.data))
        self.clock = FakeClock(wall=1_700_000_000.0)
        self.node = None
        self.start()

    def start(self):
        """A new process."""
        if self.node is not None:
            self.node.close()
        self.node = Node.open(self.config)
        self.node.runtime.clock = self.clock
        self.scheduler = Scheduler(self.node.runtime, LOG)
        self.scheduler._firing._sender._composer._clock = self.clock

    def turn(self):
        """Whether it came to the end of a turn."""
        return self.scheduler.turn(self.clock.now())

    def killed_turn(self, monkeypatch, written):
        """A turn that is killed between storing a message and writing the state, or just after both."""
        real = StateFile.changing

        def changing(file):
            if written:
                with real(file) as state:
                    yield state
                raise Killed
            raise Killed

        from contextlib import contextmanager

        with monkeypatch.context() as patch:
            patch.setattr(StateFile, "changing", contextmanager(changing))
            try:
                self.turn()
            except Killed:
                return True
        return False

    def work(self):
        """Handle everything that waits here; the due times."""
        return [due_of_run(message.claim.id) / 1000 for message in self.node.receive("jobs", wait=0)]

    def sent(self):
        """The due times of what was sent."""
        found = [one for _, one in self.node.outbox.scan(Selection(), limit=1000)]
        return [due_of_run(one.id) / 1000 for one in found]

    def close(self):
        """Safe twice."""
        self.node.close()


@pytest.fixture
def live(tmp_path):
    lives = []

    def live(**schedules):
        lives.append(Life(tmp_path, **schedules))
        return lives[-1]

    yield live
    for one in lives:
        one.close()


def minutes(start, end):
    """Due times of a schedule of every minute after a moment, up to another."""
    return [60.0 * number for number in range(int(start // 60) + 1, int(end // 60) + 1)]


@pytest.mark.parametrize(("schedule", "seen"), [(HERE, "work"), (THERE, "sent")])
def test_each_due_time_happens_once(live, schedule, seen):
    """Here as messages of this node's own queue, there as deliveries; nothing happens before the first due time."""
    life = live(a=schedule)
    begin = life.clock.wall()
    life.turn()
    assert getattr(life, seen)() == []
    for _ in range(10):
        life.clock.advance(30)
        life.turn()
        life.turn()
    assert sorted(getattr(life, seen)()) == minutes(begin, life.clock.wall())


@pytest.mark.parametrize("handled", [True, False])
@pytest.mark.parametrize("schedule", [HERE, THERE])
def test_a_kill_between_the_two_steps_neither_doubles_nor_loses(live, monkeypatch, schedule, handled):
    """The message is there, the state was not written: the next life finds it, also when it was handled meanwhile."""
    life = live(a=schedule)
    begin = life.clock.wall()
    life.turn()
    life.clock.advance(MINUTE)
    assert life.killed_turn(monkeypatch, written=False)
    done = life.work() if handled else []
    life.start()
    life.turn()
    life.clock.advance(MINUTE)
    life.turn()
    assert done + life.work() + life.sent() == minutes(begin, life.clock.wall())
    life.turn()
    assert len(StateFile(FileDocuments(life.config.data), "a").look().runs) == 2


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("turn"), st.integers(1, 150)),
        st.tuples(st.just("kill"), st.booleans()),
        st.tuples(st.just("restart"), st.integers(0, 3600)),
        st.tuples(st.just("set"), st.integers(-4000, 4000)),
        st.tuples(st.just("work"), st.none()),
    ),
    max_size=14,  # all together no more than can be made up for at once
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, st.sampled_from(["skip", "one", "all"]))
def test_whatever_happens_nothing_happens_twice_and_with_all_nothing_is_lost(
    tmp_path_factory, monkeypatch, steps, missed
):
    """Random lives: kills between the steps, down-times, clocks set back and forth, handlers that are quick or slow."""
    life = Life(tmp_path_factory.mktemp("life"), here=HERE | {"missed": missed}, there=THERE | {"missed": missed})
    try:
        begin = furthest = life.clock.wall()
        life.turn()
        done = []
        for kind, much in [*steps, ("restart", 1), ("end", None), ("turn", 0), ("work", None)]:
            if kind == "turn":
                life.clock.advance(much)
                life.turn()
            elif kind == "kill":
                life.clock.advance(20)
                if life.killed_turn(monkeypatch, much):
                    life.start()
            elif kind == "restart":
                life.clock.advance(much)
                life.start()
            elif kind == "end":  # the clock comes to where it was furthest when a life was cut off
                life.clock.step_wall(max(0.0, furthest - life.clock.wall()))
            elif kind == "set":
                life.clock.step_wall(max(much, begin - life.clock.wall()))
            else:
                done += life.work()
            if kind in ("turn", "kill"):
                furthest = max(furthest, life.clock.wall())
        sent = life.sent()
        assert len(done) == len(set(done))
        assert len(sent) == len(set(sent))
        if missed == "all":
            assert sorted(done) == sorted(sent)
            assert set(minutes(begin, furthest)) <= set(done)
    finally:
        life.close()


def test_the_next_turn_is_asked_for_when_something_is_due(live):
    """It sleeps until then; without schedules, or once all are over, for minutes."""
    life = live(a=HERE)
    assert life.turn() - life.clock.now() == 60 - life.clock.wall() % 60
    assert live().turn() - life.clock.now() == 300


def test_what_became_of_a_run_here_is_kept(live):
    """State and result of the last runs, also when the daemon was not there when they ended."""
    life = live(a=HERE)
    life.turn()
    for _ in range(KEPT + 5):
        life.clock.advance(MINUTE)
        life.turn()
        (message,) = life.node.receive("jobs", wait=0, limit=1)
        assert message.settled
    life.clock.advance(MINUTE)
    life.turn()
    for message in life.node.receive("jobs", wait=0):
        assert message.headers["dropr-schedule"] == "a"
        assert message.headers["dropr-due"].endswith("Z")
        message.ack({"rows": 7})
    life.start()
    life.turn()
    runs = StateFile(FileDocuments(life.config.data), "a").look().runs
    assert len(runs) == KEPT
    assert {run.state for run in runs} == {"processed"}
    assert json.loads(runs[-1].result) == {"rows": 7}
    assert life.node.inbox.outcomes(life.scheduler._owner, None, 0, 10)[1] == []


def test_a_run_that_was_buried_says_why(live):
    """As its dead letter does."""
    life = live(a=HERE)
    life.turn()
    life.clock.advance(MINUTE)
    life.turn()
    for message in life.node.receive("jobs", wait=0):
        message.bury("no such table")
    life.turn()
    (run,) = StateFile(FileDocuments(life.config.data), "a").look().runs
    assert (run.state, run.reason) == ("failed", "no such table")


def test_a_changed_rule_and_a_long_rest_make_up_for_nothing(live, tmp_path):
    """What would have been due by another rule, or while it was paused, is not missed."""
    life = live(a=HERE)
    life.turn()
    definitions = Definitions(life.config, FileDocuments(life.config.data))
    definitions.pause("a", 0)
    life.clock.advance(3600)
    life.turn()
    assert life.work() == []
    with StateFile(FileDocuments(life.config.data), "a").changing() as state:
        state.cursor = int(life.clock.wall() * 1000)
    definitions.resume("a")
    life.turn()
    assert life.work() == []
    life.close()
    life.config = configure(tmp_path, schedules={"a": HERE | {"every": "30s"}})
    life.node = None
    life.clock.advance(3600)
    life.start()
    life.turn()
    assert life.work() == []
    life.clock.advance(30)
    life.turn()
    assert len(life.work()) == 1


def test_a_clock_that_was_far_ahead_for_a_moment_stops_nothing(live):
    """What happened in that future does not happen again; what comes now happens."""
    life = live(a=HERE | {"missed": "one"})
    life.turn()
    life.clock.step_wall(50 * 365 * 86400.0)
    life.turn()
    assert len(life.work()) == 1
    life.clock.step_wall(-50 * 365 * 86400.0)
    life.turn()
    begin = life.clock.wall()
    for _ in range(3):
        life.clock.advance(MINUTE)
        life.turn()
    assert life.work() == minutes(begin, life.clock.wall())


def test_one_that_cannot_be_sent_does_not_hold_up_the_others(live, caplog):
    """A file that is not there: said, kept with the run, and tried again at the next due time only."""
    life = live(a=HERE | {"text": None, "file": "gone.csv"}, b=HERE)
    life.turn()
    for _ in range(2):
        life.clock.advance(MINUTE)
        life.turn()
        life.turn()
    assert len(life.work()) == 2
    runs = StateFile(FileDocuments(life.config.data), "a").look().runs
    assert [run.state for run in runs] == ["failed", "failed"]
    assert "gone.csv" in runs[0].reason
    assert caplog.text.count("sends nothing") == 2


def test_a_full_queue_makes_it_late_and_loses_nothing(live, monkeypatch):
    """It is tried again; others happen meanwhile."""
    life = live(a=THERE, b=HERE)
    life.turn()
    life.clock.advance(MINUTE)

    def full(*_arguments):
        raise QueueFull("no room")

    with monkeypatch.context() as patch:
        patch.setattr(life.scheduler._firing._sender, "send", full)
        with pytest.raises(QueueFull):
            life.turn()
    assert len(life.work()) == 1
    life.clock.advance(10)
    life.turn()
    assert len(life.sent()) == 1


def test_an_id_of_a_run_says_what_it_is():
    """It has the due time, marks itself, and is another one for another schedule or channel."""
    due = 1_767_225_600_123
    identity = id_of_run("a", "jobs", due)
    assert due_of_run(identity) == due
    assert is_of_run(identity)
    assert is_of_key(identity)
    assert (
        len({identity, id_of_run("b", "jobs", due), id_of_run("a", "job", due), id_of_run("a", "jobs", due + 1)}) == 4
    )
