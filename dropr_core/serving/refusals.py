"""What the log says of callers that are refused at the door: enough to mend a mistake, too little to fill a disk.

Owns the words for each reason; how often they are said is decided in system/line_rate.py. Must not know how a caller
is judged.
"""

import logging
from collections.abc import Mapping

from dropr_core.contracts.transport import Caller
from dropr_core.errors import Refused
from dropr_core.system.clock import Clock
from dropr_core.system.line_rate import LineRate, besides
from dropr_core.system.log_fields import about

ADVICE = {
    "unknown_peer": "if it may come in, name it under peers: with the pair's key; it must call this node by its name",
    "bad_signature": "compare the key of the pair on both sides (peers: NAME: key:)",
    "bad_invitation": "`dropr invite --list` shows whom this node invited; `dropr invite NAME` makes a new invitation",
    "version": "messages wait at their sender until then",
    "too_big": "its node may send larger batches than limits: here allow",
}
"""What a person can do about it; the other codes are told without."""


def tell_version(log: logging.Logger, details: Mapping[str, object]) -> None:
    """A line where a peer has another version of dropr than can be understood here, and one when that is over."""
    peer, channel, reason = str(details["peer"]), str(details["channel"]), details["reason"]
    where = f"{peer}, channel {channel}" if channel else peer
    if reason:
        log.warning("%s: another version of dropr: %s", where, reason, extra=about(peer=peer))
    else:
        log.info("%s: the versions of dropr go together again", where, extra=about(peer=peer))


class RefusalLog:
    """Counts refusals and says some. Safe from many threads."""

    def __init__(self, log: logging.Logger, clock: Clock) -> None:
        self._log, self._rate = log, LineRate(clock)

    def note(self, refusal: Refused, caller: Caller) -> None:
        """A caller was refused."""
        more = self._rate.note(refusal.code)
        if more is None:
            return
        advice = f"; {ADVICE[refusal.code]}" if refusal.code in ADVICE else ""
        self._log.warning("refused a caller at %s: %s%s%s", caller.address, refusal.reason, besides(more), advice,
                          extra=about(caller=caller.address))  # fmt: skip
