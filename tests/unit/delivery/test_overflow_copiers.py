"""Two processes copy for subscriptions that have no room, as one stood still or died: each gets each message once."""

import contextlib

import pytest
from support.copiers import Copier, Dies, Published
from support.site import Site

from dropr_core.contracts.storage import Selection
from dropr_core.errors import DroprError
from dropr_core.model.message import State

PEERS = {"berlin": {"url": "http://127.0.0.1:9", "key": "k" * 40, "max_messages": 2}}
SMALL = {f"t0/{name}": {"max_messages": 2} for name in ("here", "too")}


@contextlib.contextmanager
def machines(directory):
    """Three copiers on machines with one store, and subscriptions that have room for two."""
    site = Site(directory, peers=PEERS, topics={"prices": {}}, channels=SMALL)
    try:
        yield [Late(site.machine()) for _ in range(3)]
    finally:
        site.close()


class Late(Copier):
    """It takes from overflow queues, too, and does not wait for the time at which it would look for room again."""

    def channels(self, topic):
        self.fan_out._resting.clear()
        return [topic, *self.fan_out._overflow.channels]

    def work(self, topic):
        """Two turns: without room there is always something that it tries."""
        for _ in range(2):
            with contextlib.suppress(DroprError):
                self.turn(topic)


class Shipped(Published):
    """What is sent is shipped when the subscribers receive."""

    def __init__(self, node, name):
        super().__init__(node, name)
        self.sent = []

    def receive(self):
        super().receive()
        outbox = self.node.runtime.storage.outbox
        for one in list(outbox.all(Selection(channel=self.there.channel, states=frozenset({State.QUEUED})))):
            self.sent.append(one.id)
            outbox.cancel(one.id)

    def finish(self, copier):
        """Until all have what was published."""
        for _ in range(self.count):
            self.receive()
            copier.work(self.topic)
        self.receive()

    def wrong(self):
        want = [b"%d" % number for number in range(self.count)]
        found = {channel: got for channel, got in self.got.items() if sorted(got) != sorted(want)}
        if len(self.sent) != self.count or len(set(self.sent)) != self.count:
            found["berlin"] = self.sent
        return found


def test_who_did_not_see_that_one_fell_behind_does_not_overtake(tmp_path):
    """Another process copied meanwhile: what is copied now goes behind what that one had no room for."""
    with machines(tmp_path) as (one, two, _):
        topic = Shipped(one.node, "t0")
        one.fan_out.look()
        one.turn(topic.topic)
        topic.publish(5, 5, 5, 5)
        two.work(topic.topic)
        topic.receive()
        topic.publish(5)
        one.turn(topic.topic)
        topic.finish(two)
        assert all(got == [b"0", b"1", b"2", b"3", b"4"] for got in topic.got.values())


def test_a_copy_that_went_out_before_its_peer_was_full_goes_out_once(tmp_path):
    """Its copier died before the batch was done, and who comes after it finds no room: the outbox knows its id."""
    with machines(tmp_path) as (one, two, _):
        topic = Shipped(one.node, "t0")
        topic.publish(5, 5)

        def die():
            raise Dies

        outbox = one.node.runtime.storage.outbox
        append = outbox.append
        outbox.append = lambda messages: (append(messages), die())
        with contextlib.suppress(Dies):
            one.turn(topic.topic)
        del outbox.append
        topic.publish(3)  # the first of the next batch, and one too many
        two.fan_out.look()
        two.turn(topic.topic)
        assert two.node.inbox.counts()[topic.there.overflow]["ready"] == 3
        topic.finish(two)
        assert not topic.wrong()


class Steps:
    """The steps of a copier, until there are no more: after a call that found no room there is none to stop at."""

    def __init__(self):
        self.count, self._missed = 0, 0

    def __iter__(self):
        while self._missed < 2:
            yield self.count
            self.count += 1

    def met(self, step):
        self._missed = 0 if step else self._missed + 1


def behind(copier):
    """A topic whose subscribers were full, have some room again, and wait for what stands in their overflow queues."""
    topic = Shipped(copier.node, "t0")
    topic.publish(5, 5, 5, 5, 5, 5)
    copier.fan_out.look()
    copier.work(topic.topic)
    topic.receive()
    topic.publish(3)
    return topic


@pytest.mark.parametrize("lost", [True, False], ids=["taken for dead", "slow"])
def test_one_stands_still_while_another_copies_to_the_full(tmp_path, lost):
    """At each change that it makes: whoever is full gets each message once, and so does everybody else."""
    steps = Steps()
    for at in steps:
        with machines(tmp_path / str(at)) as (one, two, three):
            topic = behind(one)
            two.fan_out.look()

            def others(topic=topic, one=one, two=two):
                if lost:
                    one.lose_leases()
                topic.publish(7)
                two.turn(topic.topic)
                topic.receive()
                two.turn(topic.topic)

            with one.stopped(at, others, writes=True) as step, contextlib.suppress(DroprError):
                one.turn(topic.topic)
            topic.publish(3)
            three.fan_out.look()
            topic.finish(three)
            assert not topic.wrong(), (at, step)
            steps.met(step)
    assert steps.count > 20


def test_a_death_at_each_change_loses_and_doubles_nothing(tmp_path):
    """Whoever comes after the dead one finds who is behind in the store."""
    steps = Steps()
    for at in steps:
        with machines(tmp_path / str(at)) as (one, two, _):
            topic = behind(one)

            def die():
                raise Dies

            with one.stopped(at, die, writes=True) as step, contextlib.suppress(Dies, DroprError):
                one.turn(topic.topic)
            topic.receive()
            two.fan_out.look()
            topic.publish(3)
            topic.finish(two)
            assert not topic.wrong(), (at, step)
            steps.met(step)
    assert steps.count > 20
