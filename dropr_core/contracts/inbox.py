"""The receiving half of a storage: a work queue for each channel, and its two tiers.

The first tier is what only a storage can do; its methods are abstract. The second is what can be said with the first,
over `scan` and `move`; it stands here once, and a storage overrides of it what must be faster. What a default costs is
said with each. See `storage.py` for the rules of every method. Must not know senders' addresses, frames or handlers.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

from dropr_core.contracts.context import Context
from dropr_core.contracts.inbox_records import refusal
from dropr_core.contracts.lease_sheets import NOTHING_LEFT, Consumers, Left, Mark, Noted, Sheets
from dropr_core.contracts.outbox import PAGE, restrict
from dropr_core.contracts.records import (
    Accepted,
    Ack,
    Arrival,
    Claim,
    Job,
    JobInfo,
    JobMove,
    Put,
    Selection,
    Settlement,
)
from dropr_core.model.limits import RECEIPTS_BYTES
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import NOT_URGENT, START, Head, MessageId, SourceLane, StoreId
from dropr_core.model.states import SETTLED

ATTEMPTS = 10
"""After how many attempts a message is buried, where its channel does not say."""


class Inbox(ABC):
    """A work queue for each channel: filled by the endpoint, emptied by consumers."""

    checked: ClassVar[bool] = False
    """Whether `claim` has compared every envelope that it gives with a checksum of the storage's own, and gives an
    empty one where it could not: then nobody looks at the envelope's once more."""

    context: Context
    """What the storage was opened with; set by the storage."""
    consumers: Consumers
    """Those of this store; set by the storage."""
    sheets: Sheets | None = None
    """Their lease sheets, if the storage reads them in `reap` and `retire`, as the defaults do; set by the storage. For
    them a token has 27 bytes at most. Without: messages are taken one by one, each settled at once.
    """
    flush_interval: float = 0.02
    """Seconds after which a power cut does not undo a settlement any more."""

    # ── first tier: what a storage must write ────────────────────────────────────────────────────

    @property
    @abstractmethod
    def store_id(self) -> StoreId:
        """Names this half and its outcome logs."""

    @abstractmethod
    def heads(self, sender: str, store: StoreId | None = None) -> dict[SourceLane, Head]:
        """Every head known for a sender (and one of its store ids)."""

    @abstractmethod
    def accept(self, arrivals: Sequence[Arrival]) -> list[Accepted]:
        """The log-matching rule, all arrivals in one durable transaction.

        An arrival is taken only if its ``after`` equals the head kept for its source (START where
        none is kept); then its jobs are queued, with `names.priority_of` the source's priority, and
        ``upto`` becomes the head. Else nothing of it is
        stored, and the answer names the head kept. Raises QueueFull when there is no room.

        A job flagged ``possible_duplicate`` that stands here already (same id and envelope; live, or done
        and kept) is not queued once more. A buried or expired copy does not count: its sender was told
        that it failed, and sends it again on purpose.
        """

    @abstractmethod
    def put(self, channel: str, priority: int, sender: str, jobs: Sequence[Job]) -> Sequence[int]:
        """Queue jobs that come from this node itself; durable. Returns the number of each.

        A job with a rank goes among those of its priority (`names.priority_of_rank`). For one that is flagged
        ``possible_duplicate`` and stands here already (see `accept`): the number of that one.
        """

    @abstractmethod
    def claim(self, channels: Sequence[str], limit: int, consumer: str) -> list[Claim]:
        """Lease up to ``limit`` messages, by priority, then by rank, then by arrival. Moves due delayed ones first.

        Counts the attempt. Never gives two messages of one ordering key at once. Raises Closed for a consumer that
        is none of this process.
        """

    @abstractmethod
    def claim_number(self, number: int, consumer: str) -> Claim | None:
        """Lease one given message, if it is ready, delayed (it need not be due) or buried (with fresh attempts, as by
        `kick`) and no other of its ordering key stands before it; else None. Counts the attempt. Raises Closed as
        `claim`.
        """

    @abstractmethod
    def settle(self, changes: Sequence[Settlement]) -> list[bool]:
        """Apply each change whose lease still holds (True); the others change nothing (False). With a new rank a
        message goes among those of its priority.
        """

    @abstractmethod
    def outcomes(
        self, sender: str, log: StoreId | None, after: int, limit: int, max_bytes: int = RECEIPTS_BYTES
    ) -> tuple[StoreId, list[Outcome]]:
        """The outcome log of a sender after number ``after`` (from its beginning, if ``log`` is not ours): one row at
        least, then up to both limits (`message.first_page`). A result has up to 64 KiB: nothing is read to be cut off.

        What is returned is on stable storage. Rows up to ``after`` of our own log are forgotten:
        the sender says with it that it has them durably. A number that our log never reached tells
        that this half was restored from a backup: it takes a new store id, durably, and returns all.
        """

    @abstractmethod
    def scan(self, selection: Selection, after: int = 0, limit: int = 100) -> list[JobInfo]:
        """A page of messages in order of arrival; the last one's ``number`` is the next cursor. Ids are looked up."""

    @abstractmethod
    def move(self, moves: Sequence[JobMove]) -> list[bool]:
        """Move each message that stands as it is given (number, state, lease), in one durable transaction.

        False, and nothing changed, where it does not, where `states.JOB` forbids the move, or where one that has not
        ended would be removed. What is buried or expires frees its ordering key and tells a sender that asked.
        """

    @abstractmethod
    def envelope(self, message_id: MessageId) -> bytes | None:
        """The stored bytes of a message, if still kept."""

    @abstractmethod
    def close(self) -> None:
        """Release everything; safe twice."""

    # ── second tier: what follows from it ────────────────────────────────────────────────────────

    def register(self, label: str = "") -> str:
        """A new consumer, alive as long as this process (and not yet retired). Returns its id."""
        return self.consumers.register(label)

    def retire(self, consumer: str) -> None:
        """The consumer is gone: its leases end, their attempts not counted, but for those that its lease sheet has as
        done: they are acknowledged. Safe twice. If this fails its sheet stays for `reap`. Costs a scan of the leases.
        """
        if self.consumers.owns(consumer):
            try:
                mine = [one for one in self.all(LEASES) if one.consumer == consumer]
                mine = self._settle_done(mine, {consumer: self._left_by(consumer)}) if mine else []
                if mine:
                    self.move([JobMove(one, State.READY, attempts=one.attempts - 1) for one in mine])
            except BaseException:
                if self.sheets is not None:
                    self.sheets.abandon(consumer)
                raise
            finally:
                self.consumers.release(consumer)

    def reap(self, attempts: Mapping[str, int]) -> tuple[list[str], bool]:
        """End the leases of consumers whose process died. What such a consumer's lease sheet has as done is
        acknowledged (`Noted` has the rest of its `Ack`); what it only held is ready again as if it had never been
        leased. Of the others, a message that has used up its channel's attempts (``attempts``, default 10) is buried,
        the rest is ready again. Who is dead is found out before its sheet is read, and the sheet goes after its leases.

        Returns at least the channels that have ready messages by it, and whether leases of other living
        consumers remain (so that somebody must look again). The default costs a scan of the leases.
        """
        leased = list(self.all(LEASES))
        living = {name for name in {one.consumer for one in leased} if self.consumers.lives(name)}
        dead = [one for one in leased if one.consumer not in living]
        left = {name: self._left_by(name) for name in {one.consumer for one in dead}}
        channels = {one.channel for one in dead}
        moves = []
        for one in self._settle_done(dead, left):
            if left[one.consumer].of(one.token, one.number).mark is Mark.HELD:
                moves.append(JobMove(one, State.READY, attempts=one.attempts - 1))
                continue
            last = one.attempts >= attempts.get(one.channel, ATTEMPTS)
            reason = f"attempt {one.attempts}: the process of its consumer died"
            moves.append(JobMove(one, State.BURIED if last else State.READY, reason))
        done = self.move(moves) if moves else []
        freed = {move.job.channel for move, moved in zip(moves, done, strict=True) if moved and move.to is State.READY}
        for channel in channels - freed:  # what was buried or is done may have freed a key
            if self.scan(Selection(states=frozenset({State.READY}), channel=channel), limit=1):
                freed.add(channel)
        if dead and self.sheets is not None:
            self.sheets.tidy(lambda: {one.consumer for one in self.all(LEASES)})
        return sorted(freed), bool(living)

    def _left_by(self, consumer: str) -> Left:
        return NOTHING_LEFT if self.sheets is None else self.sheets.left_by(consumer)

    def _settle_done(self, leased: Sequence[JobInfo], left: Mapping[str, Left]) -> list[JobInfo]:
        """Acknowledge what sheets have as done, the lease of each still being that one; the others are returned."""
        rest, acks = list[JobInfo](), list[Ack]()
        for one in leased:
            noted = left[one.consumer].of(one.token, one.number)
            if noted.mark is Mark.DONE:
                acks.append(self._ack_of(one, noted))
            else:
                rest.append(one)
        if acks:
            self.settle(acks)
        return rest

    def _ack_of(self, one: JobInfo, noted: Noted) -> Ack:
        claim = Claim(
            one.token, one.number, one.id, one.channel, one.priority, one.sender, self.envelope(one.id) or b"",
            one.attempts, one.possible_duplicate, self.context.clock.now() - one.age, one.rank,
        )  # fmt: skip
        return Ack(claim, noted.result, noted.content_type, noted.keep, noted.reason)

    def accept_telling(self, arrivals: Sequence[Arrival], seen: Callable[[Sequence[Accepted]], None]) -> list[Accepted]:
        """`accept`; ``seen`` is called once with what it is going to return, when consumers can see the jobs. That may
        be before anything is on stable storage, and even if this raises then: a storage may do so of which nothing but
        `claim_at_once` gives what a power cut could undo. ``seen`` raises nothing.
        """
        accepted = self.accept(arrivals)
        seen(accepted)
        return accepted

    def claim_at_once(self, channels: Sequence[str], limit: int, consumer: str) -> list[Claim]:
        """`claim`, for consumers that tell nobody the number of a message: it may give what a power cut can undo yet,
        because its sender has not been told that it arrived, and sends it again. Whatever is made durable after it in
        this half makes it durable, too.
        """
        return self.claim(channels, limit, consumer)

    def put_all(self, puts: Sequence[Put]) -> list[Sequence[int]]:
        """`put` for several channels, priorities and senders: all of it is on stable storage when this returns. The
        default is a commit for each; a storage that makes it one keeps all or none.
        """
        return [self.put(*put) for put in puts]

    def accept_together(self, arrivals: Sequence[Arrival]) -> list[Accepted]:
        """`accept`, but all arrivals or none: if one of them does not follow its head, none is taken, and the answers
        name the heads kept. Whoever accepts for these sources at the same time comes before it or after it: the
        default, which looks first, rests on it that nobody does, so a storage that machines share must override it.
        """
        kept = {sender: self.heads(sender) for sender in {arrival.source.sender for arrival in arrivals}}
        refused = refusal(arrivals, lambda source: kept[source.sender].get(source, START))
        return self.accept(arrivals) if refused is None else refused

    def find(self, number: int) -> JobInfo | None:
        """The message with a number, if it is still kept. Costs a page of `scan` at that place."""
        found = self.scan(Selection(), number - 1, 1) if number > 0 else []
        return found[0] if found and found[0].number == number else None

    def peek(self, channel: str, state: State) -> JobInfo | None:
        """The next READY message of a channel (where none is ready, one that is delayed and due), the DELAYED one that
        is due first, or the BURIED one that arrived first. The default costs a scan of those.
        """
        found = self.all(Selection(states=frozenset({state}), channel=channel))
        if state is State.BURIED:
            return next(found, None)
        if state is State.DELAYED:
            return min(found, key=lambda one: (one.due_in or 0.0, one.number), default=None)
        first = min(found, key=lambda one: (one.priority, one.rank, one.number), default=None)
        if first is None:
            late = self.peek(channel, State.DELAYED)
            first = late if late is not None and (late.due_in or 0.0) <= 0 else None
        return first

    def acknowledge(self, claims: Sequence[Claim], keep: float = 0.0) -> list[bool]:
        """`settle` with an `Ack` for each, without results; for storages that can do it in one sweep."""
        return self.settle([Ack(claim, None, "", keep) for claim in claims])

    def holds(self, claim: Claim) -> bool:
        """Whether the lease still holds. Costs a look-up."""
        return any(
            one.number == claim.number and one.state is State.LEASED and one.token == claim.token
            for one in self.all(Selection(ids=(claim.id,)))
        )

    def next_due(self, channels: Sequence[str]) -> float | None:
        """Node time at which the next delayed message of these channels becomes ready. The default costs a scan of
        those that are delayed.
        """
        now = self.context.clock.now()  # read before ``due_in`` is computed: rather a moment early than late
        found = [one for name in channels for one in self.all(Selection((), frozenset({State.DELAYED}), name))]
        return min((now + one.due_in for one in found if one.due_in is not None), default=None)

    def sweep(self) -> float | None:
        """End expired messages, forget done and buried ones past their time. Bounded work a call.

        Returns the node time of the next thing due. The default costs a scan of everything.
        """
        now, due, moves = self.context.clock.now(), math.inf, list[JobMove]()
        for one in self.all(Selection()):
            if one.until is None:
                continue
            if one.until > now or len(moves) >= PAGE:
                due = min(due, one.until)
            elif one.state in SETTLED:
                moves.append(JobMove(one, None))
            else:
                moves.append(JobMove(one, State.EXPIRED, f"expired while {one.state.value} at {self.context.node}"))
                due = min(due, now + self.context.remember)
        # What waits behind another of its key goes first: the end of that one would make it ready, and the move of
        # what changed since it was read is refused.
        moves.sort(key=lambda move: move.job.state is not State.BLOCKED)
        if moves and not all(self.move(moves)):
            due = now  # somebody was faster: look again
        return None if due == math.inf else due

    def flush(self) -> None:
        """Everything settled so far is on stable storage when this returns. Nothing to do where it always is."""

    def status(self, message_id: MessageId) -> JobInfo | None:
        """What is known of a message; of one that came again after its end, the later one. Costs a look-up."""
        return next(reversed(list(self.all(Selection(ids=(message_id,))))), None)

    def kick(self, selection: Selection) -> int:
        """Make buried and delayed messages ready, with fresh attempts. Durable, all or none. Returns how many.

        Costs a scan of those, and holds what is meant in memory.
        """
        wanted = restrict(selection, frozenset({State.BURIED, State.DELAYED}))
        found = list(self.all(wanted)) if wanted is not None else []
        return sum(self.move([JobMove(one, State.READY, attempts=0) for one in found])) if found else 0

    def bury(self, message_id: MessageId, reason: str) -> bool:
        """Bury a message that is not leased. Durable. Costs a look-up."""
        found = [one for one in self.all(Selection(ids=(message_id,))) if one.state in WAITING]
        return bool(found) and any(self.move([JobMove(one, State.BURIED, reason) for one in found]))

    def wipe(self, selection: Selection) -> int:
        """Remove done and buried messages (never live ones), page by page. Returns how many. Costs a scan of those."""
        wanted = restrict(selection, SETTLED)
        gone, moves = 0, list[JobMove]()
        for one in self.all(wanted) if wanted is not None else ():
            moves.append(JobMove(one, None))
            if len(moves) == PAGE:
                gone, moves = gone + sum(self.move(moves)), []
        return gone + (sum(self.move(moves)) if moves else 0)

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Channel → state → number, ``bytes`` of the envelopes kept, and what `totals` tells. The default costs a scan
        of everything.
        """
        out = {channel: {"processed": number, "bytes": 0} for channel, number in self.totals().items()}
        for one in self.all(Selection()):
            mine = out.setdefault(one.channel, {"bytes": 0})
            mine[one.state.value] = mine.get(one.state.value, 0) + 1
            mine["bytes"] += one.size if one.state is not State.EXPIRED else 0
        return out

    def urgent(self) -> Mapping[str, int]:
        """Channel → ready messages of a priority before `names.NOT_URGENT`. The default costs a scan of them all."""
        found: dict[str, int] = {}
        for one in self.all(Selection(states=frozenset({State.READY}))):
            if one.priority < NOT_URGENT:
                found[one.channel] = found.get(one.channel, 0) + 1
        return found

    def totals(self) -> Mapping[str, int]:
        """Channel → messages ever processed. Optional: nothing is told by default."""
        return {}

    def oldest(self) -> Mapping[str, float]:
        """Channel → seconds that its first ready message has waited. The default costs a scan of those."""
        out: dict[str, float] = {}
        for one in self.all(Selection(states=frozenset({State.READY}))):
            out[one.channel] = max(out.get(one.channel, 0.0), one.age)
        return out

    def all(self, selection: Selection) -> Iterator[JobInfo]:
        """Every message that a selection means, page by page."""
        after = 0
        while page := self.scan(selection, after, PAGE):
            yield from page
            after = page[-1].number
            if len(page) < PAGE:
                return


LEASES = Selection(states=frozenset({State.LEASED}))
WAITING = frozenset({State.READY, State.DELAYED, State.BLOCKED})
"""States of a message that waits for a consumer."""

__all__ = ["ATTEMPTS", "WAITING", "Inbox"]
