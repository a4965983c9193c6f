"""What connections share at the store, where the store fails."""

import asyncio
import logging
import threading

import pytest

from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.contracts.parcels import Parcel
from dropr_core.errors import Closed, UsageError, WriteFailed
from dropr_core.gateway import hub as hubs
from dropr_core.gateway.budget import Budget
from dropr_core.gateway.desk import NodeDesk
from dropr_core.gateway.hub import Hub


def at_a_hub(tmp_path, main):
    """Run ``main(hub, desk)`` with a node in memory."""

    async def run():
        config = from_mapping({"node": "kit", "storage": "memory", "limits": {"min_free": 0}}, tmp_path)
        with Runtime.open(config) as runtime:
            hub = Hub(runtime, asyncio.get_running_loop(), logging.getLogger("test.gateway"), 1 << 20)
            try:
                async with asyncio.timeout(60):
                    return await main(hub, lambda: NodeDesk(hub, "test", Budget(1 << 20)))
            finally:
                hub.stop()
                await hub.close()

    return asyncio.run(run())


def test_who_waits_for_a_receipt_hears_that_nothing_can_be_listened_to(tmp_path, monkeypatch):
    """Where the system gives no way to wait for news, the one who waits is told, and the next one is served again."""

    async def main(hub, desk):
        one = desk()
        (placed,) = await one.put(Parcel(channel="mail", body=b"x", receipt=True))
        loop, refused = asyncio.get_running_loop(), []

        def refuse(*_):
            refused.append(1)
            raise OSError(28, "no space left in the set of watched files")

        with monkeypatch.context() as patch:
            patch.setattr(loop, "add_reader", refuse)
            with pytest.raises(OSError, match="no space left"):
                await one.wait_receipt(placed.id, None)
        assert refused
        (held,) = await one.reserve(["mail"])
        await held.ack(b"result")
        return await one.wait_receipt(placed.id, None)

    assert at_a_hub(tmp_path, main).ended


def test_leases_of_a_connection_end_even_if_the_store_refuses_at_first(tmp_path, monkeypatch):
    """A connection that ends while the disk is full gives back what it held as soon as that can be written."""
    monkeypatch.setattr(hubs, "TRY_AGAIN", 0.01)

    async def main(hub, desk):
        one, two, refused = desk(), desk(), 0
        await one.put(Parcel(channel="mail", body=b"x"))
        await one.reserve(["mail"])
        inbox = hub.runtime.storage.inbox
        settle = inbox.settle

        def failing(changes):
            nonlocal refused
            refused += 1
            if refused < 4:
                raise WriteFailed("the disk is full")
            return settle(changes)

        monkeypatch.setattr(inbox, "settle", failing)
        await one.close()
        (held,) = await two.reserve(["mail"], wait=None)
        return refused, held.attempt

    refused, attempt = at_a_hub(tmp_path, main)
    assert refused >= 4
    assert attempt == 2


def test_who_is_cancelled_while_it_is_served_loses_nothing(tmp_path):
    """A reserve that is cancelled at any moment gives back what was claimed for it, the attempt not counted."""

    async def main(hub, desk):
        one, two = desk(), desk()
        await one.put(Parcel(channel="mail", body=b"x"))
        for turns in range(40):
            task = asyncio.create_task(one.reserve(["mail"], wait=None))
            for _ in range(turns):
                await asyncio.sleep(0.0002)
            task.cancel()
            (got,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(got, list):
                await got[0].release(counted=False)
        (held,) = await two.reserve(["mail"], wait=None)
        return held.attempt

    assert at_a_hub(tmp_path, main) == 1


@pytest.mark.parametrize("how", ["cancelled", "closed"])
def test_who_goes_while_it_takes_a_given_message_loses_nothing(tmp_path, how):
    """A message that was claimed by its number for somebody who has gone meanwhile goes back, uncounted."""

    async def main(hub, desk):
        one, two, entered, go = desk(), desk(), asyncio.Event(), threading.Event()
        (placed,) = await two.put(Parcel(channel="mail", body=b"x"))
        inbox = hub.runtime.storage.inbox
        claim_number = inbox.claim_number

        def slowly(number, consumer):
            claim = claim_number(number, consumer)
            hub.loop.call_soon_threadsafe(entered.set)
            go.wait(60)
            return claim

        inbox.claim_number = slowly
        task = asyncio.create_task(one.reserve_number(placed.number))
        await entered.wait()
        if how == "cancelled":
            task.cancel()
        else:
            await one.close()
        go.set()
        (got,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(got, asyncio.CancelledError if how == "cancelled" else Closed)
        (held,) = await two.reserve(["mail"], wait=30)
        return held.attempt

    assert at_a_hub(tmp_path, main) == 1


def test_one_bad_put_does_not_take_the_others_with_it(tmp_path):
    """Of puts that share a commit only the one that the store refuses fails."""

    async def main(hub, desk):
        inbox = hub.runtime.storage.inbox
        put_all = inbox.put_all

        def picky(puts):
            if any(put.channel == "bad" for put in puts):
                raise WriteFailed("not this one")
            return put_all(puts)

        inbox.put_all = picky
        parcels = [Parcel(channel="bad" if number == 3 else "mail", body=b"x") for number in range(8)]
        results = await asyncio.gather(*(desk().put(parcel) for parcel in parcels), return_exceptions=True)
        return [isinstance(result, WriteFailed) for result in results], inbox.counts()["mail"]["ready"]

    failed, ready = at_a_hub(tmp_path, main)
    assert failed == [number == 3 for number in range(8)]
    assert ready == 7


def test_topics_at_the_desk(tmp_path):
    """What nobody subscribes to cannot be published on; a subscription is made and ended as by the public API."""

    async def main(hub, desk):
        one = desk()
        with pytest.raises(UsageError, match="no topic 'prices'"):
            await one.publish(Parcel(channel="prices", body=b"x"))
        assert await one.topics("prices") == frozenset()
        channel = await one.subscribe("prices", "audit")
        (placed,) = await one.publish(Parcel(channel="prices", body=b"x"))
        assert await one.topics("prices", "others") == {"prices"}
        await one.put(Parcel(channel=channel, body=b"late", delay=60))
        return channel, placed.local, await one.unsubscribe("prices", "audit"), await one.topics("prices")

    assert at_a_hub(tmp_path, main) == ("prices/audit", True, 1, frozenset())
