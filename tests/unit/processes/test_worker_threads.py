"""The threads of a worker: what the store does to one message ends neither them nor the others."""

import logging
import threading

import pytest
from support.nodes import eventually

from dropr_core.angel.heartbeat import UNWATCHED_INTERVAL, Heartbeat
from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import Ack, Selection
from dropr_core.errors import WriteFailed
from dropr_core.model.message import State
from dropr_core.processes.mainloop import MainLoop
from dropr_core.processes.worker import WorkerThreads

LOG = logging.getLogger("dropr.test.worker")


@pytest.fixture
def node(tmp_path):
    mapping = {
        "node": "ware", "data": str(tmp_path / "data"), "storage": "memory", "limits": {"min_free": 0},
        "channels": {"jobs": {"handler": "python:builtins:repr", "attempts": 3}},
    }  # fmt: skip
    with Node(Runtime.open(from_mapping(mapping, tmp_path))) as opened:
        yield opened


@pytest.fixture
def workers(node):
    loop = MainLoop(Heartbeat(None, None, UNWATCHED_INTERVAL))
    made = WorkerThreads(node.runtime, loop, LOG)
    yield made
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
