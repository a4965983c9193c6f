"""A channel's `concurrency` over real workers: processes, threads and tasks, two workers, one of them killed."""

import pytest
from support.nodes import Road, eventually

pytestmark = pytest.mark.e2e

HANDLERS = """
import asyncio, os, time
def mark(word):
    with open(os.environ["DROPR_NOTES"], "a") as file:
        file.write(word + " " + str(os.getpid()) + "\\n")
def work(work):
    if work.body == b"hang" and work.attempt == 1:
        mark("hang")
        time.sleep(3600)
    mark("begin")
    time.sleep(0.005)
    mark("end")
async def task(work):
    mark("begin")
    await asyncio.sleep(0.005)
    mark("end")
"""


@pytest.fixture
def road(tmp_path):
    """Some nodes; whatever they started is gone after the test."""
    made = Road(tmp_path)
    made.env["DROPR_NOTES"] = str(tmp_path / "notes")
    (tmp_path / "notes").touch()
    yield made
    made.close()


def marks(road):
    return [line.split() for line in (road.directory / "notes").read_text().splitlines()]


def build(road, name, concurrency, worker):
    module = road.write_handlers(HANDLERS)
    jobs = {"handler": f"python:{module}:{name}", "concurrency": concurrency, "retry_backoff_min": "10ms"}
    (place,) = road.build("ware", ware={"channels": {"jobs": jobs}, "worker": worker})
    return place


@pytest.mark.parametrize("name", ["work", "task"])
def test_two_workers_together_have_no_more_at_once_than_the_channel_says(road, name):
    """Two workers of two processes with four threads (or twenty tasks) each: never more than three handlers run."""
    place = build(road, name, 3, {"processes": 2, "threads": 4, "tasks": 20})
    with place.opened() as node:
        for number in range(100):
            node.put(b"%d" % number, channel="jobs")
        for _ in range(2):
            place.run("worker", ready=False)
        eventually(lambda: len(marks(road)) == 200, what="all is handled")
    now = most = 0
    for word, _ in marks(road):
        now += 1 if word == "begin" else -1
        most = max(most, now)
    assert 1 <= most <= 3


def test_kill_9_of_a_worker_frees_its_place(road):
    """The one place is held by a handler that hangs; its worker is killed, and another one goes on with all of it."""
    place = build(road, "work", 1, {"threads": 2})
    with place.opened() as node:
        node.put(b"hang", channel="jobs")
        first = place.run("worker", ready=False)
        eventually(lambda: marks(road) == [["hang", str(first.pid)]], what="the handler hangs")
        node.put(b"next", channel="jobs")
        second = place.run("worker")
        assert list(node.receive("jobs", wait=0)) == []
        first.kill()
        eventually(lambda: len(marks(road)) == 5, what="both are handled")
        assert {pid for _, pid in marks(road)[1:]} == {str(second.pid)}
