"""Channels with a `rate` or a `concurrency` at a gateway: all its connections share them."""

import asyncio
import logging

import pytest
from support.one_node import configure, pass_time
from unit.api.limited_channels import NARROW, SLOW, bodies, fill

from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.gateway.budget import Budget
from dropr_core.gateway.desk import NodeDesk
from dropr_core.gateway.hub import Hub
from dropr_core.gateway.watching import ChannelWatch


def at_a_hub(tmp_path, channels, main):
    """Run ``main(node, hub, desk)`` at a gateway's hub."""

    async def run():
        with Runtime.open(configure(tmp_path, channels=channels)) as runtime:
            hub = Hub(runtime, asyncio.get_running_loop(), logging.getLogger("test.gateway"), 1 << 20)
            try:
                async with asyncio.timeout(60):
                    return await main(Node(runtime), hub, lambda: NodeDesk(hub, "test", Budget(1 << 20)))
            finally:
                hub.stop()
                await hub.close()

    return asyncio.run(run())


def test_gateways_hand_out_what_is_allowed(tmp_path):
    """All connections of a gateway share a rate with whoever else is there; time brings the next one."""

    async def main(node, _, desk):
        fill(node, 6)
        assert bodies(node.receive("jobs", limit=1)) == [b"0"]
        one, two = desk(), desk()
        got = [*await one.reserve(["jobs"], limit=1), *await two.reserve(["others", "jobs"], limit=10)]
        assert await one.reserve(["jobs"], limit=10) == []
        pass_time(node, 3600.0)
        return [held.body for held in [*got, *await one.reserve(["jobs"], limit=10, wait=30)]]

    assert at_a_hub(tmp_path, SLOW, main) == [b"1", b"2", b"3"]


@pytest.mark.parametrize("how", ["ack", "release", "bury", "leave"])
def test_a_connection_that_waits_for_a_place_gets_it(tmp_path, how):
    """Settled by one connection, or given back because that one has gone: another that waits gets the next message."""

    async def main(node, _, desk):
        fill(node, 3)
        one, two = desk(), desk()
        held = await one.reserve(["jobs"], limit=10)
        assert len(held) == 2
        waiting = asyncio.create_task(two.reserve(["jobs"], wait=50))
        await asyncio.sleep(0)
        if how == "leave":
            await one.close()
        else:
            await getattr(held[0], how)()
        return len(await waiting)

    assert at_a_hub(tmp_path, NARROW, main) == 1


@pytest.mark.parametrize("channels", [{"jobs": {"rate": "1/h"}}, {"jobs": {"concurrency": 1}}])
def test_a_message_that_is_asked_for_by_number_counts_too(tmp_path, channels):
    """Who names the message gets around no limit; and what only removes messages is not limited."""

    async def main(node, hub, desk):
        fill(node, 3)
        one = desk()
        (held,) = await one.reserve(["jobs"])
        assert await one.reserve_number(held.number + 1) is None
        await held.ack()
        if "concurrency" in channels["jobs"]:
            assert (await one.reserve_number(held.number + 1)).body == b"1"
            assert await one.reserve_number(held.number + 2) is None
        return await hub.change(lambda: hub.meddling.delete(held.number + 2))

    assert at_a_hub(tmp_path, channels, main) is True


def test_who_watches_a_channel_looks_again_when_the_rate_gives_the_next(tmp_path):
    """A dialect that chooses among what waits, and was refused, does not wait until somebody notifies."""

    async def main(node, hub, desk):
        fill(node, 2)
        (held,) = await desk().reserve(["jobs"])
        async with ChannelWatch(hub, "jobs") as watch:
            await watch.prepare()
            assert await desk().reserve_number(held.number + 1) is None
            refused = hub.claimer.refused_for("jobs")
            await watch.wait()
            return watch._patience <= 0.5 or refused <= 0

    assert at_a_hub(tmp_path, {"jobs": {"rate": "2/s"}}, main)
