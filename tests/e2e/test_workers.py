"""Workers with several processes, threads and tasks: real processes, killed, hung, reloaded and drained."""

import os
import signal

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
