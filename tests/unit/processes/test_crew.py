"""How many threads of a worker are at work: one while handlers are short; all when one takes time, or has nothing."""

import logging
import threading
from types import SimpleNamespace

import pytest
from support.nodes import eventually

from dropr_core.angel.heartbeat import UNWATCHED_INTERVAL, Heartbeat
from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.processes import crew as crew_module
from dropr_core.processes import handler_threads
from dropr_core.processes.crew import AWAKE, LOOK, SHORT, Crew
from dropr_core.processes.mainloop import MainLoop
from dropr_core.processes.worker import Workers

COUNT = 4


class Scene:
    """A crew whose threads come and go as a test says: one that is asked to go on handles one more short message."""

    def __init__(self):
        self.now, self.held, self.waiting, self.running = 1000.0, True, False, []
        self.stopped = threading.Event()
        at_work = SimpleNamespace(now=lambda: list(self.running))
        self.crew = Crew(COUNT, at_work, lambda: self.held, lambda: self.waiting, self.stopped, lambda: self.now)
        self.threads = []

    def at(self, seconds):
        """Something is being handled for so long."""
        self.running.append(SimpleNamespace(started=self.now - seconds))

    def rest(self, count=COUNT):
        """So many threads have handled a short message."""
        for _ in range(count):
            thread = threading.Thread(target=self.crew.handled, args=(SHORT / 2,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def end(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in self.threads)


@pytest.fixture
def scene():
    made = Scene()
    yield made
    made.end()
    assert made.crew.working == COUNT


def test_all_but_one_rest_while_handlers_are_short(scene):
    """They would only take the interpreter from each other."""
    scene.rest()
    eventually(lambda: scene.crew.working == 1)
    assert not scene.crew.crowded


def test_nobody_rests_without_messages_at_hand(scene):
    """Where nothing is held each of them is free to wait for it."""
    scene.held = False
    scene.rest()
    eventually(lambda: not any(thread.is_alive() for thread in scene.threads))
    assert scene.crew.working == COUNT


def test_all_come_back_when_the_one_is_at_a_long_message(scene):
    """What it does not come to is handled by the others, and for a while none of them rests."""
    scene.rest()
    eventually(lambda: scene.crew.working == 1)
    scene.now += 10
    scene.at(LOOK * 2)
    eventually(lambda: scene.crew.working == COUNT)
    scene.running.clear()
    scene.rest()
    eventually(lambda: not any(thread.is_alive() for thread in scene.threads))
    scene.now += AWAKE
    scene.rest()
    eventually(lambda: scene.crew.working == 1)


def test_nobody_rests_beside_one_that_is_at_a_long_message(scene):
    """Else nobody would be at work for a moment."""
    scene.at(LOOK * 2)
    scene.rest()
    eventually(lambda: not any(thread.is_alive() for thread in scene.threads))
    assert scene.crew.working == COUNT


def test_all_come_back_when_many_messages_take_time(scene):
    """No single one is long, but together they take more than a quarter of the time."""
    scene.rest()
    eventually(lambda: scene.crew.working == 1)

    def busy():
        scene.now += LOOK
        scene.crew.handled(LOOK / 2)
        return scene.crew.working == COUNT

    eventually(busy)


def test_who_rests_goes_to_wait_when_there_is_nothing_to_do(scene):
    """So an idle worker looks at nothing."""
    scene.rest()
    eventually(lambda: scene.crew.working == 1)
    scene.held, scene.waiting = False, True
    eventually(lambda: scene.crew.working == COUNT)


@pytest.fixture
def jobs(tmp_path):
    """A node with four threads for one channel."""
    mapping = {
        "node": "ware", "data": str(tmp_path / "data"), "storage": "fs", "limits": {"min_free": 0},
        "worker": {"threads": COUNT}, "channels": {"jobs": {"handler": "python:builtins:repr"}},
    }  # fmt: skip
    with Node(Runtime.open(from_mapping(mapping, tmp_path))) as opened:
        yield opened


def test_messages_behind_one_that_hangs_are_handled_by_those_that_rested(jobs, monkeypatch):
    """Whoever works alone hangs until the last message has been handled, and so does the next that works alone."""
    last, hung = threading.Event(), []
    loop = MainLoop(Heartbeat(None, None, UNWATCHED_INTERVAL))
    workers = Workers(jobs.runtime, loop, logging.getLogger("dropr.test.worker"))

    def handle(work):
        if work.body == b"last":
            last.set()
        elif workers._threads._crew.working == 1 + len(hung) < COUNT:
            hung.append(threading.current_thread().name)
            assert last.wait(60)

    monkeypatch.setattr(workers._handlers["jobs"], "_function", handle)
    for module in (crew_module, handler_threads):
        monkeypatch.setattr(module, "SHORT", 10.0)  # on a busy machine, too
    for body in [b"short"] * 3000 + [b"last"]:
        jobs.put(body, channel="jobs")
    try:
        workers.start()
        eventually(lambda: workers.handled == 3001)
    finally:
        last.set()
        workers.stop(20)
        workers.close()
        loop.close()
    assert hung
    assert len(set(hung)) == len(hung)
    assert last.is_set()
