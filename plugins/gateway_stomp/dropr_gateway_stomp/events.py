"""What a session tells its door that the client wants.

Owns the shapes. ``ticket`` is whatever the door gave to `Session.deliver`. Knows no frame's syntax and no dropr.
"""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import attrs

Ticket = TypeVar("Ticket")


@attrs.frozen
class Connect:
    """The client introduces itself; answer with `Session.accept` or `Session.error`."""

    login: str
    passcode: str
    headers: Mapping[str, str]


@attrs.frozen
class Send:
    """A message. ``headers`` are all of the frame's."""

    destination: str
    headers: Mapping[str, str]
    body: bytes


@attrs.frozen
class Subscribe:
    """A new subscription, known to the session already."""

    id: str
    destination: str
    ack: str
    """auto, client or client-individual."""
    prefetch: int
    selector: str
    headers: Mapping[str, str]


@attrs.frozen
class Unsubscribe(Generic[Ticket]):
    """The subscription is over; ``unsettled`` was delivered and not settled, the oldest first."""

    id: str
    destination: str
    headers: Mapping[str, str]
    unsettled: Sequence[Ticket]


@attrs.frozen
class Settle(Generic[Ticket]):
    """ACK (``good``) or NACK of one delivery, or of all up to it, the oldest first."""

    good: bool
    tickets: Sequence[Ticket]
    headers: Mapping[str, str]


@attrs.frozen
class Commit(Generic[Ticket]):
    """A transaction: everything in it shall happen now, together."""

    sends: Sequence[Send]
    settles: Sequence[Settle[Ticket]]


@attrs.frozen
class Disconnect:
    """The client leaves in good order; after its receipt the connection ends."""


@attrs.frozen
class Nothing:
    """A frame that is dealt with already (BEGIN, ABORT, one that waits in a transaction), but for its receipt."""


@attrs.frozen
class Event(Generic[Ticket]):
    """What one frame wants, and the receipt that it asked for."""

    what: (
        Connect | Send | Subscribe | Unsubscribe[Ticket] | Settle[Ticket] | Commit[Ticket] | Disconnect | Nothing
    )  # fmt: skip
    receipt: str | None = None
