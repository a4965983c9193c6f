"""The part of a check that every store has in common: is each kept message readable, and its large body there.

Owns the walk through both halves and through the bodies, page by page, and what a repair does with a message that
cannot be read: it becomes a dead letter with the reason; the bytes of its body go aside (contracts/bodies.py). Must
not know files of a storage (`Storage.check`), nor the command line.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial

from dropr_core.contracts.bodies import Bodies, Leftovers
from dropr_core.contracts.storage import Delivery, Finding, Inbox, JobInfo, Outbox, Selection
from dropr_core.errors import DroprError
from dropr_core.model.envelope import Reference, decode, reference_of
from dropr_core.model.message import State
from dropr_core.model.names import Lane, MessageId, format_id
from dropr_core.model.states import ENDED, SETTLED

PAGE = 500
TELL_EVERY = 10.0
"""Seconds between two words about how far a long check is."""
REMEMBERED = 1000
"""Bodies whose check is remembered: a multicast has one for several deliveries."""

TORN = (KeyError, IndexError, TypeError, ValueError, AttributeError)
"""What a storage may meet whose own tables contradict each other."""


class ContentCheck:
    """One walk. ``say`` is told now and then how far it is; ``lost``: whether the storage itself lost something."""

    def __init__(
        self, outbox: Outbox, inbox: Inbox, bodies: Bodies, *, repair: bool, lost: bool = False,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:  # fmt: skip
        self._outbox, self._inbox, self._bodies = outbox, inbox, bodies
        self._repair, self._lost, self._say = repair, lost, say
        self._told = time.monotonic()
        self._known: OrderedDict[tuple[str | None, MessageId, Reference], str] = OrderedDict()
        self._kept: dict[str, int] = {}
        self.messages = 0
        """How many were looked at."""

    def run(self) -> Iterator[Finding]:
        """Every finding, each after its repair."""
        told = self._lost and not self._repair  # what the storage told of is not a second thing to be repaired
        for half, walk in (("outbox", self._walk_outbox), ("inbox", self._walk_inbox)):
            try:
                yield from walk()
            except (DroprError, *TORN) as error:
                self._lost = True
                why = str(error) if isinstance(error, DroprError) else f"{type(error).__name__}: {error}"
                yield Finding(
                    half, "note" if told else "damage", f"the {half}",
                    f"its messages could not be read to the end ({why}); what is above has to be mended first",
                )  # fmt: skip
        for (half, what), number in ((tuple(key.split("\0")), number) for key, number in self._kept.items()):
            yield Finding(half, "note", f"{number} of {what}", "cannot be read; it is kept as it is, nobody needs it")
        yield from self._walk_bodies()

    def _tell(self, what: str) -> None:
        if time.monotonic() - self._told > TELL_EVERY:
            self._told = time.monotonic()
            self._say(what)

    # ── messages ─────────────────────────────────────────────────────────────────────────────────

    def _walk_outbox(self) -> Iterator[Finding]:
        cursor = (0, 0)
        while page := self._outbox.scan(Selection(), cursor, PAGE):
            for cursor, delivery in page:  # noqa: B007
                self.messages += 1
                yield from self._delivery(delivery)
            self._tell(f"looked at {self.messages} messages")

    def _delivery(self, delivery: Delivery) -> Iterator[Finding]:
        data = self._outbox.envelope(delivery.id)
        if data is None and delivery.state in ENDED:
            return
        wrong = self._wrong(delivery.id, data, None)
        if not wrong:
            return
        if delivery.state in ENDED or delivery.state is State.ACCEPTED:
            self._count("outbox", "the ended messages" if delivery.state in ENDED else "the messages that the peer has")
            return
        done = False
        if self._repair:
            lane = Lane(delivery.peer, delivery.channel, delivery.priority)
            self._outbox.dead_letter(lane, delivery.sequence, f"fsck: {wrong}")
            done = any(
                one.peer == delivery.peer and one.state is State.DEAD for one in self._outbox.status(delivery.id)
            )
        yield Finding(
            "outbox", "damage", f"message {format_id(delivery.id)} to {delivery.peer} on {delivery.channel}",
            f"{wrong}; the peer would refuse it",
            "lists it as dead with the reason, so that its lane goes on; its bytes are kept", done,
        )  # fmt: skip

    def _walk_inbox(self) -> Iterator[Finding]:
        cursor = 0
        while page := self._inbox.scan(Selection(), cursor, PAGE):
            for job in page:
                self.messages += 1
                yield from self._job(job)
            cursor = page[-1].number
            self._tell(f"looked at {self.messages} messages")

    def _job(self, job: JobInfo) -> Iterator[Finding]:
        data = self._inbox.envelope(job.id)
        if data is None and job.state in SETTLED:
            return
        wrong = self._wrong(job.id, data, job.sender)
        if not wrong:
            return
        if job.state in SETTLED:
            self._count("inbox", "the ended messages")
            return
        done = False
        if self._repair:
            if job.state is State.LEASED:  # nobody works now: whoever had it is dead
                self._inbox.reap({})
            done = self._inbox.bury(job.id, f"fsck: {wrong}")
        yield Finding(
            "inbox", "damage", f"message {format_id(job.id)} from {job.sender} on {job.channel}",
            f"{wrong}; every attempt to work on it would fail",
            "buries it with the reason (its sender is told, if it asked); its bytes are kept", done,
        )  # fmt: skip

    def _count(self, half: str, what: str) -> None:
        key = f"{half}\0{what}"
        self._kept[key] = self._kept.get(key, 0) + 1

    def _wrong(self, identity: MessageId, data: bytes | None, peer: str | None) -> str:
        """What is wrong with a message, in the inbox from ``peer``; empty: nothing."""
        if data is None:
            return "its content is missing"
        try:
            message = decode(data).message
        except DroprError as error:
            return f"its content cannot be read ({error})"
        if message.id != identity:
            return f"its content is that of message {format_id(message.id)}"
        outside = reference_of(data)
        return "" if outside is None else self._body((peer, identity, outside))

    # ── large bodies ─────────────────────────────────────────────────────────────────────────────

    def _body(self, key: tuple[str | None, MessageId, Reference]) -> str:
        """What is wrong with a body; with a repair, a damaged one goes aside."""
        if key not in self._known:
            self._known[key] = self._bodies.examine(*key, repair=self._repair, say=self._tell)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return self._known[key]

    def _walk_bodies(self) -> Iterator[Finding]:
        """Bodies that no message refers to."""
        found = self._bodies.leftovers(
            partial(_reference, self._outbox.envelope), partial(_reference, self._inbox.envelope),
            aside=self._repair and self._lost, say=self._tell,
        )  # fmt: skip
        for left in found:
            if isinstance(left, Leftovers):
                yield from self._leftovers(left)
                continue
            place, error = left
            if not isinstance(error, (DroprError, OSError, *TORN)):
                raise error
            yield Finding("bodies", "damage", place, f"could not be looked through ({error})")

    def _leftovers(self, left: Leftovers) -> Iterator[Finding]:
        if left.unfinished:
            yield Finding(
                "bodies", "note", left.place, f"{left.unfinished} unfinished files: bodies on their way, or left by a "
                "process that died; the daemon goes on with them or removes them within a day",
            )  # fmt: skip
        if left.orphans and self._lost:
            yield Finding(
                "bodies", "damage", left.place, f"{left.orphans} bodies ({left.size} bytes) without a message; as "
                "messages were lost, they may be theirs, and the daemon would remove them",
                f"moves them to {left.aside}", left.moved == left.orphans,
            )  # fmt: skip
        elif left.orphans:
            yield Finding(
                "bodies", "note", left.place, f"{left.orphans} bodies ({left.size} bytes) without a message: just sent "
                "or arrived, or their messages ended; the daemon removes what nobody needs",
            )  # fmt: skip


def _reference(envelope: Callable[[MessageId], bytes | None], identity: MessageId) -> Reference | None:
    """The body that a kept message refers to."""
    data = envelope(identity)
    return reference_of(data) if data and len(data) >= 2 else None
