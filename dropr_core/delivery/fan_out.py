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

import attrs
import msgspec

from dropr_core.api.consumer import Consumer
from dropr_core.api.received import Received, settle
from dropr_core.api.runtime import Runtime
from dropr_core.api.sender import Sender
from dropr_core.api.subscriptions import REQUESTS, Subscription, Subscriptions, is_overflow, read_request
from dropr_core.contracts.bodies import Written
from dropr_core.contracts.storage import START, Ack, Arrival, Bury, Job, NewMessage, Release, Selection
from dropr_core.delivery.copy_log import LANES, CopyLog, Standing
from dropr_core.delivery.overflow import Overflow, Target
from dropr_core.errors import LeaseLost, QueueFull, StoreBusy
from dropr_core.model import envelope, topics
from dropr_core.model.message import State
from dropr_core.model.names import Head, SourceLane, id_of_key, lane_priority
from dropr_core.system.log_fields import about

BATCH = 200
FULL_REST = 5.0
"""Seconds for which a topic rests when its copies found no room."""


@attrs.define
class Copies:
    """What one batch becomes."""

    here: dict[tuple[str, int], list[Job]] = attrs.field(factory=dict)
    """By channel of this node and priority."""
    late: dict[str, str] = attrs.field(factory=dict)
    """Of these, the channels that are overflow queues, and their topics."""
    outgoing: list[NewMessage] = attrs.field(factory=list)
    written: list[Written] = attrs.field(factory=list)


class FanOut:
    """For one thread."""

    def __init__(self, runtime: Runtime, log: logging.Logger) -> None:
        self._runtime, self._log = runtime, log
        self.subscriptions = Subscriptions(runtime)
        self._sender = Sender(runtime)
        self._copies = CopyLog(runtime, log)
        self._overflow = Overflow(runtime, self.subscriptions)
        self._resting: dict[str, float] = {}
        """Topics whose copies found no room, and when that is tried again."""

    def look(self) -> None:
        """Learn what others have left: to be called before the first turn. Raises StoreError."""
        self._overflow.look()

    def channels(self) -> list[str]:
        """Those of which a consumer shall be given to `turn`, as it stands now. Raises StoreError."""
        return [*self.subscriptions.topics(), *self._overflow.channels, REQUESTS]

    def turn(self, consumer: Consumer) -> bool:
        """Handle what is there now, at most a batch; whether there was anything. Raises StoreError."""
        now = self._runtime.clock.now()
        received = consumer.claim(BATCH, without=[topic for topic, ends in self._resting.items() if ends > now])
        published = []
        for one in received:
            if one.channel == REQUESTS:
                self._answer(one)
            elif is_overflow(one.channel) and one.sender != self._runtime.name:
                self._refuse(one)
            else:
                published.append(one)
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

    def _refuse(self, foreign: Received) -> None:
        """A peer has sent into an overflow queue: what waits there is sent on, and nobody sends through this node."""
        reason = f"channel {foreign.channel} is for copies that {self._runtime.name} makes itself"
        self._log.warning("a message of %s is buried: %s", foreign.sender, reason,
                          extra=about(peer=foreign.sender, channel=foreign.channel))  # fmt: skip
        settle(self._runtime, [Bury(foreign.claim, reason)])

    # ── copies ───────────────────────────────────────────────────────────────────────────────────

    def _copy(self, consumer: Consumer, published: list[Received]) -> bool:
        """Copy messages and acknowledge them; False: for some there was no room, they went back."""
        try:
            standing = self._copies.look()
            self._overflow.look(standing.head)
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
        self._overflow.drained({one.channel for one in published})
        return True

    def _copy_less(self, consumer: Consumer, published: list[Received], full: QueueFull) -> bool:
        """There is no room for all: copy each topic by itself, and of one as much as there is room for, in order. Then
        the subscription that has none is left behind, and the others get the rest.
        """
        parts = [[one for one in published if one.channel == topic] for topic in _topics(published)]
        if len(parts) > 1:
            found = [self._copy(consumer, part) for part in parts]
            return all(found)
        half = len(published) // 2
        if half == 0:
            topic = published[0].channel
            if self._leave_behind(topic, full):
                return self._copy(consumer, published)
            if full.never and is_overflow(topic):
                settle(self._runtime, [Bury(one.claim, str(full)) for one in published])  # the others may have room
                return True
            self._rest(published, full)
            return False
        if self._copy(consumer, published[:half]):
            return self._copy(consumer, published[half:])
        self._put_back(published[half:])
        return False

    def _leave_behind(self, topic: str, full: QueueFull) -> bool:
        """Whether it was the limit of a subscription: what is for that one goes into its overflow queue from now on."""
        found = self._overflow.begin(topic, full)
        for one in found:
            self._log.warning("copies for %s%s find no room and wait in channel %s: %s", one.channel,
                              f" of {one.peer}" if one.peer else "", one.overflow, full,
                              extra=about(peer=one.peer, channel=one.channel))  # fmt: skip
        return bool(found)

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
        copies = Copies()
        try:
            for one in fresh:
                for target in self._overflow.targets(one.channel):
                    self._add(one, target, copies)
            for channel, topic in copies.late.items():
                jobs = [job for (name, _), some in copies.here.items() if name == channel for job in some]
                self._overflow.check_room(topic, jobs, channel)
            note = self._copies.begin(standing, [one.claim.number for one in fresh])
            self._check_leases(fresh)
            if copies.outgoing:
                self._sender.store(copies.outgoing, 0.0, copies.written)
            arrivals = []
            for (channel, priority), jobs in copies.here.items():
                lane = SourceLane(self._runtime.name, LANES, channel, priority)
                before = standing.heads.get(lane, START)
                arrivals.append(Arrival(lane, before, Head(before.sequence + len(jobs), jobs[-1].id), jobs))
            self._copies.finish(note, arrivals)
            self._overflow.copied(note.upto)
        finally:
            for body in copies.written:
                with contextlib.suppress(OSError):
                    body.release()
        for channel, _ in copies.here:
            self._runtime.notifier.notify(topics.inbox(channel))

    def _check_leases(self, claimed: Sequence[Received]) -> None:
        """Raise StoreBusy if one of them was lost: whoever has the message now may have copied it."""
        held = Selection(tuple(one.claim.id for one in claimed), frozenset({State.LEASED}))
        tokens = {one.number: one.token for one in self._runtime.storage.inbox.all(held)}
        if any(tokens.get(one.claim.number) != one.claim.token for one in claimed):
            raise StoreBusy("this process stood still, and others may have gone on; what is left is looked at anew")

    def _add(self, one: Received, target: Target, copies: Copies) -> None:
        node, message, subscription = self._runtime.name, one.message, target.subscription
        waited = is_overflow(one.channel)
        channel = subscription.overflow if target.late else subscription.channel
        # The outbox takes an id once, so it must not matter whether a copy for a peer has waited in an overflow queue.
        # Those for this node need another one there: a large body's file is named by it.
        named = subscription.channel if subscription.peer else channel
        kept = waited and bool(subscription.peer)
        identity = one.claim.id if kept else id_of_key(node, named, f"{one.id} {subscription.peer}")
        headers = message.headers if one.sender == node else {**message.headers, "published-by": one.sender}
        left = None if message.expires_in is None else max(0.001, message.expires_in - one.age)
        copy = msgspec.structs.replace(
            message, id=identity, sender=node, channel=channel, headers=headers, receipt=False, delay=None,
            expires_in=left, hops=message.hops + (not waited),
        )  # fmt: skip
        away = bool(subscription.peer) and not target.late
        content: bytes | envelope.Reference
        if one.large:
            with one.open() as file:
                body = self._runtime.bodies.write(identity, file, inbox_of=None if away else node)
            copies.written.append(body)
            content = body.reference
        else:
            content = one.body
        data = envelope.encode(copy, content)
        if away:
            priority = lane_priority(copy.priority, large=one.large)
            peers, fingerprint = (subscription.peer,), bytes(identity)
            copies.outgoing.append(
                NewMessage(identity, channel, priority, peers, data, False, left, False, fingerprint)
            )
            return
        job = Job(identity, data, 0, copy.key, False, None, left, rank=copy.rank)
        copies.here.setdefault((channel, copy.priority), []).append(job)
        if target.late:
            copies.late[channel] = subscription.topic


def _topics(published: Sequence[Received]) -> list[str]:
    return list(dict.fromkeys(one.channel for one in published))


__all__ = ["FanOut"]
