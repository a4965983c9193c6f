"""Copies of what is published, for each subscription.

Owns what one batch of a topic's messages becomes, so that neither a death at any moment nor a process that stood still
loses or doubles a copy (`copy_log.py` has how it is known what was copied):

1. the batch is noted, and it is made sure that the leases of its messages still hold;
2. copies for other nodes go into the outbox, each under an id made of the message's and the subscription's, which the
   outbox takes once;
3. copies for queues of this node enter the inbox, all in one commit with the mark that the batch is copied;
4. the messages are acknowledged.

One process at a time does it, on whatever machine (processes/topic_thread.py); where one stood still while another was
chosen, what it does late is refused. Must not know who publishes or receives.
"""

import contextlib
import logging
from collections.abc import Sequence

import msgspec

from dropr_core.api.consumer import Consumer
from dropr_core.api.received import Received, settle
from dropr_core.api.runtime import Runtime
from dropr_core.api.sender import Sender
from dropr_core.api.subscriptions import REQUESTS, Subscription, Subscriptions, read_request
from dropr_core.contracts.bodies import Written
from dropr_core.contracts.storage import START, Ack, Arrival, Bury, Job, NewMessage, Release, Selection
from dropr_core.delivery.copy_log import LANES, CopyLog, Standing
from dropr_core.errors import LeaseLost, QueueFull, StoreBusy
from dropr_core.model import envelope, topics
from dropr_core.model.message import State
from dropr_core.model.names import Head, SourceLane, id_of_key, lane_priority
from dropr_core.system.log_fields import about

BATCH = 200
FULL_REST = 5.0
"""Seconds for which a topic rests when its copies found no room."""


class FanOut:
    """For one thread."""

    def __init__(self, runtime: Runtime, log: logging.Logger) -> None:
        self._runtime, self._log = runtime, log
        self.subscriptions = Subscriptions(runtime)
        self._sender = Sender(runtime)
        self._copies = CopyLog(runtime, log)
        self._resting: dict[str, float] = {}
        """Topics whose copies found no room, and when that is tried again."""

    def turn(self, consumer: Consumer) -> bool:
        """Handle what is there now, at most a batch; whether there was anything. Raises StoreError."""
        now = self._runtime.clock.now()
        received = consumer.claim(BATCH, without=[topic for topic, ends in self._resting.items() if ends > now])
        for one in received:
            if one.channel == REQUESTS:
                self._answer(one)
        published = [one for one in received if one.channel != REQUESTS]
        if published:
            self._copy(consumer, published)
            rested = {topic for topic in _topics(published) if self._resting.get(topic, now + 1) <= now}
            for topic in rested:
                del self._resting[topic]  # and found room now
        return bool(received)

    # ── subscriptions of other nodes ─────────────────────────────────────────────────────────────

    def _answer(self, asked: Received) -> None:
        """A peer wants to subscribe, or to end that; it learns by the receipt what came of it."""
        try:
            verb, topic, name = read_request(asked.body)
        except ValueError as error:
            settle(self._runtime, [Bury(asked.claim, str(error))])
            return
        one = Subscription(topic, name, "" if asked.sender == self._runtime.name else asked.sender)
        if verb == "unsubscribe":
            self.subscriptions.remove(one)
        elif one.peer and not self.subscriptions.may_join(topic, one.peer):
            reason = f"topics.{topic}.join of {self._runtime.name} does not name {one.peer}"
            self._log.warning("%s may not subscribe to %s: %s", one.peer, topic, reason,
                              extra=about(peer=one.peer, channel=topic))  # fmt: skip
            settle(self._runtime, [Bury(asked.claim, reason)])
            return
        elif self.subscriptions.add(one):
            self._log.info("%s subscribes to %s as %s", one.peer or "this node", topic, name,
                           extra=about(peer=one.peer, channel=topic))  # fmt: skip
        settle(self._runtime, [Ack(asked.claim)])

    # ── copies ───────────────────────────────────────────────────────────────────────────────────

    def _copy(self, consumer: Consumer, published: list[Received]) -> bool:
        """Copy messages and acknowledge them; False: for some there was no room, they went back."""
        try:
            standing = self._copies.look()
            fresh = [one for one in published if one.claim.number not in standing.copied]
            if fresh:
                self._make(standing, fresh)
        except QueueFull as full:
            return self._copy_less(consumer, published, full)
        try:
            consumer.acknowledge(published)
        except LeaseLost:
            return True  # they come to somebody else, who knows what was copied
        self._runtime.storage.inbox.flush()
        self._copies.forget([one.claim.number for one in published])
        return True

    def _copy_less(self, consumer: Consumer, published: list[Received], full: QueueFull) -> bool:
        """There is no room for all: copy each topic by itself, and of one as much as there is room for, in order."""
        parts = [[one for one in published if one.channel == topic] for topic in _topics(published)]
        if len(parts) > 1:
            found = [self._copy(consumer, part) for part in parts]
            return all(found)
        half = len(published) // 2
        if half == 0:
            self._rest(published, full)
            return False
        if self._copy(consumer, published[:half]):
            return self._copy(consumer, published[half:])
        self._put_back(published[half:])
        return False

    def _rest(self, published: list[Received], full: QueueFull) -> None:
        """Their topic waits for room, and keeps its order; no other topic waits with it."""
        topic = published[0].channel
        if topic not in self._resting:
            self._log.warning("copies of what is published on %s find no room, all of it waits: %s", topic, full,
                              extra=about(channel=topic))  # fmt: skip
        self._resting[topic] = self._runtime.clock.now() + FULL_REST
        self._put_back(published)

    def _put_back(self, published: list[Received]) -> None:
        settle(self._runtime, [Release(one.claim, counted=False) for one in published])

    def _make(self, standing: Standing, fresh: Sequence[Received]) -> None:
        """Make the copies of messages that have none."""
        local, outgoing, written = self._compose(fresh)
        try:
            note = self._copies.begin(standing, [one.claim.number for one in fresh])
            self._check_leases(fresh)
            if outgoing:
                self._sender.store(outgoing, 0.0, written)
            arrivals = []
            for (channel, priority), jobs in local.items():
                lane = SourceLane(self._runtime.name, LANES, channel, priority)
                before = standing.heads.get(lane, START)
                arrivals.append(Arrival(lane, before, Head(before.sequence + len(jobs), jobs[-1].id), jobs))
            self._copies.finish(note, arrivals)
        finally:
            for body in written:
                with contextlib.suppress(OSError):
                    body.release()
        for channel, _ in local:
            self._runtime.notifier.notify(topics.inbox(channel))

    def _check_leases(self, claimed: Sequence[Received]) -> None:
        """Raise StoreBusy if one of them was lost: whoever has the message now may have copied it."""
        held = Selection(tuple(one.claim.id for one in claimed), frozenset({State.LEASED}))
        tokens = {one.number: one.token for one in self._runtime.storage.inbox.all(held)}
        if any(tokens.get(one.claim.number) != one.claim.token for one in claimed):
            raise StoreBusy("this process stood still, and others may have gone on; what is left is looked at anew")

    def _compose(
        self, published: Sequence[Received]
    ) -> tuple[dict[tuple[str, int], list[Job]], list[NewMessage], list[Written]]:
        local: dict[tuple[str, int], list[Job]] = {}
        outgoing: list[NewMessage] = []
        written: list[Written] = []
        for one in published:
            for subscription in self.subscriptions.of(one.channel):
                self._add(one, subscription, local, outgoing, written)
        return local, outgoing, written

    def _add(
        self, one: Received, subscription: Subscription, local: dict[tuple[str, int], list[Job]],
        outgoing: list[NewMessage], written: list[Written],
    ) -> None:  # fmt: skip
        node, message, channel = self._runtime.name, one.message, subscription.channel
        identity = id_of_key(node, channel, f"{one.id} {subscription.peer}")
        headers = message.headers if one.sender == node else {**message.headers, "published-by": one.sender}
        left = None if message.expires_in is None else max(0.001, message.expires_in - one.age)
        copy = msgspec.structs.replace(
            message, id=identity, sender=node, channel=channel, headers=headers, receipt=False, delay=None,
            expires_in=left, hops=message.hops + 1,
        )  # fmt: skip
        content: bytes | envelope.Reference
        if one.large:
            with one.open() as file:
                body = self._runtime.bodies.write(identity, file, inbox_of=None if subscription.peer else node)
            written.append(body)
            content = body.reference
        else:
            content = one.body
        data = envelope.encode(copy, content)
        if subscription.peer:
            priority = lane_priority(copy.priority, large=one.large)
            outgoing.append(NewMessage(identity, channel, priority, (subscription.peer,), data, False, left, False,
                                       bytes(identity)))  # fmt: skip
        else:
            job = Job(identity, data, 0, copy.key, False, None, left, rank=copy.rank)
            local.setdefault((channel, copy.priority), []).append(job)


def _topics(published: Sequence[Received]) -> list[str]:
    return list(dict.fromkeys(one.channel for one in published))


__all__ = ["FanOut"]
