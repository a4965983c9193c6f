"""The asyncio surface has the names of the other one, and does the same."""

import asyncio
import inspect
import threading

import pytest

import dropr_core as dropr
from dropr_core.api import async_receive
from dropr_core.api.aio import AsyncNode, AsyncReceived, AsyncSent
from dropr_core.api.async_bridge import to_the_end
from dropr_core.api.consumer import Consumer
from dropr_core.api.node import Node
from dropr_core.api.received import Received
from dropr_core.api.sent import Sent
from dropr_core.config.node import parse
from dropr_core.contracts.storage import Selection
from dropr_core.errors import Closed, UsageError, WaitTimeout
from dropr_core.model.message import State

YAML = f"""
node: shop
limits: {{min_free: 0}}
peers: {{w: {{url: "http://127.0.0.1:9", key: {"k" * 40}}}}}
channels: {{orders: {{to: w}}}}
"""


def public(cls):
    return {name for name in dir(cls) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("plain", "other", "without"),
    [
        (Node, AsyncNode, {"open", "consumer", "retry_now", "name", "config", "outbox", "inbox", "registered"}),
        (Received, AsyncReceived, {"apply", "make_ack", "make_done", "make_failure", "note_refused", "outlook",
                                   "requeue", "claim", "settled", "open", "loads", "aack", "conclude", "took_effect"}),
        (Sent, AsyncSent, {"known", "result_of", "state", "deliveries"}),
    ],
)  # fmt: skip
def test_both_surfaces_have_the_same_names(plain, other, without):
    """Every verb of an application exists in both; plumbing and plain facts need not."""
    facts = {name for name in public(plain) if isinstance(inspect.getattr_static(plain, name), property)}
    slots = {name for name in public(plain) if inspect.ismemberdescriptor(inspect.getattr_static(plain, name))}
    missing = public(plain) - public(other) - without - slots - (facts if plain is Received else set())
    assert not missing


def run(coroutine):
    return asyncio.run(coroutine)


def test_send_receive_and_wait(tmp_path):
    """Messages go in, come out, are acknowledged; waiting ends with time, not with the loop blocked."""

    async def scenario():
        async with dropr.aopen(parse(YAML, tmp_path)) as node:
            sent = await node.send(b"x", channel="orders", receipt=True)
            assert (await sent.status()).state is State.QUEUED
            with pytest.raises(WaitTimeout):
                await sent.wait(timeout=0.01)
            async with node.batch() as batch:
                batch.send(b"1", channel="orders")
                batch.send(b"2", channel="orders")
            assert await sent.cancel()
            for number in range(3):
                await node.put(str(number), channel="in")
            got = [message.value async for message in node.receive("in", wait=0)]
            assert got == ["0", "1", "2"]
            for number in range(3):
                await node.put(str(number), channel="in")
            sizes = [len(batch) async for batch in node.receive_batches("in", size=2, wait=0)]
            assert sizes == [2, 1]

    run(scenario())


def test_settling_one_of_a_batch_holds_up_nobody(tmp_path, monkeypatch):
    """The commit waits for a disk in a thread; the rest of the batch is acknowledged when the loop goes on."""
    threads = []

    async def scenario():
        async with dropr.aopen(parse(YAML, tmp_path)) as node:
            for number in range(4):
                await node.put(str(number), channel="in")
            settle = type(node.node.inbox).settle

            def settled(inbox, changes):
                threads.append(threading.get_ident())
                return settle(inbox, changes)

            monkeypatch.setattr(type(node.node.inbox), "settle", settled)
            async for batch in node.receive_batches("in", wait=0):
                await batch[0].ack()
                await batch[1].bury("not this one")
                async with batch[2]:
                    assert batch[2].value == "2"
            return {job.id: job.state for job in node.node.inbox.scan(Selection())}

    left = run(scenario())
    assert list(left.values()) == [State.BURIED]
    assert len(threads) >= 3
    assert threading.get_ident() not in threads


def test_a_waiting_receiver_is_woken_by_a_message(tmp_path):
    """The event loop watches the notifier: what is put later arrives, and other tasks run meanwhile."""

    async def scenario():
        async with dropr.aopen(parse(YAML, tmp_path)) as node:

            async def first():
                return [message.value async for message in node.receive("in", limit=1, timeout=20)]

            task = asyncio.create_task(first())
            await asyncio.sleep(0)
            await node.put("late", channel="in")
            assert await asyncio.wait_for(task, 20) == ["late"]

    run(scenario())


def test_an_exception_in_the_body_gives_back_with_backoff(tmp_path):
    """`async with message` releases on an exception and goes on where told to."""

    async def scenario():
        async with dropr.aopen(parse(YAML, tmp_path)) as node:
            await node.put("bad", channel="in")
            async for message in node.receive("in", wait=0, on_error="continue"):
                async with message:
                    raise RuntimeError("no")
            assert node.node.inbox.counts()["in"]["delayed"] == 1

    run(scenario())


def test_outside_of_the_block_it_is_closed(tmp_path):
    """A node that was not entered says how it is used."""
    with pytest.raises(Closed, match="async with"):
        run(dropr.aopen(parse(YAML, tmp_path)).put(b"x"))


def test_the_time_ends_both_loops_alike(tmp_path):
    """With a body of a tenth of a second and three tenths in all, ten prefetched messages end after three or four."""

    async def scenario():
        async with dropr.aopen(parse(YAML, tmp_path)) as node:
            for number in range(10):
                await node.put(str(number), channel="in")
            got = []
            async for message in node.receive("in", prefetch=10, timeout=0.3):
                got.append(message.value)
                await asyncio.sleep(0.1)
            assert got == [str(number) for number in range(len(got))]
            assert len(got) <= 4  # none, if the first took so long to come
            counts = node.node.inbox.counts()["in"]
            assert (counts["ready"], counts["processed"]) == (10 - len(got), len(got))
            left = node.node.inbox.scan(Selection(channel="in", states=frozenset({State.READY})))
            assert {job.attempts for job in left} == {0}

    run(scenario())


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"prefetch": 0}, "prefetch"), ({"prefetch": -3}, "prefetch"), ({"limit": -1}, "limit"), ({"wait": -1}, "-1"),
     ({"timeout": "soon"}, "soon"), ({"wait": float("nan")}, "nan")],
)  # fmt: skip
def test_wrong_arguments_are_refused_at_once_by_both(tmp_path, arguments, word):
    """What would give nothing in silence is a UsageError at the call, before anything is registered."""

    async def scenario():
        async with dropr.aopen(parse(YAML, tmp_path)) as node:
            for either in (node, node.node):
                with pytest.raises(UsageError, match=word):
                    either.receive("in", **arguments)
                with pytest.raises(UsageError, match="channel"):
                    either.receive()
                with pytest.raises(UsageError, match="size is 0"):
                    either.receive_batches("in", size=0)

    run(scenario())


@pytest.fixture
def waiting(monkeypatch):
    """Tells of each moment in which a loop has nothing to do and watches its descriptor."""
    begun = asyncio.Queue()
    original = async_receive.readable

    async def readable(fd, seconds):
        begun.put_nowait(fd)
        await original(fd, seconds)

    monkeypatch.setattr(async_receive, "readable", readable)
    return begun


@pytest.mark.parametrize("by", ["cancel", "timeout"])
def test_no_cancellation_is_lost(tmp_path, waiting, by):
    """Hundreds of loops are cancelled, by hand or by `asyncio.timeout`, in the very turns in which a message arrives:
    each ends by it, and no message is lost.
    """
    done = []

    async def consume(node):
        async for message in node.receive("in"):
            done.append(message.id)

    async def ended(node, round_):
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as limit:
            task = asyncio.create_task(consume(node)) if by == "cancel" else asyncio.current_task()
            cancel = task.cancel if by == "cancel" else lambda: limit.reschedule(loop.time())
            arriving = loop.create_task(arrive(node, round_ % 4, cancel))
            await (task if by == "cancel" else consume(node))
        await arriving

    async def arrive(node, turns, cancel):
        await waiting.get()
        node.node.put(b"x", channel="in")  # committed, and the descriptor is readable
        for _ in range(turns):
            await asyncio.sleep(0)
        cancel()

    async def scenario():
        async with dropr.aopen(parse(YAML, tmp_path)) as node:
            for round_ in range(300):
                with pytest.raises(asyncio.CancelledError if by == "cancel" else TimeoutError):
                    await asyncio.wait_for(ended(node, round_), 20)
                left = [message.id async for message in node.receive("in", wait=0)]
                assert len(done) + len(left) == 1
                done.clear()
                while not waiting.empty():
                    waiting.get_nowait()

    run(scenario())


def test_a_cancelled_call_is_waited_for():
    """A cancellation in the middle of a call in a thread is raised after its end, however often it is repeated."""

    async def scenario():
        begun, go, ended = threading.Event(), threading.Event(), []

        def work():
            begun.set()
            go.wait(20)
            ended.append(True)
            raise RuntimeError("the cancellation goes first")

        task = asyncio.create_task(to_the_end(work))
        await asyncio.to_thread(begun.wait, 20)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]

    run(scenario())


def test_a_loop_abandoned_by_a_cancelled_task_ends_before_its_node(tmp_path, monkeypatch):
    """A task is cancelled in the body of its loop and its node closes at once: the message goes back before that."""
    closing, closed_meanwhile = threading.Event(), []
    end, close = Consumer.end, Node.close

    def slow_end(consumer, unused):
        closed_meanwhile.append(closing.wait(0.2))
        end(consumer, unused)

    def noted_close(node):
        closing.set()
        close(node)

    monkeypatch.setattr(Consumer, "end", slow_end)
    monkeypatch.setattr(Node, "close", noted_close)

    async def consume(node, given):
        async for _ in node.receive("in"):
            given.set()
            await asyncio.sleep(60)

    async def scenario():
        async with dropr.aopen(parse(YAML, tmp_path)) as node:
            await node.put(b"x", channel="in")
            given = asyncio.Event()
            task = asyncio.create_task(consume(node, given))
            await asyncio.wait_for(given.wait(), 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        async with dropr.aopen(parse(YAML, tmp_path)) as node:
            (job,) = node.node.inbox.scan(Selection(channel="in"))
            assert (job.state, job.attempts) == (State.READY, 0)

    run(scenario())
    assert closed_meanwhile == [False]


def test_a_cancellation_while_the_node_opens_leaves_nothing_open(tmp_path, monkeypatch):
    """The block was never entered, so nobody would close it: the node is closed again before the task ends."""
    begun, go, opened = threading.Event(), threading.Event(), []
    original = Node.open

    def slow_open(config):
        begun.set()
        assert go.wait(20)
        opened.append(original(config))
        return opened[-1]

    monkeypatch.setattr(Node, "open", slow_open)

    async def enter():
        async with dropr.aopen(parse(YAML, tmp_path)):
            raise AssertionError("the block was entered")

    async def scenario():
        task = asyncio.create_task(enter())
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario())
    with pytest.raises(Closed):
        opened[0].runtime.check()


def test_a_cancellation_while_the_node_closes_does_not_keep_it_open(tmp_path):
    """However often the task is cancelled at the end of its block, the node is closed when it has ended."""

    async def scenario():
        node = dropr.aopen(parse(YAML, tmp_path))
        inside, leave = asyncio.Event(), asyncio.Event()

        async def use():
            async with node:
                plain.append(node.node)
                inside.set()
                await leave.wait()

        plain = []
        task = asyncio.create_task(use())
        await asyncio.wait_for(inside.wait(), 20)
        leave.set()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(Closed):
            plain[0].runtime.check()

    run(scenario())
