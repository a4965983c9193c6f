"""A consumer that holds messages ahead: what is promised while it does."""

import contextlib
import itertools
import threading
import time

import pytest

from dropr_core.api.node import Node
from dropr_core.api.prefetching import PrefetchingConsumer
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.contracts.storage import Selection
from dropr_core.errors import Closed, LeaseLost, StoreError
from dropr_core.model.backoff import Backoff
from dropr_core.model.message import State
from dropr_core.testing.forks import Child

CHANNELS = {"orders": {}, "kept": {"retention": "1h"}, "single": {"prefetch": 1}, "few": {"prefetch": 3},
            "brittle": {"attempts": 2}}  # fmt: skip


@pytest.fixture(params=["sqlite", "fs"])
def open_node(request, tmp_path):
    """Opens the node anew, as another process would."""
    mapping = {"node": "ware", "data": str(tmp_path / "data"), "storage": request.param, "limits": {"min_free": 0},
               "channels": CHANNELS}  # fmt: skip
    opened = []

    def open_it():
        opened.append(Node(Runtime.open(from_mapping(mapping, tmp_path))))
        return opened[-1]

    yield open_it
    for node in opened:
        node.close()


@pytest.fixture
def node(open_node):
    """An open node with lease sheets; nothing is settled by time alone."""
    opened = open_node()
    opened.runtime.settler.mark = lambda: None
    return opened


class Quick:
    """A clock by which nothing takes any time: as much is held as may be."""

    def __call__(self):
        return 0.0


def fill(node, count, channel="orders", **more):
    """Queue messages whose bodies are their numbers."""
    for number in range(count):
        node.put(b"%d" % number, channel=channel, **more)


def consume(node, *channels, **more):
    """A consumer that thinks that all is quick."""
    return PrefetchingConsumer(node.runtime, channels or ("orders",), clock=Quick(), **more)


def grown(node, channel="orders", **more):
    """The same, when it has learnt how quick."""
    fill(node, 12, channel)
    consumer = consume(node, channel, **more)
    for _ in range(12):
        consumer.take().ack()
    return consumer


def count(node, channel="orders"):
    """State → number."""
    return {state: number for state, number in node.inbox.counts()[channel].items() if number and state != "bytes"}


def test_messages_are_held_and_settled_together(node):
    """A few commits for a hundred messages: what is done is noted, and settled with the next claim."""
    consumer = grown(node)
    fill(node, 100)
    before = node.inbox.engine.commits if hasattr(node.inbox.engine, "commits") else None
    for number in range(100):
        message = consumer.take()
        assert (message.body, message.attempt) == (b"%d" % number, 1)
        message.ack()
    assert count(node)["processed"] < 112
    assert consumer.take() is None
    assert count(node) == {"processed": 112}
    if before is not None:
        assert node.inbox.engine.commits - before < 30
    consumer.close()


def test_what_is_held_comes_back_uncounted(node):
    """Closing gives back all that was not handled, in its order and as its first attempt; what is done is settled."""
    consumer = grown(node)
    fill(node, 20)
    for _ in range(3):
        consumer.take().ack()
    consumer.take()
    assert count(node)["leased"] > 1
    consumer.close()
    consumer.close()
    assert count(node) == {"processed": 15, "ready": 17}
    assert [(int(one.body), one.attempt) for one in node.receive("orders", wait=0)] == [(n, 1) for n in range(3, 20)]


def test_a_long_body_hoards_nothing(node):
    """What nobody came for within an interval goes to whoever is idle, uncounted, while the one at hand goes on."""
    consumer, idle = grown(node), consume(node)
    fill(node, 8)
    busy = consumer.take()
    assert idle.take() is None or count(node)["ready"] > 0
    assert consumer.tick(), "what is held is looked after"
    assert not consumer.tick()
    others = list(iter(idle.take, None))
    assert [message.attempt for message in others] == [1] * len(others)
    assert len(others) >= 6
    busy.ack()
    assert consumer.take() is None
    assert consumer._pace.target == 1
    for other in (consumer, idle):
        other.close()


def test_the_interval_settles_while_the_body_runs(open_node):
    """A thread of the runtime settles what is done while the loop body of the next message takes its time."""
    node = open_node()
    fill(node, 2)
    loop = node.receive("orders", wait=0)
    next(loop)
    next(loop)
    deadline = time.monotonic() + 30
    while count(node).get("processed") != 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert count(node)["processed"] == 1
    loop.close()
    assert count(node) == {"processed": 1, "ready": 1}


def test_an_idle_consumer_costs_nothing(node):
    """Without anything held or done nobody comes again."""
    consumer = grown(node)
    assert consumer.take() is None
    assert not consumer.tick()
    consumer.close()


@pytest.mark.parametrize(("channel", "most"), [("single", 1), ("few", 3)])
def test_the_channel_caps_what_is_held(node, channel, most):
    """`prefetch` of the channel is the most that is held; with 1 each message is settled before the next is taken."""
    consumer = grown(node, channel)
    fill(node, 10, channel)
    for done in range(10):
        message = consumer.take()
        assert count(node, channel)["leased"] <= most
        message.ack()
        if most == 1:
            assert count(node, channel)["processed"] == 13 + done
    consumer.close()
    fill(node, 10, "orders")
    capped = consume(node, "orders", channel)
    list(iter(capped.take, None))
    assert capped._pace.cap == most
    capped.close()


def test_the_argument_caps_what_is_held(node):
    """`prefetch=` of the loop goes below what the channel allows, and 1 turns holding off."""
    fill(node, 5)
    for _ in node.receive("orders", wait=0, prefetch=1):
        assert count(node)["leased"] == 1
    assert consume(node, "few", prefetch=2)._pace.cap == 2
    assert consume(node, "few", prefetch=9)._pace.cap == 3


def test_a_limit_claims_no_more(node):
    """A loop with a limit never leases what it will not give."""
    fill(node, 10)
    for _ in node.receive("orders", limit=4, wait=0):
        assert count(node)["leased"] <= 4
    assert count(node) == {"processed": 4, "ready": 6}


def test_results_travel_small_and_large(node):
    """A small result waits on the sheet with the others; a large one is settled at once, and what is done before it,
    too.
    """
    consumer = grown(node)
    fill(node, 3)
    small, plain, large = consumer.take(), consumer.take(), consumer.take()
    small.ack(b"small")
    plain.ack()
    assert count(node)["processed"] <= 12
    large.ack(b"x" * 20_000)
    assert count(node) == {"processed": 15}
    consumer.close()


def test_release_and_bury_keep_the_order(node):
    """What is settled at once takes along, in one commit, what was done before it."""
    consumer = grown(node, "brittle")
    fill(node, 4, "brittle")
    first, second, third, fourth = (consumer.take() for _ in range(4))
    first.ack()
    second.release(delay=60, reason="later")
    assert count(node, "brittle") == {"processed": 13, "delayed": 1, "leased": 2}
    third.ack()
    fourth.bury("no")
    assert count(node, "brittle") == {"processed": 14, "delayed": 1, "buried": 1}
    consumer.close()


def test_a_kept_message_stays_readable(node):
    """Retention holds for what is settled together."""
    fill(node, 3, "kept")
    for message in node.receive("kept", wait=0):
        last = message.id
    assert count(node, "kept") == {"processed": 3, "done": 3}
    del last


def test_keys_are_held_one_at_a_time(node):
    """Of an ordering key at most one message is held, and they come in order."""
    consumer = grown(node)
    for number in range(12):
        node.put(b"%d" % number, channel="orders", key=f"k{number % 2}")
    seen = []
    while (message := consumer.take()) is not None:
        assert count(node)["leased"] <= 2
        seen.append(int(message.body))
        message.ack()
    assert sorted(seen) == list(range(12))
    assert [n for n in seen if n % 2] == [1, 3, 5, 7, 9, 11]
    consumer.close()


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
