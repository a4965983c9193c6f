"""What a link wants done: orders (what to ask the peer) and effects (what an answer means for the outbox).

Owns these values and nothing else: link.py makes them, the pusher carries them out.
"""

from collections.abc import Iterable

import attrs

from dropr_core.contracts.storage import Batch, Rejection
from dropr_core.model.limits import MAX_REJECTION, clip
from dropr_core.model.names import Head, Lane
from dropr_core.protocol.messages import PushResult

# ── orders: what to ask ──────────────────────────────────────────────────────────────────────────


@attrs.frozen
class Greet:
    """Open a session."""

    courtesy: bool = attrs.field(default=False, kw_only=True, eq=False)
    """Nothing but politeness is the reason for it: a failure counts for nothing."""


@attrs.frozen
class Probe:
    """Ask for the heads of these lanes (none: only a sign of life)."""

    lanes: tuple[Lane, ...]
    courtesy: bool = attrs.field(default=False, kw_only=True, eq=False)
    """As for a greeting."""


@attrs.frozen
class Ship:
    """Push what follows the heads of these lanes, at most so many deliveries of each."""

    lanes: tuple[tuple[Lane, int], ...]


@attrs.frozen
class Collect:
    """Ask for receipts by long poll."""


Order = Greet | Probe | Ship | Collect

# ── effects: what an answer means ────────────────────────────────────────────────────────────────


@attrs.frozen
class Settle:
    """The peer has committed up to ``head``."""

    lane: Lane
    head: Head
    rejected: tuple[Rejection, ...] = ()


@attrs.frozen
class Compare:
    """The peer's head is not the one expected: judge it against our log (log_matching.py)."""

    lane: Lane
    head: Head


@attrs.frozen
class ClearInFlight:
    """Nothing after the head of this lane reached the peer."""

    lane: Lane


@attrs.frozen
class DeadLetter:
    """One delivery fails alone while others are accepted: give it up."""

    lane: Lane
    sequence: int
    reason: str


@attrs.frozen
class PeerDown:
    """The peer stopped answering, or refuses us."""

    reason: str


@attrs.frozen
class PeerUp:
    """The peer answers again."""


Effect = Settle | Compare | ClearInFlight | DeadLetter | PeerDown | PeerUp


def rejections(batch: Batch, verdict: PushResult) -> Iterable[Rejection]:
    """What a verdict takes out of a batch."""
    for index, code, reason in verdict.rejected:
        # A verdict on what was never sent is ignored (docs/what-survives-what.md, fault 33).
        if 0 <= index < len(batch.entries):
            yield Rejection(batch.entries[index].sequence, clip(code, 64), clip(reason, MAX_REJECTION))
