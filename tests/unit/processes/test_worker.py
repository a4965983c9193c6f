"""What a handler returns or raises, and what becomes of the message: one worker, its threads, no process of its own."""

import logging
import sys

import pytest
from support.nodes import eventually
from support.one_node import SENDER, Peer, configure

from dropr_core.angel.heartbeat import UNWATCHED_INTERVAL, Heartbeat
from dropr_core.api import store_trouble
from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.contracts.storage import Selection
from dropr_core.errors import ConfigError, WriteFailed
from dropr_core.model.backoff import Backoff
from dropr_core.model.message import State
from dropr_core.processes.mainloop import MainLoop
from dropr_core.processes.worker import Workers

LOG = logging.getLogger("dropr.test.worker")
HANDLERS = """
import sys, threading
from dropr_core.errors import Reject, Retry
go = threading.Event()

def handle(work):
    word = work.body.decode()
    if word == "result": return {"total": 7}
    if word == "nothing": return None
    if word == "retry": raise Retry("later", after=100)
    if word == "reject": raise Reject("not mine")
    if word == "fail": raise ValueError("a bug")
    if word == "exit": sys.exit(3)
    if word == "large": return "x" * 70_000
    if word == "odd": return object()
    if word == "wait": go.wait(60)
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """A worker with one thread for the channel `jobs`; its node and threads."""
    (tmp_path / "dropr_worker_code.py").write_text(HANDLERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "dropr_worker_code", raising=False)
    config = configure(
        tmp_path,
        channels={"jobs": {"handler": "python:dropr_worker_code:handle", "attempts": 2, "retry_backoff_min": "100s"}},
        worker={"concurrency": 1, "drain": "50ms"},
    )
    with Runtime.open(config) as runtime, MainLoop(Heartbeat(None, None, UNWATCHED_INTERVAL)) as loop:
        threads = Workers(runtime, loop, LOG)
        yield Node(runtime), threads
        if not threads._stopping.is_set():
            threads.stop(10)
        threads.close()
        threads.close()


def outcome(worker, *words):
    """What becomes of messages that say these words: (state, reason, result) of the receipts, and states left."""
    node, threads = worker
    Peer(node).push(*(word.encode() for word in words), receipt=True)
    threads.start()
    eventually(lambda: threads.handled >= len(words))
    rows = [(row.state, row.reason, row.result) for row in node.inbox.outcomes(SENDER, None, 0, 100)[1]]
    return rows, [info.state for info in node.inbox.scan(Selection(), 0, 100)]


def test_what_a_handler_returns_goes_home_with_the_receipt(worker):
    """Nothing is nothing, and no empty text."""
    rows, left = outcome(worker, "result", "nothing")
    assert rows == [(State.PROCESSED, "", b'{"total":7}'), (State.PROCESSED, "", None)]
    assert left == []


def test_a_retry_comes_back_after_the_time_that_it_says(worker):
    """It counts as an attempt, and is no failure that the sender hears of."""
    rows, left = outcome(worker, "retry")
    assert (rows, left) == ([], [State.DELAYED])
    assert 90 < worker[0].inbox.next_due(["jobs"]) - worker[0].runtime.clock.now() <= 100


def test_a_rejected_message_is_buried_at_once(worker):
    """Trying again would not help; the sender reads the reason."""
    assert outcome(worker, "reject") == ([(State.FAILED, "not mine", None)], [State.BURIED])


@pytest.mark.parametrize("word", ["fail", "exit"])
def test_a_failure_backs_off_and_ends_no_thread(worker, word):
    """A bug, a handler that calls exit(): the next message is handled."""
    rows, left = outcome(worker, word, "result")
    assert [state for state, _, _ in rows] == [State.PROCESSED]
    assert left == [State.DELAYED]
    assert worker[1].broken is None


@pytest.mark.parametrize("word", ["large", "odd"])
def test_a_result_that_cannot_be_sent_ends_in_the_receipt(worker, word):
    """The work is done: handling it again would do it twice, and give the same result."""
    rows, left = outcome(worker, word)
    assert [(state, result) for state, _, result in rows] == [(State.PROCESSED, None)]
    assert rows[0][1].startswith("processed, but its result cannot be sent: ")
    assert left == []


def test_what_cannot_be_settled_is_tried_again_and_not_handled_again(worker, monkeypatch, caplog):
    """The store fails for a while: the work is done, and only writing that down is repeated. The log has a line when
    the store begins to fail, one for the message, and one when the store works again; none for a try.
    """
    node, threads = worker
    monkeypatch.setattr(store_trouble, "RESTS", Backoff(0.01, 0.02))
    real, failures = node.inbox.settle, []

    def settle(changes):
        if len(failures) < 5:
            failures.append(changes)
            raise WriteFailed(f"disk on fire, {len(failures)} flames")
        return real(changes)

    monkeypatch.setattr(node.inbox, "settle", settle)
    caplog.set_level(logging.INFO, LOG.name)
    rows, left = outcome(worker, "result")
    assert [state for state, _, _ in rows] == [State.PROCESSED]
    assert left == []
    assert (len(failures), threads.handled) == (5, 1)
    lines = [(record.levelname, record.message) for record in caplog.records if record.name == LOG.name]
    assert [level for level, _ in lines] == ["ERROR", "WARNING", "INFO"]
    assert [word in text for (_, text), word in zip(lines, ["1 flames", "is handled", "works again"], strict=True)]


def test_what_does_not_end_in_time_goes_back_uncounted(worker, caplog):
    """Stopping waits for as long as the configuration says, and no longer."""
    import dropr_worker_code

    node, threads = worker
    Peer(node).push(b"wait")
    threads.start()
    eventually(lambda: [info.state for info in node.inbox.scan(Selection(), 0, 10)] == [State.LEASED])
    threads.stop(0.05)
    assert "did not end within" in caplog.text
    threads.close()
    (info,) = node.inbox.scan(Selection(), 0, 10)
    assert (info.state, info.attempts) == (State.READY, 0)
    dropr_worker_code.go.set()


def test_a_program_is_ended_before_its_message_goes_back(tmp_path):
    """A worker that has to go ends the programs that its handlers run, and only then others may have their messages;
    the attempt does not count.
    """
    channels = {"jobs": {"handler": "command:sleep 1000", "attempts": 2}}
    config = configure(tmp_path, channels=channels, worker={"drain": "50ms"})
    with Runtime.open(config) as runtime, MainLoop(Heartbeat(None, None, UNWATCHED_INTERVAL)) as loop:
        node, workers = Node(runtime), Workers(runtime, loop, LOG)
        Peer(node).push(b"x")
        workers.start()
        running = workers._handlers["jobs"]._running
        (program,) = eventually(lambda: list(running))
        ended, retire = [], node.inbox.retire

        def retired(consumer):
            ended.append(program.poll() is not None)
            retire(consumer)

        node.inbox.retire = retired
        assert workers.stop(0.05)
        workers.close()
        assert ended == [True]
        assert [(info.state, info.attempts) for info in node.inbox.scan(Selection())] == [(State.READY, 0)]


def test_a_worker_without_handlers_says_so(tmp_path):
    """It would wait for ever for nothing."""
    with (
        Runtime.open(configure(tmp_path, channels={"jobs": {}})) as runtime,
        MainLoop(Heartbeat(None, None, UNWATCHED_INTERVAL)) as loop,
        pytest.raises(ConfigError, match="no channel has a handler"),
    ):
        Workers(runtime, loop, LOG)
