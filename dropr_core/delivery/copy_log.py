"""Which messages have been copied, whoever copied them.

Owns the note of a batch (`topics.batch`) and the head that its copies enter the inbox with, and what the two say
together. Must not know what a copy is, nor subscriptions.

The head of one lane of the inbox is moved by every batch, in one commit with its copies and all or none
(`Inbox.accept_together`), from the head that the note names to an id made for this batch alone. The note is replaced
only by who has seen it as it is, and only once it is decided: the head is the id of its batch (copied), or its
``fence``, another id made with the note (not copied, and it never will be: the head that the batch follows is gone).
Whoever finds it undecided moves the head to the fence himself, or finds that he comes too late. So at any moment there
is one batch at most that could still be copied, and everybody can tell whether it was.

What was copied is carried from note to note until its message is gone from the inbox for good: until then it may come
to anybody again, by a death or a lost lease. Who is late has a lease that does not hold any more; so leases are looked
at after the note was replaced and before anything is copied. From then on whoever gets a message gets it after the
note, must decide that first, and knows.
"""

import logging
import os
from collections.abc import Collection, Sequence
from typing import Any

import attrs

from dropr_core.api.runtime import Runtime
from dropr_core.api.subscriptions import REQUESTS
from dropr_core.contracts.storage import START, Accepted, Arrival
from dropr_core.errors import StoreBusy
from dropr_core.model.message import State
from dropr_core.model.names import Head, MessageId, SourceLane, StoreId
from dropr_core.system.shared_document import Form, Seen

LANES = StoreId(b"topics\0\0")
"""In place of a sender's store: the lanes by which copies enter this node's own inbox."""
TRIES = 20
"""How often others may be faster, in one look."""
OTHERS = "another process copies what is published at the same time; what is left is looked at anew"


@attrs.frozen
class BatchNote:
    """What a batch is about to be."""

    after: Head
    id: MessageId
    """Of the head, once it is copied."""
    fence: MessageId
    """Of the head, once it is sure that it never will be. Empty in a note of version 1: its writer is gone."""
    numbers: frozenset[int]
    """Of the messages that it copies."""
    copied: frozenset[int]
    """Of messages that were copied before, and might come again."""

    @property
    def upto(self) -> Head:
        """The head, once it is copied."""
        return Head(self.after.sequence + 1, self.id)


@attrs.frozen
class Standing:
    """How it stands between two batches."""

    heads: dict[SourceLane, Head]
    """Of all lanes by which copies enter the inbox."""
    copied: frozenset[int]
    """The numbers of messages that were copied, and may come again."""
    seen: Seen[BatchNote | None]
    head: Head
    """That of the last batch."""


class CopyLog:
    """Of one node; for one thread."""

    def __init__(self, runtime: Runtime, log: logging.Logger) -> None:
        self._inbox, self._log = runtime.storage.inbox, log
        self._note = runtime.documents.document("topics.batch", FORM)
        self._lane = SourceLane(runtime.name, LANES, REQUESTS, 0)
        self._gone: set[int] = set()
        """Numbers of messages that this one has acknowledged, on stable storage."""

    def look(self) -> Standing:
        """What was copied, decided for good. Raises StoreError."""
        for _ in range(TRIES):
            seen = self._note.see()
            heads = self._inbox.heads(self._lane.sender, LANES)
            note, head = seen.value, heads.get(self._lane, START)
            if seen.trouble is not None:
                self._log.warning("the last batch may be copied twice: %s", seen.trouble)
            if note is None:
                return Standing(heads, frozenset(), seen, head)
            if head == note.upto:
                return Standing(heads, note.copied | note.numbers, seen, head)
            if not note.fence:
                return Standing(heads, frozenset(), seen, head)
            fence = Head(note.after.sequence + 1, note.fence)
            if head == fence:
                return Standing(heads, note.copied, seen, head)
            if head == note.after:
                self._inbox.accept_together([Arrival(self._lane, head, fence, [])])
            elif self._note.see().version == seen.version:
                self._log.warning("the note of what was copied and the store are not of one time (was one of them put "
                                  "back?): the last batch may be copied twice")  # fmt: skip
                return Standing(heads, frozenset(), seen, head)
        raise StoreBusy(OTHERS)

    def begin(self, standing: Standing, numbers: Collection[int]) -> BatchNote:
        """Note a batch that copies these. Raises StoreError."""
        after = standing.head
        identity, fence = MessageId(os.urandom(16)), MessageId(os.urandom(16))
        note = BatchNote(after, identity, fence, frozenset(numbers), self._left(standing.copied))
        if not self._note.replace(standing.seen, note):
            raise StoreBusy(OTHERS)
        self._gone.clear()
        return note

    def finish(self, note: BatchNote, copies: Sequence[Arrival]) -> None:
        """Take in all copies of a batch. Raises StoreError; QueueFull: nothing was taken, the batch is undecided."""
        mine = Arrival(self._lane, note.after, note.upto, [])
        words: Sequence[Accepted] = self._inbox.accept_together([mine, *copies])
        if not words[0].taken and words[0].head != note.upto:
            raise StoreBusy(OTHERS)

    def forget(self, numbers: Collection[int]) -> None:
        """These messages were acknowledged, and it is on stable storage."""
        self._gone.update(numbers)

    def _left(self, copied: frozenset[int]) -> frozenset[int]:
        """Those of them that might come again."""
        doubtful = copied - self._gone
        left = frozenset(number for number in doubtful if self._may_come(number))
        if left != doubtful:
            self._inbox.flush()  # whoever acknowledged them: a power cut must not bring them back
        return left

    def _may_come(self, number: int) -> bool:
        found = self._inbox.find(number)
        return found is not None and found.state not in {State.DONE, State.EXPIRED}


def _decode(document: Any) -> BatchNote | None:
    version, sequence = document["version"], int(document["sequence"])
    identity, numbers = _id(document["id"]), frozenset(map(int, document["numbers"]))
    if version == 1:
        return BatchNote(Head(sequence - 1, START.id), identity, MessageId(b""), numbers, frozenset())
    if version != 2:
        raise ValueError(f"version {version!r}: made by a newer dropr")
    after = Head(sequence - 1, _id(document["after"]))
    copied = frozenset(map(int, document["copied"]))
    return BatchNote(after, identity, _id(document["fence"]), numbers, copied)


def _id(text: str) -> MessageId:
    return MessageId(bytes.fromhex(text))


def _encode(note: BatchNote | None) -> object:
    assert note is not None
    return {
        "version": 2, "sequence": note.upto.sequence, "id": note.id.hex(), "after": note.after.id.hex(),
        "fence": note.fence.hex(), "numbers": sorted(note.numbers), "copied": sorted(note.copied),
    }  # fmt: skip


FORM: Form[BatchNote | None] = Form(_decode, _encode, lambda: None, "remove it")

__all__ = ["LANES", "BatchNote", "CopyLog", "Standing"]
