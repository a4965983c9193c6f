"""The threads of a worker: what the store does to one message ends neither them nor the others."""

import logging
import threading
import time
from itertools import pairwise

import pytest
from support.nodes import eventually

from dropr_core.angel.heartbeat import UNWATCHED_INTERVAL, Heartbeat
from dropr_core.api import store_trouble
from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import Ack, Selection
from dropr_core.errors import StoreBusy, WriteFailed
from dropr_core.model.backoff import Backoff
from dropr_core.model.message import State
from dropr_core.processes.mainloop import MainLoop
from dropr_core.processes.worker import Workers

LOG = logging.getLogger("dropr.test.worker")


@pytest.fixture
def node(tmp_path):
    mapping = {
        "node": "ware", "data": str(tmp_path / "data"), "storage": "memory", "limits": {"min_free": 0},
        "worker": {"concurrency": 3}, "channels": {"jobs": {"handler": "python:builtins:repr", "attempts": 3}},
    }  # fmt: skip
    with Node(Runtime.open(from_mapping(mapping, tmp_path))) as opened:
        yield opened


@pytest.fixture
def workers(node):
    loop = MainLoop(Heartbeat(None, None, UNWATCHED_INTERVAL))
    made = Workers(node.runtime, loop, LOG)
    yield made
    if not made._stopping.is_set():
        made.stop(20)
    made.close()
    made.close()
    loop.close()


def refuse_first(node, monkeypatch, error):
    """The store raises ``error`` for acknowledgements of the first message that is acknowledged; how often it did."""
    settle, refused, first = type(node.inbox).settle, [], []

    def settled(inbox, changes):
        acks = [change.claim.id for change in changes if isinstance(change, Ack)]
        first.extend(acks[:1] if not first else ())
        if first and first[0] in acks:
            refused.append(threading.current_thread().name)
            raise error
        return settle(inbox, changes)

    monkeypatch.setattr(type(node.inbox), "settle", settled)
    return refused


def test_a_settlement_that_no_storage_takes_ends_that_message_only(node, workers, monkeypatch, caplog):
    """A storage that fails on one settlement in an unexpected way: that message is buried with the reason, the next
    one is handled, and the thread lives.
    """
    refuse_first(node, monkeypatch, ValueError("cannot bind parameter 3"))
    node.put(b"one", channel="jobs")
    node.put(b"two", channel="jobs")
    workers.start()
    eventually(lambda: workers.handled == 2)
    assert workers.broken is None
    (job,) = node.inbox.scan(Selection())
    assert job.state is State.BURIED
    assert "its settlement cannot be stored: ValueError: cannot bind parameter 3" in job.reason
    assert "is buried: its settlement cannot be stored" in caplog.text


def test_done_work_that_cannot_be_acknowledged_until_the_end_is_an_attempt(node, workers, monkeypatch):
    """A worker that is stopped while the store refuses an acknowledgement gives the message back as tried once."""
    refused = refuse_first(node, monkeypatch, WriteFailed("the disk is in trouble"))
    node.put(b"one", channel="jobs")
    workers.start()
    eventually(lambda: refused)
    workers.stop(20)
    (job,) = node.inbox.scan(Selection())
    assert (job.state, job.attempts) == (State.DELAYED, 1)
    assert job.reason == "done, but could not be acknowledged: the disk is in trouble"


def test_a_store_that_gives_nothing_out_is_asked_by_one_thread_and_said_once(node, workers, monkeypatch, caplog):
    """Three threads rest together and one tries for all; the log has a line when the store begins to fail and one when
    it works again, then the work flows.
    """
    rest = 0.05
    monkeypatch.setattr(store_trouble, "RESTS", Backoff(rest, rest))
    claim, tried = type(node.inbox).claim, []

    def claimed(inbox, *args):
        if len(tried) < 9:
            tried.append(time.monotonic())
            raise StoreBusy("somebody copies the store")
        return claim(inbox, *args)

    monkeypatch.setattr(type(node.inbox), "claim", claimed)
    caplog.set_level(logging.INFO, LOG.name)
    node.put(b"one", channel="jobs")
    workers.start()
    eventually(lambda: workers.handled == 1)
    # None of the three knew anything at its first try.
    assert sum(later - earlier < rest for earlier, later in pairwise(tried)) <= 2
    lines = [record.message for record in caplog.records if record.name == LOG.name]
    assert len(lines) == 2
    assert "somebody copies the store" in lines[0]
    assert lines[1] == "the store works again"


def test_a_worker_ends_and_closes_its_handlers_on_a_store_that_fails(node, workers, monkeypatch):
    """Leases that cannot be given back do not keep the rest from being closed: they end with the process."""
    closed = []

    def refuse(_inbox, _consumer):
        raise WriteFailed("no room")

    monkeypatch.setattr(workers._handlers["jobs"], "close", lambda: closed.append(1), raising=False)
    workers.start()
    with monkeypatch.context() as patch:
        patch.setattr(type(node.inbox), "retire", refuse)
        workers.stop(20)
        workers.close()
    assert closed == [1]
