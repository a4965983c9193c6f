"""Async handlers in a worker: many at once on one loop, bounded, cancelled when their time is over."""

import asyncio
import logging
import os
import sys

import pytest
from support.nodes import eventually
from support.one_node import SENDER, Peer, configure

from dropr_core.angel.heartbeat import UNWATCHED_INTERVAL, Heartbeat
from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.contracts.storage import Selection
from dropr_core.model.message import State
from dropr_core.processes import handler_tasks
from dropr_core.processes.mainloop import MainLoop
from dropr_core.processes.worker import Workers

LOG = logging.getLogger("dropr.test.worker")
PLACES = 50
HANDLERS = """
import asyncio, threading
from dropr_core.errors import Reject, Retry
go = threading.Event()
at_once, most, threads = 0, 0, set()

async def handle(work):
    global at_once, most
    threads.add(threading.current_thread().name)
    at_once += 1
    most = max(most, at_once)
    try:
        return await answer(work.body.decode())
    finally:
        at_once -= 1

async def answer(word):
    if word == "result": return {"total": 7}
    if word == "nap": return await asyncio.sleep(0.05, "slept")
    if word == "retry": raise Retry("later", after=100)
    if word == "reject": raise Reject("not mine")
    if word == "fail": raise ValueError("a bug")
    if word == "exit": raise SystemExit(3)
    if word == "wait": await asyncio.sleep(1e6)
    if word == "timeout": raise TimeoutError("of a socket")
    if word == "cancelled": raise asyncio.CancelledError
    if word == "itself":
        asyncio.current_task().cancel()
        await asyncio.sleep(1)
    if word == "block": go.wait(60)
    if word == "stubborn":
        try:
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            return "done all the same"

def sync(work):
    return "by a thread"
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes a worker whose channel `jobs` has the async handler; its node and `Workers`."""
    (tmp_path / "dropr_task_code.py").write_text(HANDLERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "dropr_task_code", raising=False)
    made = []

    def make(**channel):
        rules = {"attempts": 2, "retry_backoff_min": "100s", **channel}
        channels = {
            "jobs": {"handler": "python:dropr_task_code:handle", **rules},
            "others": {"handler": "python:dropr_task_code:sync", **rules},
        }
        config = configure(tmp_path, channels=channels, worker={"tasks": PLACES, "drain": "50ms"})
        runtime = Runtime.open(config)
        loop = MainLoop(Heartbeat(None, None, UNWATCHED_INTERVAL))
        made.append((Workers(runtime, loop, LOG), loop, runtime))
        return Node(runtime), made[-1][0]

    yield make
    if (code := sys.modules.get("dropr_task_code")) is not None:
        code.go.set()
    for workers, loop, runtime in made:
        if not workers._stopping.is_set():
            workers.stop(10)
        workers.close()
        workers.close()
        loop.close()
        runtime.close()


def outcome(worker, *words, channel="jobs"):
    """What becomes of messages that say these words: (state, reason, result) of the receipts, and states left."""
    node, workers = worker
    Peer(node, channel).push(*(word.encode() for word in words), receipt=True)
    workers.start()
    eventually(lambda: workers.handled >= len(words))
    rows = [(row.state, row.reason, row.result) for row in node.inbox.outcomes(SENDER, None, 0, 100)[1]]
    return rows, [info.state for info in node.inbox.scan(Selection(), 0, 100)]


def states(node):
    return [info.state for info in node.inbox.scan(Selection(), 0, 1000)]


def test_many_async_handlers_are_at_work_at_once_and_never_more_than_their_places(make):
    """One loop has as many as `worker.tasks` says; results go home as those of functions do."""
    import dropr_task_code as code

    rows, left = outcome(make(), *["nap"] * (3 * PLACES))
    assert [row for row in rows if row != (State.PROCESSED, "", b"slept")] == []
    assert left == []
    assert 1 < code.most <= PLACES
    assert code.threads == {"dropr-worker-loop"}


def test_functions_beside_async_ones_have_threads_of_their_own(make):
    """A worker with both kinds serves both, and a full loop holds up no thread."""
    node, workers = make()
    Peer(node).push(*[b"wait"] * (PLACES + 5))
    rows, _ = outcome((node, workers), "x", channel="others")
    assert rows == [(State.PROCESSED, "", b"by a thread")]
    report = workers.report()
    assert (report["threads"], report["tasks"]) == (1, PLACES)


@pytest.mark.parametrize(
    ("word", "row", "left"),
    [
        ("result", (State.PROCESSED, "", b'{"total":7}'), []),
        ("retry", None, [State.DELAYED]),
        ("reject", (State.FAILED, "not mine", None), [State.BURIED]),
        ("fail", None, [State.DELAYED]),
        ("exit", None, [State.DELAYED]),
        ("timeout", None, [State.DELAYED]),
        ("cancelled", None, [State.DELAYED]),
        ("itself", None, [State.DELAYED]),
    ],
)
def test_what_an_async_handler_answers_means_what_it_means_for_functions(make, word, row, left):
    """Done, later, never, failed; also one that raises what would end a loop, and one that cancels itself."""
    node, workers = worker = make()
    assert outcome(worker, word) == ([row] if row else [], left)
    assert workers.broken is None
    assert [info.attempts for info in node.inbox.scan(Selection(), 0, 10)] == [1] * len(left)


def test_a_handler_is_cancelled_when_its_time_is_over(make, caplog):
    """That is a failed attempt, and reason and log say where it was."""
    node, worker = make(timeout="50ms")
    assert outcome((node, worker), "wait") == ([], [State.DELAYED])
    (job,) = node.inbox.scan(Selection())
    assert job.attempts == 1
    assert job.reason.startswith("TimeoutError: it took longer than its timeout of 0.05 s (dropr_task_code.py:")
    assert "attempt 1 of 2, next try in" in caplog.text


def test_work_that_is_done_in_spite_of_its_cancellation_is_done(make):
    """A handler that returns when it is cancelled has a result, and does not run again."""
    rows, left = outcome(make(timeout="50ms"), "stubborn")
    assert (rows, left) == ([(State.PROCESSED, "", b"done all the same")], [])


def test_what_does_not_end_in_time_is_cancelled_and_goes_back_uncounted(make):
    """Stopping waits for as long as the configuration says; then nothing of a cancelled handler runs on."""
    import dropr_task_code as code

    node, workers = make()
    Peer(node).push(*[b"wait"] * 3)
    workers.start()
    eventually(lambda: code.at_once == 3)
    assert workers.stop(0.05)
    assert code.at_once == 0
    assert [(info.state, info.attempts) for info in node.inbox.scan(Selection())] == [(State.READY, 0)] * 3


def test_a_handler_that_blocks_the_loop_is_named_with_its_stack(make, monkeypatch, caplog):
    """The log says which handler holds up how many, and the line of its code; the heart of the process goes on."""
    monkeypatch.setattr(handler_tasks, "BLOCKED", 0.0)
    node, workers = make()
    Peer(node).push(b"block")
    workers.start()
    tasks = workers._tasks
    eventually(lambda: asyncio.current_task(tasks._loop))
    tasks._next_word = 0.0
    assert tasks.look(1000.0) is None
    assert tasks.look(1007.0).get_name().startswith("jobs, message ")
    (record,) = [record for record in caplog.records if "has not turned for" in record.getMessage()]
    assert (
        "the event loop has not turned for 7 s, and 1 messages wait for it: the handler of jobs" in record.getMessage()
    )
    assert "go.wait(60)" in record.stack
    reader, writer = os.pipe()
    workers._loop._heart = Heartbeat(writer, None, 0.001)
    workers._loop.sleep(workers.watch())
    assert os.read(reader, 1) == b"."
    os.close(reader)
    os.close(writer)
    sys.modules["dropr_task_code"].go.set()
    eventually(lambda: workers.handled == 1)
    eventually(lambda: tasks._asked is None)


def test_what_waits_for_a_blocked_loop_when_the_worker_ends_is_not_begun(make):
    """Messages that were taken for a loop that one handler blocks are known, and no attempt of them counts."""
    node, workers = make()
    peer = Peer(node)
    peer.push(b"block")
    workers.start()
    import dropr_task_code as code

    eventually(lambda: code.at_once == 1)
    peer.push(*[b"result"] * 4)
    eventually(lambda: len(workers._tasks.not_begun()) == 4)
    assert not workers.stop(0.05)
    code.go.set()
    workers.close()
    left = [(info.state, info.attempts) for info in node.inbox.scan(Selection())]
    assert left == [(State.READY, 0)] * len(left)
    assert len(left) >= 4


def test_the_report_says_how_many_are_at_work_and_since_when_the_longest(make):
    """What `dropr status` shows of this process: while it is at work, and afterwards."""
    import dropr_task_code as code

    node, workers = make()
    Peer(node).push(b"block", b"result")
    workers.start()
    eventually(lambda: code.at_once)
    assert workers.report()["at_work"] == 0  # most work is over before anybody could look
    workers.watch()
    longest = workers.report()["longest"]
    assert longest["channel"] == "jobs"
    code.go.set()
    eventually(lambda: workers.handled == 2)
    workers._next_look = 0.0
    assert workers.watch() is not None
    workers._next_look = None if not workers._at_work.watched else workers._next_look
    assert (workers.watch(), workers.report()["at_work"]) == (None, 0)
