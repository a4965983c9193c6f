"""What pushes to all peers together may cost in memory.

Owns the bytes of pushes that are under way, over all peers, and how many the next one may have. Must not know lanes,
stores or the wire.

A daemon reads a push of up to 4 MiB for each of four that a peer may have under way; with a thousand peers that have a
backlog this would be sixteen gigabytes. So the room is shared: the next push gets a quarter of what is free, and
thereby no peer, however slow, takes all that the others need. Where next to nothing is left a peer still gets a small
one, if it has none under way: neither a dead peer nor a thousand slow ones stop another.
"""

import attrs

ALL_PUSHES = 64 << 20
"""Bytes of messages in pushes under way to all peers together, but for the small one that each may have."""
SMALL = 64 << 10
"""Bytes that a peer without a push under way gets in any case."""


@attrs.define
class PushBudget:
    """The room for pushes, shared by the pushers of one daemon. Used by its one thread."""

    under_way: int = 0

    def room(self, mine: int) -> int:
        """Bytes that the next push of a peer may have, which has ``mine`` under way; 0: it waits for an answer."""
        quarter = (ALL_PUSHES - self.under_way) // 4
        if quarter >= SMALL:
            return quarter
        return 0 if mine else SMALL


__all__ = ["ALL_PUSHES", "SMALL", "PushBudget"]
