"""What the inbox knows in memory: queues, heads, leases, and of messages only those that are not simply ready.

Owns the operations of the inbox's journal and what each does. A message that just waits is nowhere but in its queue's
log, behind the frontier. Leases of such messages are kept as sets of numbers. Must not know files.
"""

import heapq
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dropr_core.model.message import Outcome, State
from dropr_core.model.names import Head, MessageId, SourceLane, StoreId, make_store_id, priority_of
from dropr_storage_fs.files import layout
from dropr_storage_fs.files.layout import SPECIAL, Frame, Record, Row
from dropr_storage_fs.files.log_recovery import End, Place
from dropr_storage_fs.inbox.rows import Lease, Queue, Task, pack_runs, unpack_runs

Op = Sequence[Any]
HOLDING = frozenset({State.READY, State.DELAYED, State.LEASED})


class InboxState:
    """See module."""

    def __init__(self) -> None:
        self.store = StoreId(bytes(8))
        self.number = 0
        self.snapshot_size = 0
        self.queues: dict[tuple[str, int], Queue] = {}
        self.numbers: dict[int, Queue] = {}
        self.tasks: dict[int, Task] = {}
        self.by_id: dict[bytes, list[int]] = {}
        self.keys: dict[tuple[str, str], set[int]] = {}
        self.leases: dict[bytes, Lease] = {}
        self.heads: dict[SourceLane, Head] = {}
        self.rows: dict[str, list[Outcome]] = {}
        self.row_numbers: Counter[str] = Counter()
        self.processed: Counter[str] = Counter()
        self.timers: list[tuple[float, int]] = []
        self.delayed: dict[str, list[tuple[float, int]]] = {}
        self.lost: list[int] = []
        self.intents: list[Op] = []
        self.transactions: set[bytes] = set()
        self.recovering = self.cold = self.damaged = False
        self.tentative: dict[SourceLane, Head] = {}
        self._snapshot_read = False
        self._do = {name[4:]: getattr(self, name) for name in dir(self) if name.startswith("_do_")}

    def apply(self, op: Op) -> None:
        """Do one operation."""
        self._do[op[0]](*op[1:])

    # ── operations ───────────────────────────────────────────────────────────────────────────────

    def _do_ready(self) -> None:
        self._snapshot_read = True

    def _do_lost(self, generation: int) -> None:
        self.lost.append(generation)

    def _do_meta(self, store: bytes, number: int) -> None:
        self.store, self.number = StoreId(store), max(self.number, number)

    def _do_queue(self, number: int, channel: str, priority: int) -> None:
        self.queues[channel, priority] = self.numbers[number] = Queue(number, channel, priority)

    def _do_full_queue(self, number: int, values: list[Any], end: list[int] | None) -> None:
        queue = self.numbers[number]
        queue.frontier, queue.taken, queue.gone_bytes, voids, queue.noted = values
        queue.voids = set(voids)
        queue.end = None if end is None else End(*end)

    def _do_task(self, *values: Any) -> None:
        (number, queue_number, identity, sender, state, flags, size, arrived, key, due, expires, segment, offset,
         attempts, reasons, changed, keep, token, consumer, fresh) = values  # fmt: skip
        task = Task(number, queue_number, identity, sender, State(state), flags, size, arrived, key, due, expires,
                    Place(segment, offset), attempts, list(reasons), changed, keep, token, consumer)  # fmt: skip
        queue = self.numbers[queue_number]
        self.tasks[number] = task
        self.by_id.setdefault(identity, []).append(number)
        if fresh:
            queue.taken += 1
            queue.noted = max(queue.noted, number)
        self.number = max(self.number, number)
        self._enter(task)

    def _enter(self, task: Task) -> None:
        """Count it, and put it where it will be looked for."""
        queue = self.numbers[task.queue]
        queue.tally[task.state] += 1
        if not task.live:
            queue.dead_bytes += task.size
        elif task.key is not None:
            self.keys.setdefault((queue.channel, task.key), set()).add(task.number)
        if task.state is State.READY:
            heapq.heappush(queue.ready, task.number)
        elif task.state is State.DELAYED:
            heapq.heappush(self.delayed.setdefault(queue.channel, []), (task.due, task.number))
        timer = task.timer
        if timer is not None:
            heapq.heappush(self.timers, (timer, task.number))
            if len(self.timers) > 3 * len(self.tasks) + 1000:
                self.timers = [(t.timer, t.number) for t in self.tasks.values() if t.timer is not None]
                heapq.heapify(self.timers)

    def _leave(self, task: Task) -> None:
        queue = self.numbers[task.queue]
        queue.tally[task.state] -= 1
        if not task.live:
            queue.dead_bytes -= task.size
        elif task.key is not None:
            same = self.keys[queue.channel, task.key]
            same.discard(task.number)
            if not same:
                del self.keys[queue.channel, task.key]

    def _do_move(self, number: int, state: str, changed: float, attempts: int, due: float, token: bytes, consumer: str,
                 reason: str, keep: float) -> None:  # fmt: skip
        task = self.tasks.get(number)
        if task is None:
            return
        self._leave(task)
        task.state, task.changed, task.attempts, task.due = State(state), changed, attempts, due
        task.token, task.consumer, task.keep = token, consumer, keep
        if reason:
            task.reasons.append(reason)
        self._enter(task)

    def _do_moved(self, _number: int, sequence: int, segment: int, offset: int) -> None:
        task = self.tasks.get(sequence)
        if task is not None:
            task.at = Place(segment, offset)

    def _do_drop(self, number: int) -> None:
        task = self.tasks.pop(number, None)
        if task is None:
            return
        self._leave(task)
        same = self.by_id[task.id]
        same.remove(number)
        if not same:
            del self.by_id[task.id]
        queue = self.numbers[task.queue]
        queue.gone_bytes += task.size
        if number > queue.frontier:
            queue.voids.add(number)

    def _do_front(self, number: int, frontier: int) -> None:
        queue = self.numbers[number]
        queue.frontier = max(queue.frontier, frontier)
        if queue.voids:
            queue.voids = {one for one in queue.voids if one > frontier}

    def _do_claim(self, token: bytes, consumer: str, number: int, frontier: int, runs: list[int],
                  receipts: list[int]) -> None:  # fmt: skip
        live = unpack_runs(runs)
        lease = self.leases.get(token)
        if lease is None:
            self.leases[token] = Lease(token, consumer, number, live, set(receipts))
        else:  # one call took from one queue in two goes
            lease.live |= live
            lease.receipts.update(receipts)
        queue = self.numbers[number]
        queue.taken += len(live)
        queue.leased += len(live)
        self._do_front(number, frontier)

    def _do_unlease(self, token: bytes, runs: list[int]) -> None:
        lease = self.leases.get(token)
        if lease is not None:
            before = len(lease.live)
            lease.live -= unpack_runs(runs)
            self.numbers[lease.queue].leased -= before - len(lease.live)
            if not lease.live:
                del self.leases[token]

    def _do_acked(self, token: bytes, number: int, runs: list[int], count: int, size: int) -> None:
        self._do_unlease(token, runs)
        queue = self.numbers[number]
        queue.gone_bytes += size
        self.processed[queue.channel] += count

    def _do_processed(self, channel: str, count: int) -> None:
        self.processed[channel] += count

    def _do_outcome(self, sender: str, number: int, identity: bytes, state: str, reason: str, result: bytes | None,
                    kind: str) -> None:  # fmt: skip
        row = Outcome(number, MessageId(identity), State(state), reason, result, kind)
        self.rows.setdefault(sender, []).append(row)
        self.row_numbers[sender] = max(self.row_numbers[sender], number)

    def _do_told(self, sender: str, upto: int) -> None:
        rows = [row for row in self.rows.get(sender, ()) if row.number > upto]
        self.rows[sender] = rows
        self.row_numbers[sender] = max(self.row_numbers[sender], upto)

    def _do_head(self, sender: str, store: bytes, channel: str, priority: int, sequence: int, identity: bytes) -> None:
        # After a power cut only the logs know which arrivals are there: the journal may run ahead of them.
        heads = self.tentative if self.cold and self._snapshot_read else self.heads
        heads[SourceLane(sender, StoreId(store), channel, priority)] = Head(sequence, MessageId(identity))

    def _do_true_head(self, *values: Any) -> None:
        sender, store, channel, priority, sequence, identity = values
        source = SourceLane(sender, StoreId(store), channel, priority)
        self.heads[source] = Head(sequence, MessageId(identity))
        self.tentative.pop(source, None)

    def _do_void(self, number: int, numbers: list[int], size: int) -> None:
        queue = self.numbers[number]
        queue.voids.update(one for one in numbers if one > queue.frontier)
        queue.taken += len(numbers)
        queue.gone_bytes += size

    def _do_intent(self, *op: Any) -> None:
        if self.recovering:  # else whoever wrote it makes the logs follow
            self.transactions.add(op[5])
            self.intents.append(["intent", *op])

    def _do_end(self, number: int, *end: int) -> None:
        """Up to there the log was flushed when this was written, and all that it says stands above."""
        queue = self.numbers[number]
        queue.late = End(*end)
        if not self.cold:
            self.tentative = {}
        for source, head in list(self.tentative.items()):
            if (source.channel, priority_of(source.priority)) == (queue.channel, queue.priority):
                self.heads[source] = head
                del self.tentative[source]

    def _do_damaged(self, _start: int, _end: int) -> None:
        """A part of the journal is lost: all that the logs can tell is asked of them again."""
        self.damaged = True

    # ── as operations ────────────────────────────────────────────────────────────────────────────

    def snapshot(self) -> list[Op]:
        """Operations that make this state from nothing."""
        ops: list[Op] = [["meta", self.store, self.number]]
        ops += [["lost", generation] for generation in self.lost[-8:]]
        ops += [["queue", number, queue.channel, queue.priority] for number, queue in self.numbers.items()]
        ops += [["task", *task.values(), False] for task in self.tasks.values()]
        for lease in self.leases.values():
            ops.append(["claim", lease.token, lease.consumer, lease.queue, 0, pack_runs(sorted(lease.live)),
                        sorted(lease.receipts)])  # fmt: skip
        for number, queue in self.numbers.items():
            values = [queue.frontier, queue.taken, queue.gone_bytes, sorted(queue.voids), queue.noted]
            ops.append(["full_queue", number, values, queue.end])
        ops += [["head", *source, *head] for source, head in self.heads.items()]
        for sender, rows in self.rows.items():
            ops += [["outcome", sender, row.number, row.id, str(row.state), row.reason, row.result, row.content_type]
                    for row in rows]  # fmt: skip
        for sender, number in self.row_numbers.items():
            ops.append(["told", sender, number - len(self.rows.get(sender, ()))])
        ops += [["processed", channel, count] for channel, count in self.processed.items()]
        self.intents, self.transactions = [], set()
        return ops

    # ── recovery ─────────────────────────────────────────────────────────────────────────────────

    def logs(self) -> list[int]:
        """The numbers of all logs."""
        return list(self.numbers)

    def label(self, number: int) -> list[Any]:
        """The operation that makes a queue."""
        return ["queue", number, self.numbers[number].channel, self.numbers[number].priority]

    def known_end(self, number: int) -> End | None:
        """Where a log was known to be sound when this generation began."""
        queue = self.numbers[number]
        return queue.end if self.damaged else queue.late or queue.end

    def set_known_end(self, number: int, end: End) -> None:
        """Note that up to there nothing has to be looked at again."""
        self.numbers[number].end, self.numbers[number].late = end, None

    def recovered(self, number: int, frame: Frame, records: list[Record], segment: int) -> list[Op]:
        """Heads, and messages with a state of their own, stand in the frames, too."""
        self.number = max([self.number, *(record.sequence for record in records)])
        heads, transaction = layout.loads(frame.extra) or ([], b"")
        if transaction and transaction not in self.transactions and not self.damaged:
            numbers = [record.sequence for record in records]
            return [["void", number, numbers, sum(len(record.envelope) for record in records)]]
        ops: list[Op] = [["true_head", *head] for head in heads]
        queue = self.numbers[number]
        for record in records:
            if record.flags & SPECIAL and record.sequence > queue.noted:
                ops.append(["arrived", number, record.sequence, record.id, record.flags, record.born, record.extra,
                            len(record.envelope), segment, record.at])  # fmt: skip
        return ops

    def _do_arrived(self, number: int, sequence: int, identity: bytes, flags: int, born: float, extra: bytes, size: int,
                    segment: int, offset: int) -> None:  # fmt: skip
        """A message with a key, a delay or an expiry, found in the log after a crash."""
        sender, key, due, expires = layout.loads(extra)
        state = self.entry_state(self.numbers[number].channel, key, due, born)
        self._do_task(sequence, number, identity, sender, str(state), flags, size, born, key, due, expires, segment,
                      offset, 0, [], born, 0.0, b"", "", True)  # fmt: skip

    def entry_state(self, channel: str, key: str | None, due: float, now: float) -> State:
        """The state in which a message begins, or comes back."""
        if key is not None and self.busy(channel, key):
            return State.BLOCKED
        return State.DELAYED if due > now else State.READY

    def busy(self, channel: str, key: str) -> bool:
        """Whether a message of this key is ready, delayed or leased."""
        return any(self.tasks[number].state in HOLDING for number in self.keys.get((channel, key), ()))

    def redo(self, number: int, last: int) -> list[Op]:
        """Intents that a log has not got."""
        return [op for op in self.intents if op[1] == number and op[2] > last]

    @staticmethod
    def unpack_intent(op: Op) -> tuple[int, float, list[Row], bytes]:
        """(first, born, records, extra part of the frame) of an intent."""
        _, _number, first, rows, born, heads, transaction = op
        return first, born, rows, layout.encode([heads, transaction])

    def settle_after_recovery(self) -> None:
        """A new store gets its identity."""
        if self.store == bytes(8):
            self.store = make_store_id()

    def beyond(self, number: int, last: int) -> None:
        """Forget messages that a log never got."""
        queue = self.numbers[number]
        for one in [one for one, task in self.tasks.items() if task.queue == number and one > last]:
            size = self.tasks[one].size
            self._do_drop(one)
            queue.taken -= 1
            queue.gone_bytes -= size
        queue.noted = min(queue.noted, last)
        queue.voids = {one for one in queue.voids if one <= last}
