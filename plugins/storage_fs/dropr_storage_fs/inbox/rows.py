"""The shapes of what the inbox knows.

Owns values: a message with a state of its own, a lease of plain ones, a queue, and runs of numbers. No behaviour.
"""

from collections import Counter
from collections.abc import Sequence

import attrs

from dropr_core.model.message import State
from dropr_core.model.names import first_rank
from dropr_core.model.states import SETTLED
from dropr_storage_fs.files.ranges import Ranges
from dropr_storage_fs.files.segment import Place


@attrs.define(eq=False)
class JobRecord:
    """A message with a state of its own."""

    number: int
    queue: int
    id: bytes
    sender: str
    state: State
    flags: int
    size: int
    arrived: float
    key: str | None
    due: float
    expires: float | None
    at: Place
    attempts: int
    reasons: list[str]
    changed: float
    keep: float
    token: bytes
    consumer: str
    rank: int | None = None
    """None: the first one of the priority of its queue."""

    @property
    def live(self) -> bool:
        """Whether something is still to be done with it."""
        return self.state not in SETTLED

    @property
    def timer(self) -> float | None:
        """Node time at which `sweep` has something to do with it."""
        if not self.live:
            return self.changed + self.keep
        return None if self.state is State.LEASED else self.expires


@attrs.define(eq=False)
class Lease:
    """Plain messages of one queue that one claim gave to one consumer."""

    token: bytes
    consumer: str
    queue: int
    live: set[int]
    receipts: set[int]


@attrs.define(eq=False)
class Queue:
    """The messages of one channel with one priority."""

    number: int
    channel: str
    priority: int
    frontier: int = 0
    """Up to here nothing is simply ready."""
    taken: int = 0
    """How many were in the log and are not simply ready any more."""
    gone_bytes: int = 0
    voids: Ranges = attrs.field(factory=Ranges)
    """Numbers beyond the frontier that ended and are not in memory."""
    noted: int = 0
    """The last message with a state of its own that the journal knew from its arrival."""
    ready: list[int] = attrs.field(factory=list)
    tally: "Counter[State]" = attrs.field(factory=Counter)
    dead_bytes: int = 0
    leased: int = 0

    @property
    def first_rank(self) -> int:
        """The rank of its messages that have none of their own."""
        return first_rank(self.priority)


@attrs.define(eq=False)
class OutcomeRun:
    """Rows of outcome logs that stand in a file (``outcomes.<number>``), and not in memory."""

    number: int
    count: int
    senders: list[str]
    """In the order in which their rows stand."""
    last: dict[str, int] = attrs.field(factory=dict)
    """Sender → its last row there, as long as it has not got that."""


def pack_runs(numbers: Sequence[int]) -> list[int]:
    """Rising numbers as first, count, first, count …"""
    if numbers and numbers[-1] - numbers[0] + 1 == len(numbers):
        return [numbers[0], len(numbers)]
    runs: list[int] = []
    following = -1
    for number in numbers:
        if number == following:
            runs[-1] += 1
        else:
            runs += (number, 1)
        following = number + 1
    return runs


def unpack_runs(runs: Sequence[int]) -> set[int]:
    """The numbers again."""
    if len(runs) == 2:
        return set(range(runs[0], runs[0] + runs[1]))
    out: set[int] = set()
    for at in range(0, len(runs), 2):
        out.update(range(runs[at], runs[at] + runs[at + 1]))
    return out
