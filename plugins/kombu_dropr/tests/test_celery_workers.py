"""Real workers of Celery, as processes: what an application that is not changed gets from dropr."""

import os
import signal
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import celery_tasks
import pytest
from celery import chain, chord, group, states
from celery.exceptions import ChordError
from celery_rig import Worker, effects
from support.nodes import PATIENCE, eventually

from dropr_core.contracts.storage import Selection
from dropr_core.model.message import State

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
TASKS = {"attempts": 3, "retry_backoff_min": "20ms", "retry_backoff_max": "50ms"}


@contextmanager
def application(place, marks, **more):
    """The application in this process, as in a web server."""
    app = celery_tasks.make(f"dropr://{place.file}", marks, **more)
    try:
        yield app
    finally:
        app.backend.close()
        app.pool.force_close_all()
        app.close()


@contextmanager
def workers(*started):
    """They are killed at the end of a block, whatever happens."""
    with ExitStack() as stack:
        for one in started:
            stack.callback(one.kill)
        yield started[0] if len(started) == 1 else started


def get(result):
    """Its result."""
    return result.get(timeout=2 * PATIENCE)


def heard(app, worker, task):
    """The last event of a task that is sent when somebody listens."""
    seen = []

    def begin(*_args, **_kwargs):
        app.control.enable_events(reply=True, timeout=30, destination=[worker])
        seen.append(task.delay(1, 1).id)

    def note(event):
        if event["uuid"] == seen[0]:
            seen.append(event["type"])
            receiver.should_stop = event["type"] == "task-succeeded"

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": note})
        receiver.on_consume_ready = begin
        receiver.capture(timeout=PATIENCE)
    return seen[-1]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_an_application_works_as_with_any_broker(road, tmp_path, pool):
    """Tasks, chains, groups, chords, retries, failures, results; inspect, control and events on one node."""
    (place,) = road.build("shop", shop={"listen": []})
    with application(place, tmp_path) as app, workers(Worker(place.file, tmp_path, pool=pool, concurrency=2)) as worker:
        task = app.tasks
        assert get(task["add"].delay(2, 3)) == 5
        assert get(chain(task["add"].s(1, 1), task["add"].s(2), task["add"].s(3)).delay()) == 7
        assert get(group(task["work"].s(number) for number in range(5)).delay()) == [0, 2, 4, 6, 8]
        assert get(chord((task["add"].s(number, 0) for number in range(10)), task["total"].s()).delay()) == 45
        nested = chain(task["add"].s(1, 1), group(task["add"].s(2), task["add"].s(3)))
        assert get(chord([nested], task["same"].s()).delay()) == [[4, 5]]
        # Celery gives the body the error of its part, and the error of the chord once all parts are done.
        with pytest.raises((KeyError, ChordError), match="7"):
            get(chord([task["add"].s(1, 1), task["fail"].s(7)], task["total"].s()).delay())
        assert get(task["stubborn"].delay()) == 2
        failed = task["fail"].delay(13)
        with pytest.raises(KeyError, match="13"):
            get(failed)
        assert "in fail" in failed.traceback
        assert get(app.AsyncResult(get(task["outer"].delay(1)))) == 2
        ignored = task["add"].apply_async((1, 1), ignore_result=True)
        assert effects(tmp_path) == {f"work {number}": 1 for number in range(5)}
        assert app.control.ping(timeout=30, destination=[worker.name]) == [{worker.name: {"ok": "pong"}}]
        assert heard(app, worker.name, task["add"]) == "task-succeeded"
        assert ignored.state == states.PENDING
        assert worker.stop() == 0
        with place.opened() as node:
            assert [one for one in node.inbox.all(Selection()) if one.state is not State.EXPIRED] == []


def test_a_task_that_kills_its_worker_ends_as_a_dead_letter(road, tmp_path):
    """With `task_reject_on_worker_lost` Redis and RabbitMQ hand it out for ever; here after the channel's attempts it
    is buried, and the tasks behind it are done. So are unknown tasks.
    """
    (place,) = road.build("shop", shop={"listen": [], "channels": {"celery": TASKS}})
    with application(place, tmp_path) as app, workers(Worker(place.file, tmp_path)) as worker:
        app.tasks["poison"].delay()
        app.send_task("never.heard.of")
        assert get(app.tasks["add"].delay(1, 1)) == 2

        def letters():
            with place.opened() as node:
                return sorted(one.reason for one in node.inbox.all(Selection(states=frozenset({State.BURIED}))))

        eventually(lambda: len(letters()) == 2, 2 * PATIENCE)
        reasons = letters()
        assert reasons[0].count("given back by Celery's worker") == 3
        assert "rejected by Celery's worker" in reasons[1]
        assert effects(tmp_path) == {"poison": 3}
        assert worker.stop() == 0


def test_a_killed_worker_gives_its_tasks_back_at_once(road, tmp_path):
    """kill -9 of everything in the middle of a task: no visibility time-out, the next worker has it as soon as it asks;
    a kill of the child alone is repaired by the worker itself.
    """
    (place,) = road.build("shop", shop={"listen": [], "channels": {"celery": {**TASKS, "attempts": 10}}})
    with application(place, tmp_path) as app, workers(Worker(place.file, tmp_path)) as worker:
        results = [app.tasks["linger"].delay(number) for number in range(3)]
        begun = eventually(lambda: effects(tmp_path))
        os.kill(int(next(iter(begun)).split()[-1]), signal.SIGKILL)
        eventually(lambda: len(effects(tmp_path)) > 1, 2 * PATIENCE)
        worker.kill()
        (tmp_path / "gate").touch()
        worker.start()
        assert [get(result) for result in results] == [0, 1, 2]
        done = {word: count for word, count in effects(tmp_path).items() if word.startswith("done")}
        assert done == {"done 0": 1, "done 1": 1, "done 2": 1}


def test_a_task_of_the_day_after_tomorrow_stays_with_its_worker(road, tmp_path):
    """It is leased for as long as it takes: nobody else gets it, no attempt is counted when the worker is stopped, and
    the next worker has it again.
    """
    (place,) = road.build("shop", shop={"listen": []})
    eta = datetime.now(UTC) + timedelta(days=3)
    with application(place, tmp_path) as app, workers(Worker(place.file, tmp_path)) as worker:
        task = app.tasks["add"].apply_async((1, 1), eta=eta)

        def scheduled():
            answer = app.control.inspect(destination=[worker.name], timeout=10).scheduled() or {}
            return [one["request"]["id"] for one in answer.get(worker.name, [])] == [task.id]

        eventually(scheduled)
        assert worker.stop() == 0
        with place.opened() as node:
            (one,) = node.inbox.all(Selection())
            assert (one.state, one.attempts) == (State.READY, 0)
        worker.start()
        eventually(scheduled)


def test_the_line_is_down_and_delay_returns(road, tmp_path):
    """Nobody reaches the warehouse: every call is stored at this machine. When the line is there again, each task is
    done once although the worker there is killed in the middle, and each result comes home.
    """
    channels = {"celery": {"to": "warehouse"}}
    shop, warehouse = road.build("shop", "warehouse", shop={"channels": channels},
                                 warehouse={"channels": {"celery": TASKS}})  # fmt: skip
    for place in (shop, warehouse):
        place.run("daemon")
    shop.run("server")
    with application(shop, tmp_path) as app:
        task = app.tasks
        results = [task["work"].delay(number) for number in range(20)]
        with shop.opened() as node:
            assert len([one for one in node.outbox.all(Selection()) if one.state is State.QUEUED]) == 20
        assert {result.state for result in results} == {states.PENDING}
        with workers(Worker(warehouse.file, tmp_path)) as worker:
            warehouse.run("server")
            assert [get(result) for result in results] == [2 * number for number in range(20)]
            assert effects(tmp_path) == {f"work {number}": 1 for number in range(20)}
            lingering = task["linger"].delay(1)
            eventually(lambda: any(word.startswith("begun") for word in effects(tmp_path)), 2 * PATIENCE)
            worker.kill()
            (tmp_path / "gate").touch()
            worker.start()
            assert get(lingering) == 1
            assert get(task["stubborn"].delay()) == 2
            assert get(chain(task["add"].s(1, 1), task["add"].s(2)).delay()) == 4
            assert (
                get(chord([task["add"].s(1, 1), task["add"].s(2, 2), task["add"].s(3, 3)], task["total"].s()).delay())
                == 12
            )
            assert get(task["add"].delay("x" * 100_000, "y")) == "x" * 100_000 + "y"
            failed = task["fail"].delay(5)
            with pytest.raises(KeyError, match="5"):
                get(failed)
            assert "in fail" in failed.traceback
