"""The values that go into an inbox and come out of it.

Owns their shapes, and whether arrivals follow the heads that are kept; what they mean is said with the methods of
`inbox.py`. Everybody imports them from `records` or `storage`. Must not know anything else.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple, overload

import attrs

from dropr_core.model.message import State
from dropr_core.model.names import Head, MessageId, SourceLane


class Arrival(NamedTuple):
    """One lane's part of a push as it reaches the inbox."""

    source: SourceLane
    after: Head
    upto: Head
    entries: Sequence["Job"]


class Job(NamedTuple):
    """One message on its way into the inbox."""

    id: MessageId
    envelope: bytes
    sequence: int = 0
    key: str | None = None
    receipt: bool = False
    due_in: float | None = None
    """Seconds until it may be leased; None or not above 0: now."""
    expires_in: float | None = None
    """Seconds until it expires unleased."""
    possible_duplicate: bool = False
    rank: int | None = None
    """Its order within its priority (`names.priority_of_rank`); None: the first of its priority."""


class Put(NamedTuple):
    """Messages of one sender for one channel and priority, on their way into the inbox without a lane."""

    channel: str
    priority: int
    sender: str
    jobs: Sequence[Job]


class PlainJobs(Sequence[Job]):
    """Jobs of which there is nothing to say but their ids and envelopes, whether they all want a receipt, and the rank
    that all have; each is made when it is looked at. What storages that write many at once are glad to get. Nobody may
    change the lists.
    """

    __slots__ = ("envelopes", "ids", "rank", "receipt")

    def __init__(
        self, ids: list[bytes], envelopes: list[bytes], *, receipt: bool = False, rank: int | None = None
    ) -> None:
        self.ids, self.envelopes, self.receipt, self.rank = ids, envelopes, receipt, rank

    def __len__(self) -> int:
        return len(self.envelopes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, at: int) -> Job: ...

    @overload
    def __getitem__(self, at: slice) -> "PlainJobs": ...

    def __getitem__(self, at: Any) -> "Job | PlainJobs":
        if isinstance(at, slice):
            return PlainJobs(self.ids[at], self.envelopes[at], receipt=self.receipt, rank=self.rank)
        return Job(MessageId(self.ids[at]), self.envelopes[at], receipt=self.receipt, rank=self.rank)

    def __iter__(self) -> Iterator[Job]:
        columns = zip(self.ids, self.envelopes, repeat(0), repeat(None), repeat(self.receipt), repeat(None),
                      repeat(None), repeat(False), repeat(self.rank))  # fmt: skip
        return map(tuple.__new__, repeat(Job), columns)


class Accepted(NamedTuple):
    """The inbox's word on one Arrival: its head after the call, and whether the arrival was taken."""

    head: Head
    taken: bool


class Claim(NamedTuple):
    """A leased message. ``token`` proves the lease."""

    token: bytes
    number: int
    """Which message of this inbox it is: a job number of 63 bits, the same for the whole life of the message here."""
    id: MessageId
    channel: str
    priority: int
    sender: str
    envelope: bytes
    attempt: int
    """1 on the first lease; counted when the lease is given."""
    possible_duplicate: bool
    arrived: float
    """Node time at which it entered this queue."""
    rank: int = -1
    """Its order within its priority: the first one of it, if nothing else was said."""


class Ack(NamedTuple):
    """Done, with an optional result for the receipt."""

    claim: Claim
    result: bytes | None = None
    content_type: str = ""
    keep: float = 0.0
    """Seconds for which the done message stays readable (the channel's retention)."""
    reason: str = ""
    """What the receipt says besides, such as why it has no result."""


class Release(NamedTuple):
    """Back to the queue after ``delay`` seconds."""

    claim: Claim
    delay: float = 0.0
    reason: str = ""
    counted: bool = True
    """False: the attempt does not count (drain, abandoned iterator)."""
    rank: int | None = None
    """Its rank from now on, and with it its priority; None: as before."""


class Bury(NamedTuple):
    """Into the dead-letter list; a sender that asked learns that it failed."""

    claim: Claim
    reason: str = ""
    rank: int | None = None
    """As with `Release`: where it stands when it is kicked."""


Settlement = Ack | Release | Bury


@attrs.frozen
class JobInfo:
    """One message of the inbox as `list` and `show` see it."""

    number: int
    """Which message of this inbox it is (`Claim.number`); `Inbox.find` looks it up."""
    id: MessageId
    sender: str
    channel: str
    priority: int
    state: State
    age: float
    """Seconds since it arrived (once done or buried: since then)."""
    size: int
    attempts: int
    reason: str = ""
    """The last error, one line each attempt, newest last."""
    consumer: str = ""
    due_in: float | None = None
    possible_duplicate: bool = False
    token: bytes = b""
    """What proves its lease, while it is leased."""
    until: float | None = None
    """Node time at which `sweep` lets it expire or, once it has ended, forgets it; None: never."""
    rank: int = -1
    """As `Claim.rank`."""


class JobMove(NamedTuple):
    """One state move in an inbox."""

    job: JobInfo
    """As `scan` gave it; the move is made only if it stands so still (same state, same lease)."""
    to: State | None
    """READY (BLOCKED, if its ordering key is busy), BURIED, EXPIRED. None: it is removed."""
    reason: str = ""
    """One more line of its history of errors, and what its sender is told."""
    attempts: int | None = None
    """What is counted from now on; None: as before."""


def refusal(arrivals: Sequence[Arrival], kept: Callable[[SourceLane], Head]) -> list[Accepted] | None:
    """The answer of `accept_together` where one arrival does not follow the head that is kept, or the arrival of its
    lane before it: none is taken. None: each follows.
    """
    heads = {source: kept(source) for source in {arrival.source for arrival in arrivals}}
    coming = dict(heads)
    for arrival in arrivals:
        if coming[arrival.source] != arrival.after:
            return [Accepted(heads[one.source], False) for one in arrivals]
        coming[arrival.source] = arrival.upto
    return None
