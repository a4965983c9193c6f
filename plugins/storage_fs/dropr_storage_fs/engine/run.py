"""The shapes of what is remembered in files, and not in memory: a run, and what is counted of it.

Owns values. Must not know what the records of a run mean, nor their bytes.
"""

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import attrs
import msgspec

from dropr_core.model.message import State

K = TypeVar("K")
NO_BODY = -1
"""The segment of a record whose body is not kept."""
HOLES_LEAST = 4096
"""So many records that are gone are no reason to write a run anew."""


class Row(NamedTuple):
    """What is counted of one record."""

    log: int
    state: State
    size: int
    """Of its envelope."""
    segment: int
    """Where its body is kept, or `NO_BODY`."""


class Counts(msgspec.Struct, array_like=True, gc=False):
    """What is counted of some records together."""

    states: list[tuple[int, State, int, int]] = []
    """(log, state, records, bytes of their envelopes)."""
    bodies: list[tuple[int, int, int, int]] = []
    """(log, segment, records whose bodies are kept there, bytes of their envelopes)."""


@attrs.define(eq=False)
class Amount:
    """How many, and bytes."""

    count: int = 0
    size: int = 0


class Tally:
    """What is counted of the records of a run that are still remembered."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.states: dict[tuple[int, State], Amount] = {}
        self.bodies: dict[tuple[int, int], Amount] = {}
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """One more."""
        log, state, size, segment = row
        amount = self.states.get((log, state))
        if amount is None:
            amount = self.states[log, state] = Amount()
        amount.count += 1
        amount.size += size
        if segment != NO_BODY:
            _add(self.bodies, (log, segment), 1, size)

    def change(self, counts: Counts, by: int) -> None:
        """Add (1) or take away (-1)."""
        for log, state, count, size in counts.states:
            _add(self.states, (log, state), by * count, by * size)
        for log, segment, count, size in counts.bodies:
            _add(self.bodies, (log, segment), by * count, by * size)

    def counts(self) -> Counts:
        """As it is written down."""
        return Counts(
            [(*key, amount.count, amount.size) for key, amount in self.states.items()],
            [(*key, amount.count, amount.size) for key, amount in self.bodies.items()],
        )


def _add(amounts: dict[K, Amount], key: K, count: int, size: int) -> None:
    amount = amounts.get(key)  # no new one for each of the many that are counted together
    if amount is None:
        amount = amounts[key] = Amount()
    amount.count += count
    amount.size += size
    if amount.count <= 0:
        del amounts[key]


@attrs.define(eq=False)
class Run:
    """Records that are remembered in a file, by the number of that file."""

    number: int
    count: int
    """Records in the file."""
    until: float
    """Node time from which nothing of it is remembered."""
    past: float = 0.0
    """What was remembered until then, or less, is counted out."""
    tally: Tally = attrs.field(factory=Tally)
    gone: set[int] = attrs.field(factory=set)
    """Keys of those that were forgotten by hand since, or that something happened to."""

    def full_of_holes(self) -> bool:
        """Whether so much of it is gone that it should be written anew."""
        return len(self.gone) > max(HOLES_LEAST, self.count // 4)
