"""Settling one message: values that the caller gives, and what it means if the store refuses."""

import contextlib
from datetime import timedelta

import pytest

from dropr_core.api.consumer import Consumer
from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import Ack, Selection
from dropr_core.errors import TooBig, UsageError, WriteFailed
from dropr_core.model.limits import MAX_RESULT
from dropr_core.model.message import State
from dropr_core.model.names import format_id


@pytest.fixture
def node(tmp_path):
    mapping = {"node": "ware", "data": str(tmp_path / "data"), "storage": "memory", "limits": {"min_free": 0},
               "channels": {"jobs": {"attempts": 3, "retry_backoff_min": "7s", "retry_backoff_max": "7s"},
               "fast": {"attempts": 3, "retry_backoff_min": "1ms", "retry_backoff_max": "1ms"}}}  # fmt: skip
    with Node(Runtime.open(from_mapping(mapping, tmp_path))) as opened:
        yield opened


@pytest.fixture
def consumer(node):
    with contextlib.closing(Consumer(node.runtime, ["jobs"])) as opened:
        yield opened


@pytest.fixture
def received(node, consumer):
    node.put(b"x", channel="jobs")
    (message,) = consumer.claim()
    return message


def job_of(node):
    """What the store says about the only message."""
    (job,) = node.inbox.scan(Selection())
    return job


@pytest.fixture
def refusing(node, monkeypatch):
    """Makes the store refuse all acknowledgements."""

    def refuse(*_):
        raise WriteFailed("the disk is in trouble")

    settle = type(node.inbox).settle

    def only_others(inbox, changes):
        if any(isinstance(change, Ack) for change in changes):
            refuse()
        return settle(inbox, changes)

    monkeypatch.setattr(type(node.inbox), "acknowledge", refuse)
    monkeypatch.setattr(type(node.inbox), "settle", only_others)


@pytest.mark.parametrize(("delay", "due_in"), [(None, 7.0), (3, 3.0), ("2m", 120.0), (timedelta(hours=1), 3600.0)])
def test_a_release_takes_any_duration(node, received, delay, due_in):
    """A released message comes after the given time, or after the channel's backoff."""
    received.release(delay, "not yet")
    job = job_of(node)
    assert (job.state, job.attempts, job.reason) == (State.DELAYED, 1, "not yet")
    assert job.due_in == pytest.approx(due_in, abs=5)


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "soon", object()])
def test_a_release_refuses_what_is_no_duration(received, delay):
    """Wrong delays are a UsageError, and nothing has changed."""
    with pytest.raises(UsageError, match="delay"):
        received.release(delay)
    received.ack()


def test_a_result_that_cannot_travel_changes_nothing(received):
    """`ack` says what is wrong with the result; the message can still be settled."""
    with pytest.raises(TooBig, match=str(MAX_RESULT)):
        received.ack(b"x" * (MAX_RESULT + 1))
    with pytest.raises(UsageError, match="JSON"):
        received.ack(object())
    assert not received.settled
    received.ack()


@pytest.mark.parametrize("on_error", ["raise", "continue"])
def test_an_exception_in_the_block_is_a_failed_attempt(node, on_error, caplog):
    """It goes back with backoff, the reason with file and line; raised again unless told to go on."""
    node.put(b"x", channel="jobs")
    with contextlib.closing(Consumer(node.runtime, ["jobs"], on_error=on_error)) as consumer:
        (received,) = consumer.claim()
        outcome = contextlib.nullcontext() if on_error == "continue" else pytest.raises(ValueError, match="not today")
        with outcome, received:
            raise ValueError("not today")
    job = job_of(node)
    assert (job.state, job.attempts) == (State.DELAYED, 1)
    assert job.reason.startswith("ValueError: not today (")
    assert "test_settlement.py:" in job.reason
    assert f"{received.id} on jobs failed: ValueError: not today" in caplog.text
    assert "attempt 1 of 3, next try in 7 s" in caplog.text


@pytest.mark.usefixtures("refusing")
def test_a_refused_acknowledgement_counts_when_it_is_given_back(node, received):
    """The work was done and may be done again: that is an attempt, with backoff and a reason."""
    with pytest.raises(WriteFailed):
        received.ack()
    received.requeue()
    job = job_of(node)
    assert (job.state, job.attempts) == (State.DELAYED, 1)
    assert job.reason == "done, but could not be acknowledged: the disk is in trouble"


def test_a_refused_release_is_kept_in_mind(node, received, monkeypatch):
    """A failed attempt that could not be written down is written down when the message is given back."""
    settle = type(node.inbox).settle

    def refuse(*_):
        monkeypatch.setattr(type(node.inbox), "settle", settle)
        raise WriteFailed("for a moment")

    monkeypatch.setattr(type(node.inbox), "settle", refuse)
    with pytest.raises(WriteFailed):
        received.release(50, "it failed")
    received.requeue()
    job = job_of(node)
    assert (job.state, job.attempts, job.reason) == (State.DELAYED, 1, "it failed")


@pytest.mark.usefixtures("refusing")
@pytest.mark.parametrize("batches", [False, True])
def test_a_message_whose_acknowledgement_always_fails_is_buried_in_the_end(node, batches):
    """Each loop that fails at the acknowledgement has used up one attempt."""
    node.put(b"x", channel="fast")
    for attempt in range(1, 4):
        loop = node.receive_batches("fast", wait=20) if batches else node.receive("fast", wait=20)
        given = next(loop)
        assert (given[0] if batches else given).attempt == attempt
        with pytest.raises(WriteFailed):
            next(loop)
    job = job_of(node)
    assert (job.state, job.attempts) == (State.BURIED, 3)


@pytest.mark.usefixtures("refusing")
def test_what_the_body_never_saw_does_not_count(node):
    """When an acknowledgement fails, what was leased ahead goes back as if it had never been."""
    tried, ahead = (node.put(name.encode(), channel="jobs") for name in ("tried", "ahead"))
    loop = node.receive("jobs", prefetch=2)
    assert next(loop).id == tried
    with pytest.raises(WriteFailed):
        next(loop)
    attempts = {format_id(job.id): (job.state, job.attempts) for job in node.inbox.scan(Selection())}
    assert attempts == {tried: (State.DELAYED, 1), ahead: (State.READY, 0)}
