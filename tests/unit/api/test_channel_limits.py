"""Channels with a `rate` or a `concurrency`: at every place of a program that hands out messages, and what may be
configured.
"""

import asyncio
import os
import select
import threading

import pytest
from support.one_node import configure, open_node, pass_time
from unit.api.limited_channels import NARROW, SLOW, STORAGES, bodies, fill

from dropr_core.api.aio import AsyncNode
from dropr_core.api.channel_limits import LOOK_AGAIN
from dropr_core.api.consumer import Consumer
from dropr_core.api.prefetching import PrefetchingConsumer
from dropr_core.errors import ConfigError


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
