"""The sender's half of the log-matching rule: what a receiver's head means for this log.

Pure; owns one decision and nothing else. The rule is that of replicated logs (Raft, section 5.3:
"if two logs contain an entry with the same index and term, the logs are identical up to it"),
with message ids in the place of terms.
"""

import enum

from dropr_core.model.names import START, Head, MessageId


class HeadRelation(enum.Enum):
    """What to do about a lane, given its receiver's head."""

    SAME = "same"
    """The receiver stands where we knew it to stand: go on from there."""
    AHEAD = "ahead"
    """It has committed more than we knew (a lost answer): settle up to its head."""
    LOST = "lost"
    """It was wiped or restored: it has less than it once had. Rewind to its head."""
    FOREIGN = "foreign"
    """Its head is not in our log: this store was rolled back or cloned. Take a new identity."""


def compare_heads(theirs: Head, ours: Head, last: int, located: MessageId | None) -> HeadRelation:
    """Compare the receiver's head with our log.

    ``ours``: the head as we know it; ``last``: the last number given in the lane; ``located``: the
    id that our log has at ``theirs.sequence`` (None: no longer or never known).
    """
    if theirs == ours:
        return HeadRelation.SAME
    if theirs.sequence > last:
        return HeadRelation.FOREIGN
    if theirs == START:
        return HeadRelation.LOST
    if located is None:
        # Behind our head everything was settled with this peer once, so it is a restored receiver.
        # After it, a position that we cannot vouch for could hide a clone's message: be safe.
        return HeadRelation.LOST if theirs.sequence < ours.sequence else HeadRelation.FOREIGN
    if located != theirs.id:
        return HeadRelation.FOREIGN
    return HeadRelation.LOST if theirs.sequence < ours.sequence else HeadRelation.AHEAD
