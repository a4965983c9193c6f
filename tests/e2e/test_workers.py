"""Workers with several processes, threads and tasks: real processes, killed, hung, reloaded and drained."""

import json
import os
import signal
import subprocess
import sys

import pytest
from support.nodes import Road, eventually

from dropr_core.contracts.storage import Selection
from dropr_core.system.exit_codes import Exit
from dropr_core.system.presence import living

pytestmark = pytest.mark.e2e


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    made = Road(tmp_path)
    yield made
    made.close()


def ware(road, code, *, worker=None, name="work", **channel):
    """A node whose channel `jobs` is handled by ``name`` of a module with this code."""
    module = road.write_handlers(code)
    handled = {"handler": f"python:{module}:{name}", "retention": "1h", "retry_backoff_min": "10ms", **channel}
    (place,) = road.build("ware", ware={"channels": {"jobs": handled}, "worker": worker or {}})
    return place


def pids(place):
    """The worker processes that live and have announced themselves."""
    return {report["pid"] for report in living(place.data / "run", "worker")}


def await_pids(place, count, *, without=frozenset()):
    """Wait until so many worker processes live, none of them of ``without``."""

    def there():
        found = pids(place)
        return found if len(found) == count and not found & without else None

    return eventually(there, what=f"{count} other worker processes than {without}")


def verb(place, *words):
    """What a verb of the command line prints for this node."""
    command = [sys.executable, "-m", "dropr_core", *words, "-c", str(place.file)]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=60).stdout


def put(node, count, start=0):
    for number in range(start, start + count):
        node.put(b"%d" % number, channel="jobs")


def done(node):
    return node.inbox.counts().get("jobs", {}).get("done", 0)


# A line for each call; a short write to a file opened for appending is whole, from however many processes.
NOTING = """
import os
def note(work, *words):
    with open(os.environ["DROPR_NOTES"], "a") as file:
        file.write(" ".join([work.body.decode(), str(os.getpid()), *words]) + "\\n")
def work(work):
    note(work)
"""


@pytest.fixture
def notes(road):
    """What the handlers wrote: a list of lists of words."""
    path = road.directory / "notes"
    path.touch()
    road.env["DROPR_NOTES"] = str(path)
    return lambda: [line.split() for line in path.read_text().splitlines()]


def test_several_processes_share_the_work_and_one_that_dies_is_restarted_alone(road, notes):
    """`worker: {processes: 2}` in the foreground keeps two processes; a killed one comes back, the other stays, and
    nothing is lost.
    """
    place = ware(road, NOTING, worker={"processes": 2})
    with place.opened() as node:
        worker = place.run("worker", ready=False)
        first = await_pids(place, 2)
        assert worker.pid not in first
        put(node, 300)
        killed = min(first)
        os.kill(killed, signal.SIGKILL)
        second = await_pids(place, 2, without={killed})
        assert second > first - {killed}
        eventually(lambda: done(node) == 300)
        assert sorted({int(note[0]) for note in notes()}) == list(range(300))
        assert worker.stop() == Exit.OK
    assert pids(place) == set()
    for name in ("worker ", "worker-2 "):
        assert f" {name}" in worker.text


def test_a_reload_starts_each_process_afresh_and_takes_their_new_number(road):
    """SIGHUP to what keeps the processes: each drains and starts anew, and there are as many as the file says then."""
    place = ware(road, "def work(work): return 1\n", worker={"processes": 2})
    with place.opened():
        worker = place.run("worker", ready=False)
        first = await_pids(place, 2)
        eventually(lambda: worker.text.count("handles") == 2)
        place.write(worker={"processes": 1})
        worker.signal(signal.SIGHUP)
        await_pids(place, 1, without=first)
        place.file.write_text("node: [")
        worker.signal(signal.SIGHUP)
        eventually(lambda: "the same processes as before are kept" in worker.text)
        assert worker.stop() == Exit.OK


def test_up_keeps_all_workers(road, notes):
    """The angel of the node has a child for each worker process, by names of their own, and drains them all."""
    place = ware(road, NOTING, worker={"processes": 2})
    place.write(run=["worker"])
    with place.opened() as node:
        angel = place.run("up", ready=False)
        await_pids(place, 2)
        put(node, 50)
        eventually(lambda: done(node) == 50)
        assert angel.stop() == Exit.OK
        assert not node.inbox.scan(Selection(), 0, 100) or node.inbox.counts()["jobs"].get("leased", 0) == 0
    assert "watches worker, worker-2" in angel.text


TIMEOUTS = """
import os, sys, time
def note(work, *words):
    with open(os.environ["DROPR_NOTES"], "a") as file:
        file.write(" ".join([work.body.decode(), str(os.getpid()), *words]) + "\\n")
def work(work):
    note(work, "begin", str(work.attempt))
    if work.body == b"hang" and work.attempt == 1:
        time.sleep(1e6)
    note(work, "end")
"""


def test_a_function_beyond_its_timeout_ends_its_process_and_is_never_run_twice_at_once(road, notes):
    """The log has its stack; the process makes room for a fresh one once the others are done; the attempt counts, and
    the next one begins when the hung one is gone with its process.
    """
    place = ware(road, TIMEOUTS, worker={"threads": 2, "drain": "3s"}, timeout="2s")
    place.write(run=["worker"])
    with place.opened() as node:
        angel = place.run("up", ready=False)
        node.put(b"hang", channel="jobs")
        put(node, 20)
        eventually(lambda: done(node) == 21)
        begun = [note for note in notes() if note[0] == "hang" and note[2] == "begin"]
        assert [note[3] for note in begun] == ["1", "2"]
        assert begun[0][1] != begun[1][1]
        assert [note[0] for note in notes() if note[2] == "end"].count("hang") == 1
        assert sorted(int(note[0]) for note in notes() if note[2] == "end" and note[0] != "hang") == list(range(20))
        assert angel.stop() == Exit.OK
    assert "longer than its timeout of 2 s, and cannot be stopped" in angel.text
    assert "time.sleep(1e6)" in angel.text
    assert "A fresh one starts now" in angel.text
    assert "ends in the middle of a handler" in angel.text


ASYNC = """
import asyncio, os, time
from pathlib import Path
def note(work, *words):
    with open(os.environ["DROPR_NOTES"], "a") as file:
        file.write(" ".join([work.body.decode(), str(os.getpid()), *words]) + "\\n")
async def work(work):
    if work.body == b"block":
        while not Path(os.environ["DROPR_NOTES"] + ".go").exists():
            time.sleep(0.01)
    await asyncio.sleep(0.02)
    note(work)
"""


def test_a_blocking_call_in_an_async_handler_is_named_and_ends_no_process(road, notes):
    """The log says what blocks the event loop; afterwards the same process goes on with all that waited."""
    place = ware(road, ASYNC, worker={"tasks": 50})
    place.write(run=["worker"])
    with place.opened() as node:
        angel = place.run("up", ready=False)
        node.put(b"block", channel="jobs")
        put(node, 5)
        eventually(lambda: "the event loop has not turned for" in angel.text)
        assert "time.sleep(0.01)" in angel.text
        (road.directory / "notes.go").touch()
        eventually(lambda: done(node) == 6)
        assert len({note[1] for note in notes()}) == 1
        assert angel.stop() == Exit.OK


@pytest.mark.parametrize(("code", "places"), [(NOTING, 2), (ASYNC, 20)], ids=["threads", "tasks"])
def test_workers_that_are_killed_in_the_middle_lose_nothing_and_double_nothing(road, notes, code, places):
    """Processes under load are killed again and again: each message is done once, and handled twice only if it was in
    the hands of one that was killed.
    """
    place = ware(road, code, worker={"processes": 2, "threads": 2, "tasks": 20}, attempts=50)
    with place.opened() as node:
        put(node, 1000)
        worker, killed = place.run("worker", ready=False), 0
        for kills in range(1, 3):
            known = {int(note[1]) for note in notes()}
            eventually(lambda known=known: {int(note[1]) for note in notes()} - known or done(node) == 1000)
            for pid in pids(place) if kills % 2 else list(pids(place))[:1]:
                os.kill(pid, signal.SIGKILL)
                killed += 1
        eventually(lambda: done(node) == 1000)
        counts = node.inbox.counts()["jobs"]
        assert [state for state in ("ready", "delayed", "leased", "buried", "blocked") if counts.get(state)] == []
        assert {int(note[0]) for note in notes()} == set(range(1000))
        assert len(notes()) <= 1000 + killed * places
        assert worker.stop() == Exit.OK


def test_status_shows_processes_threads_and_what_takes_longest(road, notes):
    """`dropr status` of a node whose worker is at something: how many, and the message with its age."""
    place = ware(road, ASYNC, worker={"threads": 3, "tasks": 7})
    with place.opened() as node:
        worker = place.run("worker")
        node.put(b"block", channel="jobs")

        def at_work():
            told = json.loads(verb(place, "status", "--json"))["processes"]["workers"]
            return told[0] if told[0]["at_work"] else None

        told = eventually(at_work)
        assert (told["name"], told["threads"], told["tasks"], told["at_work"]) == ("worker", 0, 7, 1)
        assert told["longest"]["channel"] == "jobs"
        assert told["longest"]["seconds"] >= 0
        assert f"  worker: 1 at work, 7 tasks; {told['longest']['id']} on jobs for" in verb(place, "status")
        (road.directory / "notes.go").touch()
        eventually(lambda: done(node) == 1)
        assert worker.stop() == Exit.OK
