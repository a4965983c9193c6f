"""A server that crashes between the handing out of a message and its settlement: the attempt counts all the same.

Its last commits are lost with it: nothing is flushed here but by hand.
"""

import contextlib
import signal

import pytest

pytest.importorskip("psycopg")

from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import Selection
from dropr_core.errors import DroprError, StoreError


@pytest.fixture
def node(own_postgres, tmp_path):
    own_postgres.configure(wal_writer_delay="10s")
    own_postgres.reload()
    storage = {"use": "postgres", "url": own_postgres.url(), "wait": "0.2s", "flush": "10s"}
    channels = {"jobs": {"attempts": 2, "retry_backoff_min": "1ms", "retry_backoff_max": "1ms"}}
    mapping = {"node": "ware", "data": str(tmp_path / "data"), "storage": storage, "channels": channels,
               "limits": {"min_free": 0}}  # fmt: skip
    with Node(Runtime.open(from_mapping(mapping, tmp_path))) as opened:
        yield opened


def crash(server):
    server.stop(signal.SIGQUIT)


def attempts(node, count):
    return sorted(message.attempt for message in node.receive("jobs", wait=60, limit=count))


def comes_no_more(node):
    return not list(node.receive("jobs", wait=1))


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("prefetch", [None, 1])
def test_a_failure_that_could_not_be_written_down_counts(node, own_postgres, prefetch, flushed):
    """The body fails while the server is away: the next try is the second, and the one after that would be one too
    many. Whether the server still knows the lease or has lost it makes no difference.
    """
    node.put(b"x", channel="jobs")
    for attempt in (1, 2):
        loop = node.receive("jobs", wait=60, prefetch=prefetch)
        message = next(loop)
        assert message.attempt == attempt
        if flushed:
            node.inbox.flush()
        crash(own_postgres)
        with pytest.raises(StoreError), message:
            raise ValueError("it failed")
        with contextlib.suppress(DroprError):
            loop.close()
        own_postgres.start()
    assert comes_no_more(node)
    (job,) = node.inbox.scan(Selection())
    assert (job.state.name, job.attempts) == ("BURIED", 2)


def test_a_batch_that_could_not_be_acknowledged_counts(node, own_postgres):
    """Each message of the batch was begun; what was not given out was not."""
    for _ in range(3):
        node.put(b"x", channel="jobs")
    loop = node.receive_batches("jobs", size=2)
    assert len(next(loop)) == 2
    crash(own_postgres)
    with pytest.raises(StoreError):
        next(loop)
    own_postgres.start()
    assert attempts(node, 3) == [1, 2, 2]


def test_what_was_done_is_done(node, own_postgres):
    """A loop body has ended, and only its lease sheet says so: it is not handled again though the lease is lost."""
    node.put(b"x", channel="jobs")
    loop = node.receive("jobs")
    next(loop)
    crash(own_postgres)
    with pytest.raises(StoreError):
        next(loop)
    own_postgres.start()
    assert comes_no_more(node)
    assert node.inbox.scan(Selection()) == []
