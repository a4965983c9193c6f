"""What a refusal says about the peer, and how long nobody asks it again.

Owns these words and seconds, which both directions of the protocol share. Must not know links, lanes or what is asked.
"""

import math

from dropr_core.errors import Refused

MISCONFIGURED = frozenset({
    "unauthorized", "unknown_peer", "bad_signature", "not_allowed", "redirect", "not_dropr", "version",
})  # fmt: skip
"""Refusals that only a person can end: rest at the cap, no message dies (what-survives-what.md, faults 37, 38)."""

ABOUT_CONTENT = frozenset({"bad_request", "too_big", "bad_frame"})
"""Refusals that one delivery of a push may have caused: bisect without rest (what-survives-what.md, faults 35, 36)."""

GENTLY = 1.0
"""Seconds at least between two long polls for receipts, where the first one brought nothing and did not wait."""

BUSY = 1.8
"""Seconds of the longest rest from a peer that answers, but whose store is in trouble: what waits shall flow soon after
it works again."""

LATE = 600.0
"""Seconds of the rest from a peer that is down while nothing waits but receipts of what has failed: they come only if
somebody over there kicks a message. It says when it is there again, and with the next mail it is asked as any other."""

NEW_SESSION = "new_session"
"""A refusal: the peer does not know the session of this request (any more), and wants to be greeted."""

OLD_SESSION = "old_session"
"""The same of a request that was asked before the last greeting: it is asked again, and nobody greets. Not on the
wire: `PeerClient` says it."""

GREETINGS = 3
"""Sessions in a row that a peer may forget before it has answered anything; then it rests like one that fails."""


def longest_rest(error: Exception) -> float:
    """Seconds that a peer which failed so may rest at most."""
    return BUSY if isinstance(error, Refused) and error.signed and error.code == "busy" else math.inf
