"""Consumers that live or not, and their lease sheets: what one notes of each message that it holds, for whoever finds
it dead.

Owns what may be noted and what is read of it. A sheet outlives its consumer's process, but no boot of the machine.
`storage_kit/` has sheets for every storage on a local disk. Must not know files, nor what a message is.

The order that makes them safe: `claiming` before a claim; `hold` once it is committed; `begin` before a message is
handed out; `done` when it was handled; `free` when its settlement is committed. Whoever reaps the consumer settles what
is *done* as acknowledged, gives back what was only *held* without counting an attempt, and treats what was *begun*
as if there were no sheet.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple, Protocol

from dropr_core.contracts.inbox_records import Ack, Claim


class Consumers(Protocol):
    """Who consumes from a store, and who of them still lives; `storage_kit.consumers` for stores on a disk."""

    def register(self, label: str) -> str:
        """A new consumer, alive as long as this process (and not yet released). Returns its id."""
        ...

    def release(self, consumer: str) -> None:
        """It does not consume any more; safe twice."""
        ...

    def owns(self, consumer: str) -> bool:
        """Whether it was registered here and not yet released."""
        ...

    def lives(self, consumer: str) -> bool:
        """Whether the consumer's process lives (and has not released it)."""
        ...


class Mark(IntEnum):
    """How far a held message has come. The numbers are bytes in docs/formats/lease-sheets.md: four bits lie between any
    two, so that damage makes none into another.
    """

    FREE = 0x00
    HELD = 0x33
    BEGUN = 0x55
    DONE = 0x66


class Noted(NamedTuple):
    """What a sheet says of one lease; the other fields are those of its `Ack`, if it is done."""

    mark: Mark
    result: bytes | None = None
    content_type: str = ""
    keep: float = 0.0
    reason: str = ""


BEGUN = Noted(Mark.BEGUN)
"""What must be believed of a lease of which nothing is known."""
HELD = Noted(Mark.HELD)


class Left:
    """What a consumer's sheet says of its leases."""

    def __init__(
        self, lines: Mapping[tuple[bytes, int], Noted] = MappingProxyType({}), *, others: Noted = BEGUN
    ) -> None:
        """``lines``: by token and number of the message. ``others``: what holds for leases that it does not name."""
        self._lines, self._others = lines, others

    def of(self, token: bytes, number: int) -> Noted:
        """What it says of one lease."""
        return self._lines.get((token, number), self._others)

    @property
    def silent(self) -> bool:
        """Whether it says nothing at all: then every lease counts as begun."""
        return not self._lines and self._others is BEGUN


NOTHING_LEFT = Left()


class LeaseSheet(Protocol):
    """The sheet of a living consumer. Threads may share it; only `begin` and `done` go without the owner's lock.

    In a forked child, and after its consumer was released, every method raises Closed.
    """

    @property
    def room(self) -> int:
        """How many more lines it has."""
        ...

    def claiming(self, *, begins: bool) -> None:
        """A claim is about to be made; or its messages stand on the sheet now."""
        ...

    def hold(self, claims: Sequence[Claim], keep: Mapping[str, float]) -> list[int]:
        """Note claims, of which there is `room`, as held. Returns a line for each. ``keep``: channel → seconds for
        which a message of it is kept when it is done (`Ack.keep`).
        """
        ...

    def begin(self, line: int) -> None:
        """It is handed out: from now on it may have had effects."""
        ...

    def withdraw(self, line: int) -> None:
        """What was begun ends with this process, which is about to end, and counts as not begun."""
        ...

    def done(self, line: int) -> None:
        """It was handled; nothing goes home but that."""
        ...

    def done_with(self, line: int, ack: Ack) -> bool:
        """It was handled, and this is what is to be said. False: there is no room for it, and nothing was noted."""
        ...

    def free(self, lines: Sequence[int]) -> None:
        """What stood on these lines is settled."""
        ...


class Sheets(Protocol):
    """The lease sheets of the consumers of one store."""

    def sheet(self, consumer: str) -> LeaseSheet | None:
        """That of a consumer of this process; None where none can be had now (no room on the disk)."""
        ...

    def left_by(self, consumer: str) -> Left:
        """What stands on the sheet of a consumer, who is dead or held still by its own process. Never raises for what
        is there: a sheet that cannot be understood says nothing.
        """
        ...

    def abandon(self, consumer: str) -> None:
        """As `Consumers.release`, but its sheet stays, as after the death of its process; safe twice."""
        ...

    def tidy(self, holders: Callable[[], Collection[str]]) -> None:
        """Remove the sheets of the dead who hold no lease any more. ``holders``: the consumers that hold some; asked
        after it was seen who is dead: whoever dies later may leave leases, and a sheet that says what they are.
        """
        ...


__all__ = ["BEGUN", "HELD", "NOTHING_LEFT", "Consumers", "LeaseSheet", "Left", "Mark", "Noted", "Sheets"]
