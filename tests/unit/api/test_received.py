"""One leased message: acknowledged, released, buried, and what a block around it does."""

import select

import pytest
from support.one_node import SENDER, Peer, open_node, pass_time

from dropr_core.api.consumer import Consumer
from dropr_core.contracts.storage import Bury, Release, Selection
from dropr_core.errors import LeaseLost, TooBig
from dropr_core.model.message import State
from dropr_core.model.topics import outcomes

CHANNELS = {"jobs": {"attempts": 3, "retry_backoff_min": "2s", "retry_backoff_max": "3s"}}


@pytest.fixture
def node(tmp_path):
    with open_node(tmp_path, channels=CHANNELS) as node:
        yield node


@pytest.fixture
def take(node):
    """Claim the next message; None if none is ready."""
    consumer = Consumer(node.runtime, ["jobs"])
    yield lambda: next(iter(consumer.claim()), None)
    consumer.close()


def states(node):
    return [info.state for info in node.inbox.scan(Selection(), 0, 100)]


def reasons(node):
    return [(row.state, row.reason) for row in node.inbox.outcomes(SENDER, None, 0, 100)[1]]


def test_it_says_what_it_is(node, take):
    """The facts of its sender, and of this node: attempt, age, whether it may be a duplicate."""
    Peer(node, priority=3).push(b"body", possible_duplicate=True)
    pass_time(node, 5)
    received = take()
    assert (received.body, received.value, received.size, received.large) == (b"body", b"body", 4, False)
    assert (received.channel, received.priority, received.sender, received.attempt) == ("jobs", 3, SENDER, 1)
    assert received.possible_duplicate
    assert 5 <= received.age < 60
    assert received.lease_holds
    with received.open() as file:
        assert file.read() == b"body"


def test_an_acknowledged_message_is_done_and_its_sender_is_told(node, take):
    """Its receipt has the result; nothing of it is ready again."""
    Peer(node).push(b"body", receipt=True)
    with node.runtime.notifier.subscribe(outcomes(SENDER)) as subscription:
        subscription.prepare()
        assert not select.select([subscription], [], [], 0)[0]
        take().ack({"total": 7})
        assert select.select([subscription], [], [], 0)[0], "whoever brings receipts home was not woken"
    assert take() is None
    (row,) = node.inbox.outcomes(SENDER, None, 0, 10)[1]
    assert (row.state, row.result, row.content_type) == (State.PROCESSED, b'{"total":7}', "application/json")


def test_a_released_message_rests_for_the_backoff_of_its_channel(node, take):
    """2 s after the first attempt, 3 s (the longest) after the second; then its attempts are used up."""
    Peer(node).push(b"body", receipt=True)
    for attempt, rest in ((1, 2), (2, 3)):
        received = take()
        assert received.attempt == attempt
        received.release(reason="not today")
        assert take() is None
        pass_time(node, rest - 0.5)
        assert take() is None
        pass_time(node, 0.6)
    take().release(reason="never")
    assert states(node) == [State.BURIED]
    assert reasons(node) == [(State.FAILED, "never")]


def test_the_last_attempt_without_a_reason_is_buried_with_their_number(node, take):
    """Nobody finds a dead letter without any reason."""
    Peer(node).push(b"body", receipt=True)
    for _ in range(3):
        take().release(0)
    assert reasons(node) == [(State.FAILED, "3 attempts")]


def test_the_change_of_a_failure_is_decided_by_the_attempt(node, take):
    """Released with the delay that was said, or that of the backoff; buried when attempts are used up."""
    Peer(node).push(b"body")
    for _ in range(2):
        received = take()
        said = received.make_failure(0.0, "why")
        assert isinstance(said, Release)
        assert (said.delay, said.reason) == (0.0, "why")
        assert received.make_failure().delay == (2.0 if received.attempt == 1 else 3.0)
        received.apply(said)
    assert isinstance(take().make_failure(), Bury)


def test_a_message_is_settled_once(node, take):
    """Whatever is tried after it is told LeaseLost and changes nothing."""
    Peer(node).push(b"one")
    received = take()
    received.ack()
    for again in (received.ack, received.release, received.bury):
        with pytest.raises(LeaseLost, match="settled before"):
            again()
    received.requeue()
    assert take() is None


def test_a_lease_that_ended_is_lost_and_nothing_is_changed(node, take):
    """Another consumer may have it: the acknowledgement of the first is refused."""
    Peer(node).push(b"body")
    other = Consumer(node.runtime, ["jobs"])
    (received,) = other.claim()
    other.close()
    assert not received.lease_holds
    with pytest.raises(LeaseLost, match="another consumer may have it"):
        received.ack()
    assert take().attempt == 1


def test_a_result_over_the_limit_is_refused_and_the_lease_stays(node, take):
    """The handler may still say something shorter."""
    Peer(node).push(b"body", receipt=True)
    received = take()
    with pytest.raises(TooBig, match="send a message instead"):
        received.ack(b"x" * 70_000)
    received.ack(b"x")
    assert reasons(node) == [(State.PROCESSED, "")]


def test_a_reason_that_could_not_be_stored_is_made_storable(node, take):
    """The text of an error may be anything: it is clipped, and half characters go."""
    Peer(node).push(b"body", receipt=True)
    take().bury("\ud800" + "x" * 100_000)
    ((state, reason),) = reasons(node)
    assert state is State.FAILED
    assert len(reason.encode()) < 10_000


def test_leaving_a_block_acknowledges(node, take):
    """Unless it was settled in it."""
    Peer(node).push(b"one", b"two")
    with take():
        pass
    with take() as second:
        second.bury("bad")
    assert states(node) == [State.BURIED]


def test_an_exception_in_a_block_releases_and_is_raised(node, take):
    """The error is the caller's; the message comes again, the attempt counted, the reason kept."""
    Peer(node).push(b"body", receipt=True)
    with pytest.raises(ValueError, match="bad"), take():
        raise ValueError("bad")
    pass_time(node, 2)
    assert take().attempt == 2


def test_a_consumer_that_goes_on_swallows_the_exception(node):
    """With on_error="continue" the block ends, the message rests, and the loop goes on."""
    Peer(node).push(b"body")
    consumer = Consumer(node.runtime, ["jobs"], on_error="continue")
    (received,) = consumer.claim()
    with received:
        raise ValueError("bad")
    assert received.settled
    assert states(node) == [State.DELAYED]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_the_end_of_a_program_is_not_the_fault_of_a_message(node, take, kind):
    """It goes back at once, the attempt not counted."""
    Peer(node).push(b"body")
    with pytest.raises(kind), take():
        raise kind
    assert take().attempt == 1
