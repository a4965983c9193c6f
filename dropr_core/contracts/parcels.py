"""The values that a gateway's dialect gives to its desk and gets from it.

Owns their shapes; what they mean is said with the methods of `desk.py`. Everybody imports them from `gateway`. Must not
know anything else.
"""

from collections.abc import Mapping
from typing import Protocol

import attrs

from dropr_core.model.message import State


class Upload(Protocol):
    """A large body on its way in (`Desk.upload`): on the disk, whatever its size, and gone if nobody puts it."""

    size: int
    """Bytes so far."""

    async def write(self, data: bytes) -> None:
        """The next piece. Raises TooBig, QueueFull (no room on the disk), WriteFailed."""
        ...


@attrs.frozen(kw_only=True)
class Parcel:
    """What a dialect puts. Headers that only one dialect understands are named ``x-DIALECT-name``."""

    channel: str
    body: bytes = attrs.field(repr=False)
    rank: int | None = None
    """Priority of 32 bits, 0 first, kept exactly among waiting messages; None: the channel's."""
    delay: float | None = None
    """Seconds before which no consumer gets it; None: the channel's."""
    expires_in: float | None = None
    headers: Mapping[str, str] = attrs.field(factory=dict)
    content_type: str = "application/octet-stream"
    key: str | None = None
    """Ordering key: of one key one message is handled at a time, in order."""
    dedup: str | None = None
    """The same text in the same channel is the same message: stored once."""
    large: Upload | None = None
    """Instead of ``body``."""
    to: str | None = None
    """The node whose queue it is for, this one or a peer, whatever the channel's route says: an answer to who asked."""
    receipt: bool = False
    """Whether `Desk.wait_receipt` will be asked for it."""


@attrs.frozen
class Placed:
    """Where a parcel is now, on stable storage."""

    id: str
    number: int
    """A job number of 63 bits, not 0: names the message on this node as long as it lives, also after a restart."""
    duplicate: bool = False
    """It was there already, by its dedup text."""
    local: bool = True
    """In this node's inbox; else in its outbox, for a channel with `to:`."""


@attrs.frozen(kw_only=True)
class Seen:
    """A message as it stands, whoever has it."""

    id: str
    number: int
    channel: str
    state: State
    body: bytes = attrs.field(repr=False)
    """Empty for a `Gateway.large` one if it is a file of its own."""
    headers: Mapping[str, str]
    content_type: str
    rank: int
    attempts: int
    age: float
    """Seconds."""
    due_in: float | None
    """Seconds until a delayed one is ready."""
    ends_in: float | None
    """Seconds until the lease ends by itself, if it is held in this process with a deadline."""
    sender: str
    reason: str
    """Why it failed or is buried; one line for each attempt."""
    size: int = 0
    """Bytes of the body."""


@attrs.frozen(kw_only=True)
class Counts:
    """One channel."""

    ready: int = 0
    urgent: int = 0
    """Of those ready, with a rank below 1024."""
    delayed: int = 0
    blocked: int = 0
    """Waiting for another one of their ordering key."""
    leased: int = 0
    buried: int = 0
    processed: int = 0
    """Ever."""
    outgoing: int = 0
    """In the outbox, on the way to peers."""
    bytes: int = 0
    oldest: float = 0.0
    """Seconds that the first ready one has waited."""
    paused: float | None = None
    """Seconds for which it still rests (infinity: until `Desk.resume`); None: not."""


@attrs.frozen(kw_only=True)
class Fate:
    """What became of a message that was put here."""

    state: State
    ended: bool
    reason: str = ""
    result: bytes | None = attrs.field(default=None, repr=False)
    result_type: str = ""


__all__ = ["Counts", "Fate", "Parcel", "Placed", "Seen", "Upload"]
