"""A consumer that holds messages ahead: how many, and what is promised while it does."""

import time

import pytest
from unit.api.prefetching.holding import consume, count, fill, grown


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
