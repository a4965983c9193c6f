"""What a peer has lost that is in no lane, so that no head tells of it.

What was accepted before this store took new numbers waits for its receipt outside of the log. The id of the peer's
store tells that it is lost: it is noted with the receipts, and when another one comes, such deliveries are looked for
and sent again, flagged. Owns that search, a page at a time, for there may be millions; until it is over nothing of the
new store's receipts may be noted, or a restart would not know that there was anything to look for. Must not know how
the id travelled.
"""

import threading

import attrs

from dropr_core.contracts.storage import Delivery, DeliveryMove, Outbox, Selection
from dropr_core.model.message import State
from dropr_core.model.names import StoreId
from dropr_core.protocol.reconcile import HOLD, Event

PAGE = 1000
"""Deliveries that are looked at in one step."""
LOST = "the peer lost it with its store after this store had taken new numbers; it is sent again"

_BEGINNING = (0, 0)


class OutsideSearch:
    """For one peer. Safe for threads."""

    def __init__(self, outbox: Outbox, peer: str, *, on_reset: str, event: Event) -> None:
        """``on_reset``: ``resend`` or ``hold`` when the peer lost messages."""
        self._outbox, self._peer, self._on_reset, self._event = outbox, peer, on_reset, event
        self._lock = threading.Lock()
        self._log: StoreId | None = None
        self._wanted: list[Selection] = []
        """What is left to look through."""
        self._after, self._found, self._again = _BEGINNING, False, 0

    @property
    def log(self) -> StoreId | None:
        """The peer's new log while a search is under way."""
        return self._log

    def is_over(self, known: bytes, log: StoreId) -> bool:
        """Whether what the peer tells of this log may be noted, where ``known`` was noted before (empty: none). If not
        a step of the search was taken, and it is to be asked again. Raises StoreError.
        """
        if known in {b"", log}:
            return True
        with self._lock:
            if self._log != log:
                self._begin(log)
            if self._step():
                return False
            self._log = None
            if self._found:
                told = {"lane": "", "peer": self._peer, "theirs": "", "ours": "", "again": self._again}
                self._event("peer_reset", told)
            return True

    def _begin(self, log: StoreId) -> None:
        self._wanted = [Selection(states=frozenset({State.ACCEPTED}), peer=self._peer, live=True)]
        if any(states.get("dead") for (peer, _), states in self._outbox.counts().items() if peer == self._peer):
            # Of a search that was killed between its two moves. All that has ended is read for them.
            self._wanted.append(Selection(states=frozenset({State.DEAD}), peer=self._peer))
        self._log, self._after, self._found, self._again = log, _BEGINNING, False, 0

    def _step(self) -> bool:
        """Whether there is more."""
        page = self._outbox.scan(self._wanted[0], self._after, PAGE)
        lost = [one for _, one in page if one.state is State.ACCEPTED and one.receipt and one.sequence < 1]
        dead = [one for _, one in page if one.state is State.DEAD and one.reason == LOST]
        self._found = self._found or bool(lost or dead)
        if self._found and self._on_reset == "hold":
            self._outbox.hold(self._peer, HOLD)
            return False
        self._again += self._resend(lost, dead)
        if len(page) == PAGE:
            self._after = page[-1][0]
        else:
            self._after = _BEGINNING
            del self._wanted[0]
        return bool(self._wanted)

    def _resend(self, lost: list[Delivery], dead: list[Delivery]) -> int:
        if lost:
            self._outbox.move([DeliveryMove(one, State.DEAD, LOST) for one in lost])
        both = [*dead, *(attrs.evolve(one, state=State.DEAD) for one in lost)]
        return sum(self._outbox.move([DeliveryMove(one, State.QUEUED) for one in both])) if both else 0


class OutsideSearches:
    """For peers that tell of their receipts by themselves, each with a request. Safe for threads."""

    def __init__(self, outbox: Outbox, *, on_reset: str, event: Event) -> None:
        self._outbox, self._on_reset, self._event = outbox, on_reset, event
        self._searches: dict[str, OutsideSearch] = {}

    def are_over(self, peer: str, log: StoreId) -> bool:
        """`OutsideSearch.is_over` of a peer. Raises StoreError."""
        state = self._outbox.peers().get(peer)
        if state is None or state.log in {None, log}:
            self._searches.pop(peer, None)
            return True
        fresh = OutsideSearch(self._outbox, peer, on_reset=self._on_reset, event=self._event)
        return self._searches.setdefault(peer, fresh).is_over(state.log or b"", log)


__all__ = ["LOST", "PAGE", "OutsideSearch", "OutsideSearches"]
