"""The sending half of a storage: a log for each lane, and its two tiers.

The first tier is what only a storage can do; its methods are abstract. The second is what can be said with the first,
over `scan` and `move`; it stands here once, and a storage overrides of it what must be faster. What a default costs is
said with each. See `storage.py` for the rules of every method. Must not know addresses, transports or bodies.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import attrs

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import (
    AppendResult,
    Batch,
    Delivery,
    DeliveryMove,
    LaneStats,
    NewMessage,
    PeerState,
    Rejection,
    Selection,
    Standing,
)
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import START, Head, Lane, MessageId, StoreId
from dropr_core.model.states import ENDED

PAGE = 1000
"""Rows that a default reads, and moves, at once."""
REDRIVABLE = frozenset({State.DEAD, State.FAILED, State.EXPIRED})
"""Ends after which a delivery may be sent again."""

Cursor = tuple[int, int]


class Outbox(ABC):
    """A log for each lane: appended by `send`, read by the daemon, settled by the peers' answers."""

    context: Context
    """What the storage was opened with; set by the storage."""
    staging: ClassVar[bool] = False
    """Whether `append_staged`, `staged` and `unstage` are there. Without them what a channel with ``durability:
    interval`` sends is on stable storage when `send` returns, as everywhere.
    """

    # ── first tier: what a storage must write ────────────────────────────────────────────────────

    @property
    @abstractmethod
    def store_id(self) -> StoreId:
        """The id under which peers know this half now; changes with `renumber`."""

    @abstractmethod
    def append(self, messages: Sequence[NewMessage]) -> Sequence[AppendResult]:
        """Store all messages or none, durably; give each delivery the next number of its lane.

        Calls of many threads share one flush. Raises Conflict, QueueFull (over a limit of the context: it says whose,
        see `storage_kit.limits.check_outbox`), StoreError.
        """

    @abstractmethod
    def lanes(self, peer: str | None = None) -> list[LaneStats]:
        """Every lane with queued deliveries (of one peer)."""

    @abstractmethod
    def take(self, lane: Lane, max_count: int, max_bytes: int, *, mark_in_flight: bool = True) -> Batch | None:
        """What follows the lane's head: at least one entry, then up to both limits; None if empty.

        With ``mark_in_flight``, the entries are marked as under way: until `settle`, `rewind` or `clear_in_flight`
        they cannot be cancelled. The mark is not durable; the entries are: a peer is going to promise them.
        """

    @abstractmethod
    def settle(self, lane: Lane, head: Head, rejected: Sequence[Rejection] = ()) -> None:
        """The peer has committed up to ``head``: those deliveries are accepted (rejected ones failed).

        May be repeated; a head behind the present one changes nothing. Ends every mark of `take`.
        """

    @abstractmethod
    def locate(self, lane: Lane, sequence: int) -> MessageId | None:
        """The id at a position: the lane's head and everything kept are known; else None."""

    @abstractmethod
    def rewind(self, lane: Lane, head: Head) -> int:
        """The peer lost what followed ``head``: kept and not ended deliveries after it are queued
        again, flagged ``possible_duplicate``, durably. Returns how many. ``head`` becomes the head.
        """

    @abstractmethod
    def renumber(self) -> StoreId:
        """This half was rolled back or cloned: take a new store id and number all queued deliveries
        of every lane anew from 1, flagged ``possible_duplicate``; accepted ones wait for their
        receipt outside of the log. Durable. Returns the new id.
        """

    @abstractmethod
    def receipts(self, peer: str, log: StoreId, outcomes: Sequence[Outcome], upto: int) -> list[MessageId]:
        """Record outcomes that came home and the cursor ``upto`` of the peer's log; durable.

        Ignored are unknown messages, and outcomes that were recorded before (their number is not above the cursor of
        this log): their delivery may have been sent again since. Returns the ids that ended by it, each once.
        """

    @abstractmethod
    def peers(self) -> Mapping[str, PeerState]:
        """Every peer that a delivery was ever sent to, or that is held."""

    @abstractmethod
    def hold(self, peer: str, reason: str | None) -> None:
        """Stop shipping to the peer; its deliveries show as held. None: ship again. Durable."""

    @abstractmethod
    def scan(self, selection: Selection, after: Cursor = (0, 0), limit: int = 100) -> list[tuple[Cursor, Delivery]]:
        """A page of deliveries and the cursor of each, in a stable order. Ids are looked up, not searched."""

    @abstractmethod
    def move(self, moves: Sequence[DeliveryMove]) -> list[bool]:
        """Move each delivery that stands as it is given (id, peer, place, state), in one durable transaction.

        False, and nothing changed, where it does not, where `states.DELIVERY` forbids the move, where one that is
        under way would be cancelled, or a live one forgotten. QUEUED puts it at the end of its lane with a new life,
        flagged ``possible_duplicate``, several in the order in which they were sent; without an envelope: False.
        """

    @abstractmethod
    def envelope(self, message_id: MessageId) -> bytes | None:
        """The stored bytes of a message, if still kept."""

    @abstractmethod
    def close(self) -> None:
        """Release everything; safe twice."""

    # ── second tier: what follows from it ────────────────────────────────────────────────────────

    def append_telling(self, messages: Sequence[NewMessage], seen: Callable[[], None]) -> Sequence[AppendResult]:
        """`append`; ``seen`` is called once, when `take` can give the messages. That may be before they are on stable
        storage, and even if this raises then; `take` waits for that. ``seen`` raises nothing.
        """
        placed = self.append(messages)
        seen()
        return placed

    def standing(self) -> Standing:
        """`lanes` and `peers` at once: the daemon looks at them with each message."""
        return Standing(self.lanes(), self.peers())

    def append_staged(self, messages: Sequence[NewMessage], log: str, after: int, upto: int) -> bool:
        """`append`, once: together with a note, in the same durable commit, that the staging log of this name is taken
        in up to a position.

        Nothing is stored (False) if the note says another position than ``after``; 0 where there is none. Optional:
        only with `staging`. Raises QueueFull, StoreError.
        """
        raise NotImplementedError

    def staged(self) -> Mapping[str, int]:
        """The notes: staging log → position. There are as many as processes that stage, and a few of the dead."""
        return {}

    def unstage(self, logs: Sequence[str]) -> None:
        """These logs are gone for good: forget the notes. Durable."""

    def clear_in_flight(self, lane: Lane) -> None:
        """It is certain that nothing after the head reached the peer. As cheap as `settle`."""
        self.settle(lane, START)

    def release(self, peer: str) -> None:
        """End `hold`."""
        self.hold(peer, None)

    def status(self, message_id: MessageId) -> list[Delivery]:
        """All that is known of a message's deliveries; empty if unknown or forgotten. Costs a look-up."""
        return list(self.all(Selection(ids=(message_id,))))

    def dead_letter(self, lane: Lane, sequence: int, reason: str) -> None:
        """Give one delivery up as dead; the lane goes on without it. Durable. Costs two look-ups."""
        found = self.locate(lane, sequence)
        for one in () if found is None else self.status(found):
            if (one.peer, one.channel, one.priority, one.sequence) == (*lane, sequence) and one.state in QUEUED:
                self.move([DeliveryMove(one, State.DEAD, reason)])

    def cancel(self, message_id: MessageId, peers: Sequence[str] | None = None) -> tuple[int, int]:
        """Cancel queued deliveries that are not under way. Returns (cancelled, too late). Durable. Costs a look-up."""
        found = [one for one in self.status(message_id) if peers is None or one.peer in peers]
        waiting = [one for one in found if one.state is not State.CANCELLED]
        moves = [DeliveryMove(one, State.CANCELLED, "cancelled") for one in waiting if one.state in QUEUED]
        done = sum(self.move(moves)) if moves else 0
        return done, len(waiting) - done

    def redrive(self, selection: Selection) -> int:
        """Send ended (dead, failed, expired) deliveries again, at the end of their lanes. Durable, all or none.

        Costs a scan of what ended, and holds what is meant in memory.
        """
        wanted = restrict(selection, REDRIVABLE)
        moves = [DeliveryMove(one, State.QUEUED) for one in self.all(wanted)] if wanted is not None else []
        return sum(self.move(moves)) if moves else 0

    def wipe(self, selection: Selection) -> int:
        """Forget ended deliveries (never live ones), page by page. Returns how many. Costs a scan of what ended."""
        wanted = restrict(selection, ENDED | {State.ACCEPTED})
        gone, moves = 0, list[DeliveryMove]()
        for one in self.all(wanted) if wanted is not None else ():
            if one.over:
                moves.append(DeliveryMove(one, None))
            if len(moves) == PAGE:
                gone, moves = gone + sum(self.move(moves)), []
        return gone + (sum(self.move(moves)) if moves else 0)

    def sweep(self, life: float) -> tuple[list[MessageId], float | None]:
        """End what is due: expired deliveries, and as dead those queued or awaiting a receipt for more
        than ``life`` seconds; forget ended records past their retention.

        Bounded work a call. Returns the ids that ended and the node time of the next thing due. The default costs a
        scan of everything.
        """
        now, due, moves = self.context.clock.now(), math.inf, list[DeliveryMove]()
        for one in self.all(Selection()):
            expires = one.until if one.until is not None and (one.over or one.state in QUEUED) else math.inf
            dies = math.inf if one.over else one.sent + life
            if min(expires, dies) > now or len(moves) >= PAGE:
                due = min(due, expires, dies)
            elif one.over:
                moves.append(DeliveryMove(one, None))
            elif expires <= now:
                moves.append(DeliveryMove(one, State.EXPIRED, "expired before the peer had it"))
            else:
                waited = "not delivered" if one.state in QUEUED else "no receipt came"
                moves.append(DeliveryMove(one, State.DEAD, f"{waited} within {life:g} s"))
        done = self.move(moves) if moves else []
        ended = [move.delivery.id for move, moved in zip(moves, done, strict=True) if moved and move.to is not None]
        if ended:
            due = min(due, now + self.context.remember)
        if not all(done):
            due = now  # somebody was faster: look again
        return ended, None if due == math.inf else due

    def counts(self) -> Mapping[tuple[str, str], Mapping[str, int]]:
        """(peer, channel) → state → number, and what `totals` tells. The default costs a scan of everything."""
        out: dict[tuple[str, str], dict[str, int]] = {at: {"sent": n} for at, n in self.totals().items()}
        for one in self.all(Selection()):
            mine = out.setdefault((one.peer, one.channel), {})
            mine[one.state.value] = mine.get(one.state.value, 0) + 1
        return out

    def totals(self) -> Mapping[tuple[str, str], int]:
        """(peer, channel) → deliveries ever sent. Optional: nothing is told by default."""
        return {}

    def all(self, selection: Selection) -> Iterator[Delivery]:
        """Every delivery that a selection means, page by page."""
        after: Cursor = (0, 0)
        while page := self.scan(selection, after, PAGE):
            yield from (delivery for _, delivery in page)
            after = page[-1][0]
            if len(page) < PAGE:
                return


QUEUED = frozenset({State.QUEUED, State.HELD})
"""How a delivery shows that waits to be shipped."""


def restrict(selection: Selection, states: frozenset[State]) -> Selection | None:
    """The selection among deliveries or messages in these states alone; None: it means none of them."""
    wanted = selection.states & states if selection.states else states
    return attrs.evolve(selection, states=wanted) if wanted else None


__all__ = ["PAGE", "QUEUED", "REDRIVABLE", "Cursor", "Outbox", "restrict"]
