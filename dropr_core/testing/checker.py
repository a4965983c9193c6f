"""Judges histories: what was attempted, acknowledged, delivered and settled, by whom, in which order.

Owns those invariants of docs/guarantees.md that a history alone can show (I1 nothing lost, I2 nothing
doubled, I3 receipts true, I4 bytes unchanged, I6 all or nothing, I10 order). Every layer of tests writes
a `History` and asks `check`. Must not know storages, links or how a history came about.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Literal

import attrs

Kind = Literal[
    "attempted",  # a call that stores this message began; batch = the call
    "acknowledged",  # ... and returned
    "refused",  # ... or raised: nothing may be left of it
    "ended",  # the sender's store says that it ended otherwise: state, reason
    "wiped",  # somebody asked to forget it
    "entered",  # it was committed into a receiver's queue; flagged: as a possible duplicate
    "given",  # a worker got it
    "acked",  # the worker's acknowledgement was confirmed
    "returned",  # the lease ended otherwise (released, retired, reaped)
    "buried",  # into the dead letters (also: expired there)
    "kicked",  # out of the dead letters
    "receipted",  # the sender learned an outcome: state
    "listed",  # the sender's store was found to know it
    "looked",  # a complete look at the sender's store ends here
]


@attrs.frozen
class Event:
    """One thing that happened. Fields that a kind does not need stay empty."""

    kind: Kind
    id: bytes = b""
    who: str = ""
    """Receiver (entered), worker (given, acked, returned)."""
    digest: bytes = b""
    key: str | None = None
    """Ordering key, with its channel."""
    state: str = ""
    reason: str = ""
    flagged: bool = False
    batch: int = 0
    place: int = 0
    """Position in its lane (entered)."""
    lane: str = ""


@attrs.frozen
class Violation:
    """An invariant that does not hold, and why."""

    invariant: str
    text: str


@attrs.define
class History:
    """Events in the order in which they happened."""

    events: list[Event] = attrs.field(factory=list)

    def note(self, event: Event) -> None:
        """Write down one event."""
        self.events.append(event)


def digest(data: bytes) -> bytes:
    """What stands for content in a history."""
    return hashlib.blake2b(data, digest_size=8).digest()


def nothing_lost(events: Iterable[Event]) -> Iterable[Violation]:
    """I1: what was acknowledged is known to the store, in a receiver's queue, or ended with a reason."""
    owed: set[bytes] = set()
    listed: set[bytes] = set()
    for event in events:
        if event.kind == "acknowledged":
            owed.add(event.id)
        elif event.kind == "listed":
            listed.add(event.id)
        elif event.kind in {"entered", "wiped"}:
            owed.discard(event.id)
        elif event.kind == "ended":
            owed.discard(event.id)
            if event.state in {"failed", "dead"} and not event.reason:
                yield Violation("I1", f"{event.id.hex()} ended as {event.state} without a reason")
        elif event.kind == "looked":
            for lost in owed - listed:
                yield Violation("I1", f"{lost.hex()} was acknowledged and is nowhere")
            listed = set()


def nothing_doubled(events: Iterable[Event]) -> Iterable[Violation]:
    """I2: one entry unless flagged, one worker at a time, none after an acknowledgement."""
    entries: dict[tuple[bytes, str], int] = {}
    copies: dict[bytes, int] = {}
    holders: dict[bytes, list[str]] = {}
    for event in events:
        if event.kind == "entered":
            at = (event.id, event.who)
            entries[at] = entries.get(at, 0) + 1
            copies[event.id] = copies.get(event.id, 0) + 1
            if entries[at] > 1 and not event.flagged:
                yield Violation("I2", f"{event.id.hex()} entered the queue of {event.who} twice, not flagged")
        elif event.kind == "given":
            holding = holders.setdefault(event.id, [])
            if len(holding) >= copies.get(event.id, 0):
                why = f"{holding[0]} has it" if holding else "it is done, or never came"
                yield Violation("I2", f"{event.id.hex()} given to {event.who}, but {why}")
            holding.append(event.who)
        elif event.kind in {"acked", "returned"} or (event.kind == "buried" and event.who):
            holding = holders.setdefault(event.id, [])
            if event.who not in holding:
                yield Violation("I2", f"{event.id.hex()} settled by {event.who or 'somebody'} without a lease")
                continue
            holding.remove(event.who)
        if event.kind in {"acked", "buried"}:
            copies[event.id] = copies.get(event.id, 0) - 1
        elif event.kind == "kicked":
            copies[event.id] = copies.get(event.id, 0) + 1


def receipts_true(events: Iterable[Event]) -> Iterable[Violation]:
    """I3: a receipt says processed only after an acknowledgement, failed only after a burial."""
    happened: set[tuple[bytes, str]] = set()
    proof = {"processed": "acked", "failed": "buried", "expired": "buried", "accepted": "entered"}
    for event in events:
        if event.kind == "receipted":
            if (event.id, proof.get(event.state, "")) not in happened:
                yield Violation("I3", f"{event.id.hex()} receipted as {event.state}, which did not happen")
        else:
            happened.add((event.id, event.kind))


def bytes_unchanged(events: Iterable[Event]) -> Iterable[Violation]:
    """I4: what comes out, wherever, is what went in."""
    content: dict[bytes, bytes] = {}
    for event in events:
        if event.kind == "attempted":
            content.setdefault(event.id, event.digest)
        elif event.kind in {"entered", "given", "listed"} and event.digest and event.digest != content.get(event.id):
            yield Violation("I4", f"{event.id.hex()} came out changed ({event.kind} {event.who})")


def all_or_nothing(events: Iterable[Event]) -> Iterable[Violation]:
    """I6: nothing of a refused call is ever seen; a call is acknowledged as a whole; an id is stored once."""
    attempts: dict[int, set[bytes]] = {}
    answers: dict[int, dict[str, set[bytes]]] = {}
    stored: set[bytes] = set()
    for event in events:
        if event.kind == "attempted":
            attempts.setdefault(event.batch, set()).add(event.id)
        elif event.kind in {"acknowledged", "refused"}:
            answers.setdefault(event.batch, {}).setdefault(event.kind, set()).add(event.id)
            if event.kind == "acknowledged":
                if event.id in stored and not event.flagged:
                    yield Violation("I6", f"{event.id.hex()} was stored anew by a repeated call")
                stored.add(event.id)
        elif event.kind in {"entered", "listed", "given"} and event.id not in stored:
            words = [kinds for batch, kinds in answers.items() if event.id in attempts.get(batch, set())]
            if any("refused" in kinds for kinds in words):
                yield Violation("I6", f"{event.id.hex()} was refused and is there all the same ({event.kind})")
    for batch, kinds in answers.items():
        done = kinds.get("acknowledged", set())
        if done and done != attempts.get(batch, set()):
            yield Violation("I6", f"call {batch} was stored in part: {len(done)} of {len(attempts.get(batch, ()))}")


def order_holds(events: Iterable[Event]) -> Iterable[Violation]:
    """I10: within a key one after the other, in the order of arrival; within a lane in the order sent."""
    waiting: dict[str, list[bytes]] = {}
    keys: dict[bytes, str] = {}
    places: dict[tuple[str, str], int] = {}
    for event in events:
        if event.kind == "entered":
            at = (event.who, event.lane)
            if event.lane and event.place <= places.get(at, 0) and not event.flagged:
                yield Violation("I10", f"{event.id.hex()} entered lane {event.lane} out of order")
            places[at] = event.place if event.flagged else max(event.place, places.get(at, 0))
            if event.key is not None:
                waiting.setdefault(event.key, []).append(event.id)
                keys[event.id] = event.key
        elif event.kind == "given" and event.id in keys:
            first = waiting[keys[event.id]][:1]
            if first != [event.id]:
                yield Violation("I10", f"{event.id.hex()} was given before the one before it of key {keys[event.id]}")
        elif event.kind in {"acked", "buried"} and event.id in keys:
            mine = waiting[keys[event.id]]
            if event.id in mine:
                mine.remove(event.id)
        elif event.kind == "kicked":
            keys.pop(event.id, None)  # it comes back wherever there is room: out of the order by request


INVARIANTS: tuple[Callable[[Iterable[Event]], Iterable[Violation]], ...] = (
    nothing_lost, nothing_doubled, receipts_true, bytes_unchanged, all_or_nothing, order_holds,
)  # fmt: skip


def check(history: History) -> list[Violation]:
    """Every violation of every invariant."""
    return [violation for invariant in INVARIANTS for violation in invariant(history.events)]


__all__ = ["INVARIANTS", "Event", "History", "Violation", "check", "digest"]
