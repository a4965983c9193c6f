"""The asyncio surface has the names of the other one, and does the same."""

import asyncio
import inspect

import pytest

import dropr_core as dropr
from dropr_core.api.aio import AsyncNode, AsyncReceived, AsyncSent
from dropr_core.api.node import Node
from dropr_core.api.received import Received
from dropr_core.api.sent import Sent
from dropr_core.config.node import parse
from dropr_core.errors import Closed, WaitTimeout
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
        (Node, AsyncNode, {"open", "consumer", "retry_now", "name", "config", "outbox", "inbox"}),
        (Received, AsyncReceived, {"apply", "make_ack", "make_failure", "requeue", "claim", "settled", "open",
                                       "loads"}),
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
