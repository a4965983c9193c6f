"""Channels with a `rate` or a `concurrency`: at every place that hands out messages, and how one node shares them."""

import asyncio
import logging
import os
import select
import signal
import subprocess
import sys
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.nodes import eventually
from support.one_node import configure, open_node, pass_time

from dropr_core.api.aio import AsyncNode
from dropr_core.api.channel_limits import LOOK_AGAIN, limits_of
from dropr_core.api.consumer import Consumer
from dropr_core.api.node import Node
from dropr_core.api.prefetching import PrefetchingConsumer
from dropr_core.api.runtime import Runtime
from dropr_core.contracts.storage import Claim
from dropr_core.errors import ConfigError, WriteFailed
from dropr_core.gateway.budget import Budget
from dropr_core.gateway.desk import NodeDesk
from dropr_core.gateway.hub import Hub
from dropr_core.gateway.watching import ChannelWatch
from dropr_core.model.rates import parse_rate
from dropr_core.system.notifier import Notifier

SLOW = {"jobs": {"rate": "1/h", "burst": 3}}
NARROW = {"jobs": {"concurrency": 2}}
STORAGES = pytest.mark.parametrize("storage", ["memory", "sqlite", "fs"])


def bodies(batch):
    return [received.body for received in batch]


def fill(node, count, channel="jobs"):
    for number in range(count):
        node.put(b"%d" % number, channel=channel)


# ── every place that hands out ───────────────────────────────────────────────────────────────────


@STORAGES
@pytest.mark.parametrize("kind", ["loop", "prefetch", "batches", "async loop", "async batches", "mixed"])
def test_no_loop_gets_more_than_the_rate(tmp_path, storage, kind):
    """Whatever a program receives with: the burst comes at once, then nothing until the next moment, then one."""

    async def each(node):
        async with AsyncNode(node.runtime.config) as nodes:
            if kind == "async loop":
                return [one.body async for one in nodes.receive("jobs", wait=0)]
            return [one.body async for batch in nodes.receive_batches("jobs", size=10, wait=0) for one in batch]

    def get(node):
        if kind == "batches":
            return [body for batch in node.receive_batches("jobs", size=10, wait=0) for body in bodies(batch)]
        if kind == "mixed":
            return bodies(node.receive("others", "jobs", wait=0))
        if kind.startswith("async"):
            return asyncio.run(each(node))
        return bodies(node.receive("jobs", wait=0, prefetch=10 if kind == "prefetch" else None))

    if kind.startswith("async") and storage == "memory":
        pytest.skip("a node of its own has another memory")
    with open_node(tmp_path, channels=SLOW, storage=storage) as node:
        fill(node, 6)
        assert get(node) == [b"0", b"1", b"2"]
        assert get(node) == []
        if not kind.startswith("async"):  # the other node's clock is its own
            pass_time(node, 3600.0)
            assert get(node) == [b"3"]


@STORAGES
def test_what_is_held_ahead_is_never_of_a_limited_channel(tmp_path, storage):
    """A consumer that claims many at once gets those of a limited channel one by one, and holds a place for each."""
    with open_node(tmp_path, channels=NARROW, storage=storage) as node:
        fill(node, 50, "others")
        fill(node, 6)
        fill(node, 50, "others")
        consumer = PrefetchingConsumer(node.runtime, ["jobs", "others"], clock=lambda: 0.0)
        try:
            taken, ahead = [], []
            while (one := consumer.take()) is not None:
                ahead.append([held.channel for held in consumer._held])
                assert "jobs" not in ahead[-1]
                taken.append(one)
                if one.channel == "others":
                    one.ack()
            assert [one.channel for one in taken].count("jobs") == 2
            assert [one.channel for one in taken].count("others") == 100
            assert any(ahead) or storage == "memory"
        finally:
            consumer.close()
        assert len(bodies(node.receive("jobs", wait=0))) == 6


def test_what_is_not_limited_is_claimed_together(tmp_path, monkeypatch):
    """One look at a limited channel that is empty, and all others of a batch at once."""
    with open_node(tmp_path, channels={"jobs": {"rate": "1/h"}}) as node:
        fill(node, 20, "others")
        claims, claim = [], node.runtime.storage.inbox.claim
        monkeypatch.setattr(
            node.runtime.storage.inbox, "claim", lambda *words: claims.append(words[:2]) or claim(*words)
        )
        consumer = Consumer(node.runtime, ["jobs", "others"])
        try:
            assert len(consumer.claim(20)) == 20
            assert claims == [(["jobs", "others"], 1), (["others"], 19)]
        finally:
            consumer.close()


@STORAGES
@pytest.mark.parametrize("how", ["ack", "release", "bury", "requeue", "close"])
def test_a_place_is_free_when_the_message_is_settled(tmp_path, storage, how):
    """However a message leaves the hands of a consumer, another consumer of this process gets the next one."""
    with open_node(tmp_path, channels=NARROW, storage=storage) as node:
        fill(node, 4)
        one, two = Consumer(node.runtime, ["jobs"]), Consumer(node.runtime, ["jobs"])
        try:
            first = one.claim(10)
            assert len(first) == 2
            assert two.claim(10) == []
            assert 0 < two.patience(None) <= LOOK_AGAIN
            two.prepare()
            if how == "close":
                one.close()
            else:
                for received in first:
                    getattr(received, how)()
            assert select.select([two.fileno()], [], [], 0)[0]
            assert len(two.claim(10)) == 2
            assert two.claim(10) == []
        finally:
            one.close()
            two.close()


def test_threads_never_have_more_at_once_than_there_are_places(tmp_path):
    """Eight threads of one process work on one channel, each with a loop of its own: two are in hand at most."""
    lock, now, most, done = threading.Lock(), [0], [0], []
    with open_node(tmp_path, channels=NARROW, storage="sqlite") as node:
        fill(node, 60)

        def work():
            while len(done) < 60:
                for received in node.receive("jobs", wait=0.05):
                    with lock:
                        now[0] += 1
                        most[0] = max(most[0], now[0])
                    os.sched_yield()
                    with lock:
                        now[0] -= 1
                        done.append(received.body)

        threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert sorted(done, key=int) == [b"%d" % number for number in range(60)]
        assert most[0] <= 2


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


# ── sharing ──────────────────────────────────────────────────────────────────────────────────────


def test_a_limited_channel_slows_no_other(tmp_path):
    """What is left of a limited channel waits; a consumer gets everything of its other channels."""
    with open_node(tmp_path, channels=SLOW) as node:
        fill(node, 10)
        fill(node, 10, "others")
        assert len(bodies(node.receive("jobs", "others", wait=0))) == 13


def test_priorities_stay(tmp_path):
    """Of a limited channel the most urgent come first, as ever."""
    with open_node(tmp_path, channels=SLOW) as node:
        fill(node, 3)
        node.put(b"urgent", channel="jobs", priority=0)
        assert bodies(node.receive("jobs", wait=0)) == [b"urgent", b"0", b"1"]


def test_who_waits_wakes_at_the_next_moment(tmp_path):
    """Until then nothing is looked at, though messages are ready."""
    with open_node(tmp_path, channels={"jobs": {"rate": "4/s"}}) as node:
        fill(node, 2)
        consumer = Consumer(node.runtime, ["jobs"])
        try:
            node.runtime.clock.now = lambda: 1000.0
            assert len(consumer.claim(10)) == 1
            assert consumer.claim(10) == []
            assert consumer.patience(None) == pytest.approx(0.25, abs=0.001)
            node.runtime.clock.now = lambda: 1000.251
            assert consumer.patience(None) == 0
            assert len(consumer.claim(10)) == 1
        finally:
            consumer.close()


class Stock:
    """An inbox without end, and a clock, as several processes of a node would have them."""

    def __init__(self, directory, **channel):
        (self._config,) = configure(directory, channels={"jobs": channel}).channels.values()
        self.directory, self.seconds, self.number = directory, 1000.0, 0
        self.given = []

    def now(self):
        return self.seconds

    def process(self):
        return limits_of([self._config], self.directory / "limits", self, Notifier(self.directory / "bell"))

    def take(self, channels, count):
        assert channels == ["jobs"]
        self.given += [self.seconds] * count
        made = range(self.number, self.number + count)
        self.number += count
        return [Claim(b"", n, b"%016d" % n, "jobs", 5, "s", b"", 1, False, 0.0) for n in made]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    rate=st.sampled_from(["1/s", "8/s", "60/m", "3/m"]),
    burst=st.integers(1, 5),
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(1, 7), st.booleans()), max_size=25),
)
def test_processes_share_a_rate_over_restarts(tmp_path_factory, rate, burst, steps):
    """Three processes that claim at any moments, and die and start in between, never get more than burst + rate * t."""
    stock = Stock(tmp_path_factory.mktemp("rate"), rate=rate, burst=burst)
    processes = [stock.process() for _ in range(3)]
    for rest, who, count, restarts in steps:
        stock.seconds += rest / 4
        if restarts:
            processes[who] = stock.process()
        processes[who].claim(stock.take, ["jobs"], count, "me", ahead=False)
    each = parse_rate(rate).interval / 1e9
    for first, start in enumerate(stock.given):
        for last, end in enumerate(stock.given[first:], first):
            assert last - first + 1 <= burst + (end - start) / each + 1e-6


def test_a_rate_that_was_made_faster_counts_at_once(tmp_path):
    """What a slower rate still owed does not hold up the new one for longer than that would."""
    Stock(tmp_path, rate="1/d").process().claim(Stock(tmp_path, rate="1/d").take, ["jobs"], 1, "me", ahead=False)
    stock = Stock(tmp_path, rate="1/s")
    limits = stock.process()
    assert limits.claim(stock.take, ["jobs"], 1, "me", ahead=False) == []
    stock.seconds += 1.01
    assert len(limits.claim(stock.take, ["jobs"], 1, "me", ahead=False)) == 1


def test_a_claim_that_fails_takes_nothing(tmp_path):
    """A store that refuses uses up no place and no message of the rate; what it gave before is handed out."""
    stock = Stock(tmp_path, rate="1/h", burst=2, concurrency=2)
    limits = stock.process()

    def fail(channels, count):
        raise WriteFailed("no room")

    for _ in range(3):
        with pytest.raises(WriteFailed):
            limits.claim(fail, ["jobs"], 5, "me", ahead=False)
    assert len(limits.claim(stock.take, ["jobs"], 5, "me", ahead=False)) == 2


def test_a_killed_process_leaves_its_places_at_once(tmp_path):
    """kill -9 of who holds the only place: the next claim of another process has it."""
    stock = Stock(tmp_path, concurrency=1)
    program = (
        "import sys, time\nfrom pathlib import Path\nsys.path[:0] = sys.argv[2:]\n"
        "from unit.api.test_channel_limits import Stock\n"
        "stock = Stock(Path(sys.argv[1]), concurrency=1)\nlimits = stock.process()\n"
        "print(len(limits.claim(stock.take, ['jobs'], 5, 'me', ahead=False)), flush=True)\ntime.sleep(3600)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), *sys.path], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"1\n"
        limits = stock.process()
        assert limits.claim(stock.take, ["jobs"], 5, "me", ahead=False) == []
        child.send_signal(signal.SIGKILL)
        child.wait(60)
        assert len(limits.claim(stock.take, ["jobs"], 5, "me", ahead=False)) == 1
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_forked_child_keeps_no_place(tmp_path):
    """A child that lives on after its parent has settled does not hold the place."""
    stock = Stock(tmp_path, concurrency=1)
    limits = stock.process()
    (claim,) = limits.claim(stock.take, ["jobs"], 1, "me", ahead=False)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        limits.settled([claim])
        eventually(lambda: stock.process().claim(stock.take, ["jobs"], 1, "me", ahead=False))
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(child, 0)


# ── configuration ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("channel", "said"),
    [
        ({"rate": "fast"}, "no rate"),
        ({"rate": "0/s"}, "no usable rate"),
        ({"rate": 10}, "expected"),
        ({"burst": 3}, "without a rate"),
        ({"rate": "1/s", "burst": 0}, "too small"),
        ({"concurrency": 0}, "too small"),
        ({"concurrency": 1001}, "too big"),
        ({"concurrency": "two"}, "expected"),
    ],
)
def test_nonsense_is_refused(tmp_path, channel, said):
    """Each at its place, with what to write."""
    with pytest.raises(ConfigError, match=said):
        configure(tmp_path, channels={"jobs": channel})


def test_without_limits_nothing_is_asked(tmp_path):
    """A node whose channels have none has nothing that could be asked, and makes no files."""
    with open_node(tmp_path, channels={"jobs": {"priority": 1}}) as node:
        fill(node, 2)
        assert len(bodies(node.receive("jobs", wait=0))) == 2
        assert node.runtime.limits is None
        assert not (node.runtime.run_directory / "limits").exists()
