"""Copies of what is published, for each subscription.

Owns what one batch of a topic's messages becomes, so that a death at any moment neither loses nor doubles a copy:

1. the batch is noted (`topics.batch`), with the sequence number that it is going to have;
2. copies for other nodes go into the outbox, each under an id made of the message's and the subscription's, which the
   outbox takes once;
3. copies for queues of this node enter the inbox by log matching, in one commit with the head of a lane of its own,
   which then has that sequence number;
4. the messages are acknowledged, and that is flushed before the next batch is noted.

Whoever finds messages of a dead one compares the head with the note: equal, and all that it names were copied. Used by
one thread of one process at a time, on whatever machine (processes/topic_thread.py); so the note is a document of the
node and not a file of one machine. Must not know who publishes or receives.
"""

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import attrs
import msgspec

from dropr_core.api.consumer import Consumer
from dropr_core.api.received import Received, settle
from dropr_core.api.runtime import Runtime
from dropr_core.api.sender import Sender
from dropr_core.api.subscriptions import REQUESTS, Subscription, Subscriptions, read_request
from dropr_core.contracts.bodies import Written
from dropr_core.contracts.storage import START, Ack, Arrival, Bury, Job, NewMessage, Release
from dropr_core.errors import QueueFull, StoreCorrupt, StoreError
from dropr_core.model import envelope, topics
from dropr_core.model.names import Head, SourceLane, StoreId, id_of_key, lane_priority
from dropr_core.system.log_fields import about
from dropr_core.system.shared_document import Form

LANES = StoreId(b"topics\0\0")
"""In place of a sender's store: the lanes by which copies enter this node's own inbox."""
BATCH = 200
FULL_REST = 5.0
"""Seconds after which a batch that found no room is tried again."""


class FanOut:
    """For one thread."""

    def __init__(self, runtime: Runtime, log: logging.Logger) -> None:
        self._runtime, self._log = runtime, log
        self.subscriptions = Subscriptions(runtime)
        self._sender = Sender(runtime)
        self._note = runtime.documents.document("topics.batch", FORM)
        self._full = False

    def turn(self, consumer: Consumer) -> bool:
        """Handle what is there now, at most a batch; whether there was anything. Raises StoreError."""
        received = consumer.claim(BATCH)
        for one in received:
            if one.channel == REQUESTS:
                self._answer(one)
        published = [one for one in received if one.channel != REQUESTS]
        if published:
            self._copy(consumer, published)
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

    def _copy(self, consumer: Consumer, published: list[Received]) -> None:
        runtime, inbox = self._runtime, self._runtime.storage.inbox
        heads = inbox.heads(runtime.name, LANES)
        lane = SourceLane(runtime.name, LANES, REQUESTS, 0)
        head = heads.get(lane, START)
        copied = self._copied(head)
        fresh = [one for one in published if one.claim.number not in copied]
        if fresh:
            upto = Head(head.sequence + 1, fresh[-1].claim.id)
            local, outgoing, written = self._compose(fresh)
            self._write_note(upto, [one.claim.number for one in fresh])
            try:
                if outgoing:
                    self._sender.store(outgoing, 0.0, written)
                arrivals = [Arrival(lane, head, upto, [])]
                for (channel, priority), jobs in local.items():
                    mine = SourceLane(runtime.name, LANES, channel, priority)
                    before = heads.get(mine, START)
                    arrivals.append(Arrival(mine, before, Head(before.sequence + len(jobs), jobs[-1].id), jobs))
                if not all(word.taken for word in inbox.accept(arrivals)):
                    raise StoreError(
                        "copies were made by another process at the same time; the batch is looked at anew"
                    )
            except QueueFull as full:
                if not self._full:
                    self._log.warning("copies of what is published find no room, all of it waits: %s", full)
                self._full = True
                settle(runtime, [Release(one.claim, FULL_REST, "", counted=False) for one in published])
                return
            finally:
                for body in written:
                    with contextlib.suppress(OSError):
                        body.release()
            self._full = False
            for channel, _ in local:
                runtime.notifier.notify(topics.inbox(channel))
        consumer.acknowledge(published)
        inbox.flush()

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

    # ── the note ─────────────────────────────────────────────────────────────────────────────────

    def _copied(self, head: Head) -> frozenset[int]:
        """The numbers of messages that were copied and perhaps not acknowledged."""
        try:
            found = self._note.look(now=True)
        except StoreCorrupt as error:
            self._log.warning("the last batch may be copied twice: %s", error)
            return frozenset()
        same = found is not None and (found.sequence, found.id) == (head.sequence, head.id.hex())
        return found.numbers if found is not None and same else frozenset()

    def _write_note(self, upto: Head, numbers: Sequence[int]) -> None:
        self._note.write(BatchNote(upto.sequence, upto.id.hex(), frozenset(numbers)))


@attrs.frozen
class BatchNote:
    """What a batch is about to be."""

    sequence: int
    id: str
    numbers: frozenset[int]
    """Of the messages that it copies."""


def _decode(document: Any) -> BatchNote | None:
    return BatchNote(int(document["sequence"]), str(document["id"]), frozenset(map(int, document["numbers"])))


def _encode(note: BatchNote | None) -> object:
    assert note is not None
    return {"version": 1, "sequence": note.sequence, "id": note.id, "numbers": sorted(note.numbers)}


FORM: Form[BatchNote | None] = Form(_decode, _encode, lambda: None, "remove it")

__all__ = ["FanOut"]
