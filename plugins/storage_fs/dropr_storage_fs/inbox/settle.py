"""Consumers settle what they took: acknowledged, released, buried.

Owns `settle`, `acknowledge` and `holds`. Must not know how messages came.
"""

from collections.abc import Sequence
from operator import itemgetter

from dropr_core.contracts.context import Context
from dropr_core.contracts.lease_sheets import Noted
from dropr_core.contracts.storage import Ack, Claim, Release, Settlement
from dropr_core.model.message import State
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.inbox.claim import lease_key
from dropr_storage_fs.inbox.moves import InboxCommit, Moves
from dropr_storage_fs.inbox.operations import AcknowledgePlain, CountProcessed, Drop
from dropr_storage_fs.inbox.rows import JobRecord, Lease, pack_runs
from dropr_storage_fs.inbox.state import InboxState


class Settling:
    """What consumers do with what they took."""

    def __init__(self, engine: Engine[InboxState], context: Context, moves: Moves) -> None:
        self._engine, self._context, self._moves = engine, context, moves

    def holds(self, claim: Claim) -> bool:
        """Whether the lease still holds."""

        def job(state: InboxState) -> bool:
            return _held(state, claim) is not None or _lease_of(state, claim) is not None

        return self._engine.read(job)

    def settle(self, changes: Sequence[Settlement]) -> list[bool]:
        """Apply each change whose lease still holds (True); the others change nothing (False)."""

        def job(commit: InboxCommit) -> list[bool]:
            return self._settle_whole(commit, changes) or self._settle(commit, changes)

        return self._engine.write(job)

    def acknowledge(self, claims: Sequence[Claim], keep: float) -> list[bool]:
        """`settle` with an `Ack` for each."""
        if not claims:
            return []

        def job(commit: InboxCommit) -> list[bool]:
            if keep <= 0 and self._acknowledge_whole(commit, claims):
                return [True] * len(claims)
            return self._settle(commit, [Ack(claim, None, "", keep) for claim in claims])

        return self._engine.write(job)

    # ── the common case ──────────────────────────────────────────────────────────────────────────

    def _settle_whole(self, commit: InboxCommit, changes: Sequence[Settlement]) -> list[bool]:
        """Nothing but plain acknowledgements. Else empty."""
        for change in changes:
            if type(change) is not Ack or change.keep > 0:
                return []
        claims = [change.claim for change in changes]
        return [True] * len(claims) if claims and self._acknowledge_whole(commit, claims) else []

    @staticmethod
    def _acknowledge_whole(commit: InboxCommit, claims: Sequence[Claim]) -> bool:
        """Plain messages of one claim, and nobody wants to hear of it: all at once. Else nothing is done."""
        lease = _lease_of(commit.state, claims[0])
        if lease is None or lease.receipts:
            return False
        (token, _, _, channel, priority, *_), count = claims[0], len(claims)
        for at, value in ((0, token), (3, channel), (4, priority)):  # in columns: this is done for every message
            if list(map(itemgetter(at), claims)).count(value) < count:
                return False
        numbers = list(map(itemgetter(1), claims))
        mine = set(numbers)
        if len(mine) < count or not mine <= lease.live:
            return False
        size = sum(map(len, map(itemgetter(6), claims)))
        commit.do(AcknowledgePlain(lease.token, lease.queue, pack_runs(sorted(numbers)), count, size))
        return True

    # ── any case ─────────────────────────────────────────────────────────────────────────────────

    def _settle(self, commit: InboxCommit, changes: Sequence[Settlement]) -> list[bool]:
        acknowledged: dict[bytes, _Acknowledged] = {}
        out: list[bool] = []
        mine: _Acknowledged | None = None
        self._set_apart(commit, changes)
        for change in changes:
            claim = change.claim
            if mine is None or not mine.has(claim):
                lease = _lease_of(commit.state, claim)
                mine = None if lease is None else acknowledged.setdefault(lease.token, _Acknowledged(lease))
            if mine is not None:
                if claim.number in mine.numbers:  # a second change finds nothing
                    out.append(False)
                    continue
                if isinstance(change, Ack) and change.keep <= 0:
                    mine.add(claim)
                    if claim.number in mine.lease.receipts:
                        self._moves.tell(commit, claim.sender, claim.id, State.PROCESSED, change.reason, change.result,
                                         change.content_type)  # fmt: skip
                    out.append(True)
                    continue
            job = _held(commit.state, claim)
            if job is not None:
                self._settle_job(commit, job, change)
            out.append(job is not None)
        for one in acknowledged.values():
            one.write(commit)
        return out

    def _set_apart(self, commit: InboxCommit, changes: Sequence[Settlement]) -> None:
        """Plain messages that do not simply go get a state of their own: the log is read once for all of a lease."""
        wanted: dict[bytes, tuple[Lease, set[int]]] = {}
        for change in changes:
            if not isinstance(change, Ack) or change.keep > 0:
                lease = _lease_of(commit.state, change.claim)
                if lease is not None:
                    wanted.setdefault(lease.token, (lease, set()))[1].add(change.claim.number)
        for lease, numbers in wanted.values():
            self._moves.materialise_leased(commit, lease, numbers)

    def _settle_job(self, commit: InboxCommit, job: JobRecord, change: Settlement) -> None:
        now = self._context.clock.now()
        if isinstance(change, Ack):
            acknowledge(commit, self._moves, job, change)
        elif isinstance(change, Release):
            to = State.DELAYED if change.delay > 0 else State.READY
            attempts = job.attempts - (not change.counted)
            due = now + max(0.0, change.delay)
            self._moves.move(commit, job, to, reason=change.reason, attempts=attempts, due=due, rank=change.rank)
        else:
            self._moves.bury(commit, job, change.reason, change.rank)


def acknowledge(commit: InboxCommit, moves: Moves, job: JobRecord, change: Ack | Noted) -> None:
    """A message with a state of its own is done, by the word of its consumer or of its lease sheet."""
    commit.do(CountProcessed(commit.state.numbers[job.queue].channel, 1))
    moves.end(commit, job, State.DONE, change.keep, State.PROCESSED, change.reason, change.result, change.content_type)
    if change.keep <= 0:
        commit.do(Drop(job.number))


class _Acknowledged:
    """Plain messages of one lease that one call acknowledges; the journal gets them as one operation."""

    def __init__(self, lease: Lease) -> None:
        self.lease, self.numbers, self._size = lease, set[int](), 0

    def has(self, claim: Claim) -> bool:
        """Whether a claim is of this lease."""
        return claim.number in self.lease.live and self.lease.token.startswith(claim.token)

    def add(self, claim: Claim) -> None:
        """One more."""
        self.numbers.add(claim.number)
        self._size += len(claim.envelope)

    def write(self, commit: InboxCommit) -> None:
        """All of them."""
        if self.numbers:
            runs = pack_runs(sorted(self.numbers))
            commit.do(AcknowledgePlain(self.lease.token, self.lease.queue, runs, len(self.numbers), self._size))


def _lease_of(state: InboxState, claim: Claim) -> Lease | None:
    """The lease of plain messages that a claim belongs to."""
    queue = state.queues.get((claim.channel, claim.priority))
    if queue is None:
        return None
    lease = state.leases.get(lease_key(claim.token, queue.number))
    return lease if lease is not None and claim.number in lease.live else None


def _held(state: InboxState, claim: Claim) -> JobRecord | None:
    """The leased message with a state of its own that a claim is."""
    job = state.jobs.get(claim.number)
    if job is None or job.state is not State.LEASED:
        return None
    return job if job.token[:8] == claim.token else None
