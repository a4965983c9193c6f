"""Consumers take messages and settle them.

Owns claim, settle, retire and reap. Must not know how messages came.
"""

from collections.abc import Iterator, Mapping, Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Ack, Claim, Release, Settlement
from dropr_core.model.message import State
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.consumers import Consumers
from dropr_storage_fs.engine.engine import Half
from dropr_storage_fs.files.layout import RECEIPT, SPECIAL, Record, loads
from dropr_storage_fs.files.log_recovery import End, Place
from dropr_storage_fs.inbox.rows import Lease, Queue, Task, pack_runs
from dropr_storage_fs.inbox.state import InboxState

DEFAULT_ATTEMPTS = 10
SKIPPED = 500
"""Records that a claim may pass before it writes the frontier down, though it took nothing."""


class LeasePart:
    """What consumers do."""

    _half: Half
    _context: Context
    _consumers: Consumers
    _cursors: dict[int, tuple[int, Place]]
    _senders: dict[bytes, str]

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def records(self, queue: Queue, after: int, end: End) -> Iterator[tuple[Record, Place]]:
        """The records of a queue beyond a number."""
        cursor = self._cursors.get(queue.number)
        log = self._half.log(queue.number)
        start = cursor[1] if cursor is not None and cursor[0] == after else log.start(after + 1)
        for item, where in log.scan(start, end):
            if isinstance(item, Record) and item.sequence > after:
                yield item, where

    def fresh(self, queue: Queue, after: int, end: End) -> Iterator[tuple[Record, Place]]:
        """Those that are simply ready."""
        tasks, voids = self._half.state.tasks, queue.voids
        for record, where in self.records(queue, max(after, queue.frontier), end):
            if not (record.flags & SPECIAL) and record.sequence not in tasks and record.sequence not in voids:
                yield record, where

    def left(self, queue: Queue) -> int:
        """How many are simply ready."""
        return self._half.log(queue.number).end.count - queue.taken

    def sender_of(self, record: Record) -> str:
        """Who sent it."""
        known = self._senders.get(record.extra)
        if known is None:
            known = loads(record.extra)[0]
            if not record.flags & SPECIAL and len(self._senders) < 1000:
                self._senders[record.extra] = known
        return str(known)

    def leased_records(self, queue: Queue, numbers: set[int]) -> Iterator[tuple[Record, Place]]:
        """The records of some numbers."""
        if numbers:
            last = max(numbers)
            for record, where in self.records(queue, min(numbers) - 1, self._half.log(queue.number).end):
                if record.sequence > last:
                    return
                if record.sequence in numbers:
                    yield record, where

    # ── consumers ────────────────────────────────────────────────────────────────────────────────

    def register(self, label: str = "") -> str:
        """A new consumer, alive as long as this process."""
        self._half.enter(write=True)
        return self._consumers.register(label)

    def retire(self, consumer: str) -> None:
        """The consumer is gone: its leases end, their attempts not counted."""

        def job(commit: Commit) -> None:
            self._half.follow()
            state: InboxState = self._half.state
            for task in [task for task in state.tasks.values() if task.consumer == consumer]:
                self.move(commit, task, State.READY, attempts=task.attempts - 1)
            for lease in [lease for lease in state.leases.values() if lease.consumer == consumer]:
                for task in self.materialise(commit, lease, set(lease.live)):
                    self.move(commit, task, State.READY, attempts=task.attempts - 1)

        self._half.lazy(job)
        self._consumers.release(consumer)

    def materialise(self, commit: Commit, lease: Lease, numbers: set[int]) -> list[Task]:
        """Messages leased with others get a state of their own each."""
        state: InboxState = self._half.state
        queue = state.numbers[lease.queue]
        commit.do(["unlease", lease.token, pack_runs(sorted(numbers))])
        out = []
        for record, where in self.leased_records(queue, numbers):
            commit.do(["task", record.sequence, queue.number, record.id, self.sender_of(record), "leased", record.flags,
                       len(record.envelope), record.born, None, record.born, None, *where, 1, [],
                       self._context.clock.now(), 0.0, lease.token, lease.consumer, False])  # fmt: skip
            out.append(state.tasks[record.sequence])
        return out

    def move(
        self, commit: Commit, task: Task, to: State, *, attempts: int | None = None, due: float | None = None,
        reason: str = "", keep: float = 0.0, token: bytes = b"", consumer: str = "",
    ) -> None:  # fmt: skip
        """A message changes its state."""
        commit.do(["move", task.number, str(to), self._context.clock.now(),
                   task.attempts if attempts is None else attempts, task.due if due is None else due, token, consumer,
                   reason, keep])  # fmt: skip

    def end(
        self, commit: Commit, task: Task, to: State, keep: float, state: State, reason: str = "",
        result: bytes | None = None, kind: str = "",
    ) -> None:  # fmt: skip
        """Done, buried or expired: frees its key, and tells a sender that asked."""
        self.move(commit, task, to, keep=keep, reason=reason if to is State.BURIED else "")
        if task.flags & RECEIPT:
            self.tell(commit, task.sender, task.id, state, reason, result, kind)
        self.unblock(commit, task)

    def tell(
        self, commit: Commit, sender: str, identity: bytes, state: State, reason: str, result: bytes | None, kind: str
    ) -> None:
        """A row in the outcome log of a sender."""
        number = self._half.state.row_numbers[sender] + 1
        commit.do(["outcome", sender, number, identity, str(state), reason, result, kind])

    def unblock(self, commit: Commit, ended: Task) -> None:
        """The next message of a key may go."""
        if ended.key is None:
            return
        state: InboxState = self._half.state
        key = (state.numbers[ended.queue].channel, ended.key)
        waiting = [number for number in state.keys.get(key, ()) if state.tasks[number].state is State.BLOCKED]
        if waiting and not state.busy(*key):
            task = state.tasks[min(waiting)]
            self.move(commit, task, State.DELAYED if task.due > self._context.clock.now() else State.READY)

    # ── settle ───────────────────────────────────────────────────────────────────────────────────

    def _lease_of(self, claim: Claim) -> Lease | None:
        """The lease of plain messages that a claim belongs to."""
        state: InboxState = self._half.state
        queue = state.queues.get((claim.channel, claim.priority))
        if queue is None:
            return None
        lease = state.leases.get(claim.token + queue.number.to_bytes(2, "big"))
        return lease if lease is not None and claim.number in lease.live else None

    def holds(self, claim: Claim) -> bool:
        """Whether the lease still holds."""

        def job() -> bool:
            return self._held(claim) is not None or self._lease_of(claim) is not None

        return self._half.look(job)

    def _held(self, claim: Claim) -> Task | None:
        task = self._half.state.tasks.get(claim.number)
        if task is None or task.state is not State.LEASED:
            return None
        return task if task.token[:8] == claim.token else None

    def settle(self, changes: Sequence[Settlement]) -> list[bool]:
        """Apply each change whose lease still holds (True); the others change nothing (False)."""

        def job(commit: Commit) -> list[bool]:
            return self._settle_whole(commit, changes) or self._settle(commit, changes)

        return self._half.lazy(job)

    def acknowledge(self, claims: Sequence[Claim], keep: float = 0.0) -> list[bool]:
        """`settle` with an `Ack` for each."""
        if not claims:
            return []

        def job(commit: Commit) -> list[bool]:
            if keep <= 0 and self._acknowledge_whole(commit, claims):
                return [True] * len(claims)
            return self._settle(commit, [Ack(claim, None, "", keep) for claim in claims])

        return self._half.lazy(job)

    def _settle_whole(self, commit: Commit, changes: Sequence[Settlement]) -> list[bool]:
        """The common case: nothing but plain acknowledgements. Else empty."""
        for change in changes:
            if type(change) is not Ack or change.keep > 0:
                return []
        claims = [change.claim for change in changes]
        return [True] * len(claims) if claims and self._acknowledge_whole(commit, claims) else []

    def _acknowledge_whole(self, commit: Commit, claims: Sequence[Claim]) -> bool:
        """Plain messages of one claim, and nobody wants to hear of it: all at once. Else nothing is done."""
        lease = self._lease_of(claims[0])
        if lease is None or lease.receipts:
            return False
        count = len(claims)
        tokens, numbers, _, channels, priorities, _, envelopes, *_ = zip(*claims, strict=True)
        mine = set(numbers)
        if (
            tokens.count(tokens[0]) < count or channels.count(channels[0]) < count
            or priorities.count(priorities[0]) < count or len(mine) < count or not mine <= lease.live
        ):  # fmt: skip
            return False
        size = sum(map(len, envelopes))
        commit.do(["acked", lease.token, lease.queue, pack_runs(sorted(numbers)), count, size])
        return True

    def _settle(self, commit: Commit, changes: Sequence[Settlement]) -> list[bool]:
        plain: dict[bytes, tuple[Lease, list[int], list[int]]] = {}
        out: list[bool] = []
        lease: Lease | None = None
        before: tuple[bytes, str, int] | None = None
        for change in changes:
            claim = change.claim
            key = (claim.token, claim.channel, claim.priority)
            if key != before or lease is None or claim.number not in lease.live:
                before, lease = key, self._lease_of(claim)
            if lease is not None:
                if isinstance(change, Ack) and change.keep <= 0:
                    # Taken out at once, so that a second change finds nothing; the journal gets it as one.
                    lease.live.discard(claim.number)
                    mine = plain.setdefault(lease.token, (lease, [], [0]))
                    mine[1].append(claim.number)
                    mine[2][0] += len(claim.envelope)
                    if claim.number in lease.receipts:
                        self.tell(commit, claim.sender, claim.id, State.PROCESSED, "", change.result,
                                  change.content_type)  # fmt: skip
                    out.append(True)
                    continue
                task = self.materialise(commit, lease, {claim.number})[0]
            else:
                held = self._held(claim)
                if held is None:
                    out.append(False)
                    continue
                task = held
            self._settle_task(commit, task, change)
            out.append(True)
        for token, (lease, numbers, sizes) in plain.items():
            lease.live.update(numbers)
            commit.do(["acked", token, lease.queue, pack_runs(sorted(numbers)), len(numbers), sizes[0]])
        return out

    def _settle_task(self, commit: Commit, task: Task, change: Settlement) -> None:
        now = self._context.clock.now()
        if isinstance(change, Ack):
            commit.do(["processed", change.claim.channel, 1])
            self.end(commit, task, State.DONE, change.keep, State.PROCESSED, "", change.result, change.content_type)
            if change.keep <= 0:
                commit.do(["drop", task.number])
        elif isinstance(change, Release):
            delayed = change.delay > 0
            self.move(commit, task, State.DELAYED if delayed else State.READY, reason=change.reason,
                      attempts=task.attempts - (not change.counted), due=now + max(0.0, change.delay))  # fmt: skip
        else:
            self.end(commit, task, State.BURIED, self._context.remember, State.FAILED, change.reason)

    # ── the dead ─────────────────────────────────────────────────────────────────────────────────

    def reap(self, attempts: Mapping[str, int]) -> tuple[list[str], bool]:
        """End the leases of consumers whose process died; see the contract."""

        def look() -> set[str]:
            state: InboxState = self._half.state
            return {lease.consumer for lease in state.leases.values()} | {
                task.consumer for task in state.tasks.values() if task.state is State.LEASED
            }

        names = self._half.look(look)
        dead = {name for name in names if not self._consumers.lives(name)}
        self._consumers.tidy()
        if not dead:
            return [], bool(names)

        def job(commit: Commit) -> list[str]:
            self._half.follow()
            state: InboxState = self._half.state
            for lease in [lease for lease in state.leases.values() if lease.consumer in dead]:
                self.materialise(commit, lease, set(lease.live))
            freed: set[str] = set()
            for task in [task for task in state.tasks.values() if task.state is State.LEASED and task.consumer in dead]:
                channel = state.numbers[task.queue].channel
                reason = f"attempt {task.attempts}: its consumer {task.consumer} died"
                before = {queue.number: queue.tally[State.READY] for queue in state.numbers.values()}
                if task.attempts >= attempts.get(channel, DEFAULT_ATTEMPTS):
                    self.end(commit, task, State.BURIED, self._context.remember, State.FAILED, reason)
                else:
                    self.move(commit, task, State.READY, reason=reason)
                freed |= {queue.channel for queue in state.numbers.values()
                          if queue.tally[State.READY] > before[queue.number]}  # fmt: skip
            return sorted(freed)

        return self._half.lazy(job), bool(names - dead)
