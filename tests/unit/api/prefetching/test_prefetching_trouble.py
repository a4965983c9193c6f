"""A consumer that holds messages ahead in trouble: lost leases, stores that fail, many threads, processes that fork."""

import contextlib
import itertools
import threading
import time

import pytest
from unit.api.prefetching.holding import consume, count, fill, grown

from dropr_core.api.prefetching import PrefetchingConsumer
from dropr_core.contracts.storage import Selection
from dropr_core.errors import Closed, LeaseLost, StoreError
from dropr_core.model.backoff import Backoff
from dropr_core.model.message import State
from dropr_core.testing.forks import Child


def test_a_lost_lease_is_told_by_the_loop(node):
    """Whose lease had ended before its settlement is told so by a later step, by name, and nothing was changed."""
    fill(node, 3)
    loop = node.receive("orders", wait=0)
    lost = next(loop)
    steal(node, lost.id)
    with pytest.raises(LeaseLost, match=lost.id):
        for _ in loop:
            pass
    assert count(node).get("processed", 0) <= 2
    assert lost.id in {message.id for message in node.receive("orders", wait=0)}


def test_the_last_lost_lease_is_told_at_the_end(node):
    """Also where no step follows: the loop does not end as if all were well."""
    fill(node, 1)
    with pytest.raises(LeaseLost):
        for message in node.receive("orders", wait=0, limit=1):
            steal(node, message.id)


def steal(node, message_id):
    """Give a leased message back behind its consumer's back, as a repair might."""
    from dropr_core.contracts.storage import JobMove
    from dropr_core.model.names import parse_id

    (info,) = node.inbox.scan(Selection(ids=(parse_id(message_id),)))
    assert node.inbox.move([JobMove(info, State.READY)]) == [True]


def test_a_store_that_fails_loses_nothing(node, open_node, monkeypatch):
    """What is done and cannot be settled stays noted: the next claim says so, and after the end of this consumer
    whoever reaps settles it.
    """
    consumer = grown(node)
    fill(node, 4)
    for _ in range(3):
        consumer.take().ack()

    def broken(*_args, **_more):
        raise StoreError("the disk is gone")

    with monkeypatch.context() as patch:
        for name in ("settle", "acknowledge", "retire"):
            patch.setattr(node.inbox, name, broken)
        with pytest.raises(StoreError):
            consumer.tick()
        with pytest.raises(StoreError):
            consumer.settle_now()
        node.inbox.sheets.abandon(consumer._consumer)  # as `retire` does when it fails
        with pytest.raises(StoreError):
            consumer.close()
    other = open_node()
    assert [(message.body, message.attempt) for message in other.receive("orders", wait=0)] == [(b"3", 1)]
    assert count(other) == {"processed": 16}


def test_the_store_closes_before_the_loop(node, open_node):
    """A node that is closed while a loop stands open settles what its bodies have done."""
    fill(node, 3)
    loop = node.receive("orders")
    next(loop)
    next(loop)
    node.close()
    loop.close()
    other = open_node()
    assert [int(message.body) for message in other.receive("orders", wait=0)] == [1, 2]


def test_threads_share_one_consumer(open_node):
    """Each message goes to one thread, and everything they did is settled, whoever did it and however it ended."""
    node = open_node()
    fill(node, 600)
    consumer = consume(node)
    seen, again = [], itertools.count()

    def work():
        while (message := consumer.take()) is not None:
            seen.append((int(message.body), message.attempt))
            if message.attempt == 1 and next(again) % 50 == 0:
                message.release(delay=0)
            elif int(message.body) % 7 == 0:
                message.ack(b"seven")
            else:
                message.ack()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    consumer.close()
    rest = [(int(message.body), message.attempt) for message in node.receive("orders", wait=0)]
    assert sorted({number for number, _ in seen + rest}) == list(range(600))
    assert len(seen + rest) == len(set(seen + rest)), "a message was given twice"
    assert count(node) == {"processed": 600}


def test_a_forked_child_takes_nothing(node):
    """A child that goes on with its parent's loop meets Closed with the next message, and notes nothing."""
    consumer = grown(node)
    fill(node, 5)
    mine = consumer.take()

    def work(say):
        for use in (mine.ack, consumer.take, consumer.take_held, consumer.settle_now, lambda: consumer.pass_on([mine])):
            try:
                use()
            except Closed:
                say("Closed")
            else:
                say("went through")
        consumer.close()
        say("closed")

    with Child(work) as child:
        assert list(child.go().rest()) == ["Closed"] * 5 + ["closed"]
    mine.ack()
    consumer.close()
    assert count(node) == {"processed": 13, "ready": 4}


def test_without_room_for_a_sheet_one_is_held(node, monkeypatch):
    """On a full disk messages are taken one by one and settled at once; with room again they are held again."""
    fill(node, 40)
    now = [0.0]
    with monkeypatch.context() as patch:
        patch.setattr(node.inbox.sheets, "sheet", lambda _: None)
        consumer = PrefetchingConsumer(node.runtime, ("orders",), clock=lambda: now[0])
        for done in range(5):
            message = consumer.take()
            assert count(node)["leased"] == 1
            message.ack()
            assert count(node)["processed"] == done + 1
    consumer.take().ack()
    assert count(node)["processed"] == 6
    now[0] = 100.0
    for _ in range(20):
        consumer.take().ack()
    assert count(node)["leased"] > 1
    consumer.close()


def test_a_message_outlives_its_consumer(node):
    """Who settles after the consumer was closed is told that the lease has ended."""
    fill(node, 1)
    consumer = consume(node)
    message = consumer.take()
    consumer.close()
    with pytest.raises(LeaseLost):
        message.ack()
    assert count(node) == {"ready": 1}


def test_a_store_that_fails_in_the_background_is_told_once(open_node, monkeypatch, caplog):
    """While the store refuses what a loop has done, the log says so once, nothing is lost, and it is settled by itself
    when the store works again, while the loop body still runs.
    """
    node = open_node()
    fill(node, 2)
    loop = node.receive("orders", wait=0)
    next(loop)
    tries = []

    def broken(*_args, **_more):
        tries.append(1)
        raise StoreError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr("dropr_core.api.prefetching.acknowledge", broken)
        patch.setattr("dropr_core.api.store_trouble.RESTS", Backoff(0.01, 0.02))
        with contextlib.suppress(StoreError):
            next(loop)
            until(lambda: len(tries) > 3)
    if not loop.gi_frame:  # the next claim was told of it
        assert list(node.receive("orders", wait=0))
    until(lambda: count(node).get("processed", 0) >= 1)
    assert caplog.text.count("the disk is gone") <= 2
    loop.close()


def until(condition):
    """Wait until something is so."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
