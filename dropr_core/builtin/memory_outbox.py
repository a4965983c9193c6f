"""The outbox of the storage ``memory``.

Owns the log of each lane as a dict of sequence → delivery. Written to be read beside
contracts/storage.py: each method does what its contract says and nothing clever.
"""

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from dropr_core.builtin.memory_data import DeliveryRecord, LaneLog, OutboxData, PeerRecord
from dropr_core.builtin.memory_gate import SWEEP_COUNT, Gate, check_room
from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import (
    AppendResult,
    Batch,
    Delivery,
    Entry,
    LaneStats,
    NewMessage,
    Outbox,
    PeerState,
    Rejection,
    Selection,
)
from dropr_core.errors import Conflict
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import START, Head, Lane, MessageId, StoreId, format_id, make_store_id
from dropr_core.model.states import DELIVERY, ENDED, may_follow

_REDRIVABLE = frozenset({State.DEAD, State.FAILED, State.EXPIRED})


class MemoryOutbox(Outbox):
    """See contracts/storage.py."""

    def __init__(self, data: OutboxData, lock: "threading.RLock", context: Context) -> None:
        self._data, self._context = data, context
        self._gate = Gate(lock, context, "outbox")

    def _now(self) -> float:
        return self._context.clock.now()

    def _of(self, message_id: MessageId) -> list[DeliveryRecord]:
        return [item for item in self._data.items.values() if item.message.id == message_id]

    @property
    def store_id(self) -> StoreId:  # noqa: D102
        with self._gate.reading():
            return self._data.store_id

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    def append(self, messages: Sequence[NewMessage]) -> list[AppendResult]:  # noqa: D102
        with self._gate.writing():
            fresh: dict[int, NewMessage] = {}
            seen: dict[MessageId, NewMessage] = {}
            for index, message in enumerate(messages):
                known = seen.get(message.id) or self._data.own.get(message.id, (None,))[0]
                if known is None or message.fingerprint is None:
                    fresh[index] = message
                elif known.fingerprint != message.fingerprint:
                    raise Conflict(f"message {format_id(message.id)} was sent before with other content")
                if message.fingerprint is not None:
                    seen.setdefault(message.id, message)
            self._check_limits(list(fresh.values()))
            return [self._store(m) if index in fresh else self._existing(m) for index, m in enumerate(messages)]

    def _store(self, message: NewMessage) -> AppendResult:
        data, now = self._data, self._now()
        data.serial += 1
        sequences = []
        for index, peer in enumerate(message.peers):
            item = DeliveryRecord((data.serial, index), message, Lane(peer, message.channel, message.priority), 0, now)
            data.items[item.serial] = item
            data.peers.setdefault(peer, PeerRecord())
            data.sent[peer, message.channel] += 1
            sequences.append(self._enqueue(item, now))
        if message.fingerprint is not None:
            data.own[message.id] = (message, now)
        return AppendResult(message.id, tuple(sequences), existed=False)

    def _enqueue(self, item: DeliveryRecord, now: float) -> int:
        """To the end of its lane."""
        log = self._data.logs.setdefault(item.lane, LaneLog())
        log.last += 1
        log.ever += 1
        log.items[log.last], item.rank = item, log.ever
        item.sequence, item.state, item.changed, item.offered = log.last, State.QUEUED, now, False
        return log.last

    def _existing(self, message: NewMessage) -> AppendResult:
        at = {item.lane.peer: item.sequence for item in self._of(message.id) if not item.over}
        return AppendResult(message.id, tuple(at.get(peer, 0) for peer in message.peers), existed=True)

    def _check_limits(self, fresh: Sequence[NewMessage]) -> None:
        context = self._context
        waiting = [(i.lane.peer, i.lane.channel, i.size) for i in self._data.items.values() if i.state is State.QUEUED]
        coming = [(peer, m.channel, len(m.envelope)) for m in fresh for peer in m.peers]
        limits = (context.max_messages, context.max_bytes)
        check_room("the outbox", limits, len(waiting + coming), sum(size for _, _, size in waiting + coming))
        for peer in {row[0] for row in coming} & set(context.peer_limits):
            sizes = [row[2] for row in waiting + coming if row[0] == peer]
            check_room(f"the outbox for peer {peer}", context.peer_limits[peer], len(sizes), sum(sizes))
        for channel in {row[1] for row in coming} & set(context.channel_limits):
            sizes = [row[2] for row in waiting + coming if row[1] == channel]
            check_room(f"the outbox for channel {channel}", context.channel_limits[channel], len(sizes), sum(sizes))

    # ── shipping ─────────────────────────────────────────────────────────────────────────────────

    def lanes(self, peer: str | None = None) -> list[LaneStats]:  # noqa: D102
        with self._gate.reading():
            now, out = self._now(), []
            for lane, log in self._data.logs.items():
                queued = [item for item in log.items.values() if item.state is State.QUEUED]
                if queued and peer in {None, lane.peer}:
                    first = min(queued, key=lambda item: item.sequence)
                    size = sum(item.size for item in queued)
                    out.append(LaneStats(lane, log.head, log.last, len(queued), size, now - first.sent))
            return out

    def take(self, lane: Lane, max_count: int, max_bytes: int, *, mark_in_flight: bool = True) -> Batch | None:  # noqa: D102
        with self._gate.reading():
            log, now = self._data.logs.get(lane, LaneLog()), self._now()
            entries: list[Entry] = []
            taken: list[DeliveryRecord] = []
            for sequence in range(log.head.sequence + 1, log.last + 1):
                item = log.items.get(sequence)
                if item is None or item.state is not State.QUEUED:
                    continue
                max_bytes -= item.size
                if entries and (len(entries) >= max_count or max_bytes < 0):
                    break
                age = now - item.sent if item.message.delayed or item.message.expires_in is not None else 0.0
                entries.append(Entry(sequence, item.message.id, item.message.envelope, age, item.possible_duplicate))
                taken.append(item)
            for item in taken if mark_in_flight else ():
                item.offered = True
            return Batch(lane, log.head, entries) if entries else None

    def clear_in_flight(self, lane: Lane) -> None:  # noqa: D102
        with self._gate.reading():
            for item in self._data.logs.get(lane, LaneLog()).items.values():
                item.offered = False

    def settle(self, lane: Lane, head: Head, rejected: Sequence[Rejection] = ()) -> None:  # noqa: D102
        with self._gate.writing():
            self.clear_in_flight(lane)
            log, now = self._data.logs.setdefault(lane, LaneLog()), self._now()
            if head.sequence <= log.head.sequence:
                return
            refused = {rejection.sequence: rejection for rejection in rejected}
            for sequence in range(log.head.sequence + 1, head.sequence + 1):
                item = log.items.get(sequence)
                if item is None or item.state is not State.QUEUED:
                    continue
                self._move(item, State.ACCEPTED, now)
                if sequence in refused:
                    self._move(item, State.FAILED, now, f"{refused[sequence].code}: {refused[sequence].reason}")
                elif item.over and self._context.keep_sent.get(lane.channel, 0.0) <= 0:
                    self._forget(item)  # plain and not to be listed: acceptance is its end
            log.head, log.last = head, max(log.last, head.sequence)

    def locate(self, lane: Lane, sequence: int) -> MessageId | None:  # noqa: D102
        with self._gate.reading():
            log = self._data.logs.get(lane, LaneLog())
            if sequence == log.head.sequence and sequence > 0:
                return log.head.id
            item = log.items.get(sequence)
            return None if item is None else item.message.id

    def rewind(self, lane: Lane, head: Head) -> int:  # noqa: D102
        with self._gate.writing():
            log, now, again = self._data.logs.setdefault(lane, LaneLog()), self._now(), 0
            for sequence, item in log.items.items():
                item.offered = False
                if sequence > head.sequence and item.state is State.ACCEPTED:
                    self._move(item, State.QUEUED, now)
                    item.possible_duplicate = True
                    again += 1
            log.head = head
            return again

    def renumber(self) -> StoreId:  # noqa: D102
        with self._gate.writing():
            data = self._data
            data.store_id = make_store_id()
            for log in data.logs.values():
                queued = [log.items[at] for at in sorted(log.items) if log.items[at].state is State.QUEUED]
                for item in log.items.values():
                    item.sequence, item.offered = 0, False
                log.head, log.last, log.items = START, len(queued), dict(enumerate(queued, 1))
                for sequence, item in log.items.items():
                    item.sequence, item.possible_duplicate = sequence, True
            return data.store_id

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────

    def _move(self, item: DeliveryRecord, state: State, now: float, reason: str = "") -> None:
        assert may_follow(DELIVERY, item.state, state), f"{item.state} to {state}"
        item.state, item.changed, item.offered, item.reason = state, now, False, reason

    def _forget(self, item: DeliveryRecord) -> None:
        del self._data.items[item.serial]
        log = self._data.logs[item.lane]
        if log.items.get(item.sequence) is item:
            del log.items[item.sequence]

    def dead_letter(self, lane: Lane, sequence: int, reason: str) -> None:  # noqa: D102
        with self._gate.writing():
            item = self._data.logs.get(lane, LaneLog()).items.get(sequence)
            if item is not None and item.state is State.QUEUED:
                self._move(item, State.DEAD, self._now(), reason)

    def cancel(self, message_id: MessageId, peers: Sequence[str] | None = None) -> tuple[int, int]:  # noqa: D102
        with self._gate.writing():
            cancelled = late = 0
            for item in self._of(message_id):
                if peers is not None and item.lane.peer not in peers:
                    continue
                if item.state is State.QUEUED and not item.offered:
                    self._move(item, State.CANCELLED, self._now())
                    cancelled += 1
                elif item.state not in ENDED:
                    late += 1
            return cancelled, late

    def receipts(self, peer: str, log: StoreId, outcomes: Sequence[Outcome], upto: int) -> list[MessageId]:  # noqa: D102
        with self._gate.writing():
            ended, now = [], self._now()
            state = self._data.peers.setdefault(peer, PeerRecord())
            for outcome in outcomes:
                if log == state.log and outcome.number <= state.cursor:
                    continue  # recorded before; the delivery may have been sent again since
                for item in self._of(outcome.id):
                    if item.lane.peer != peer:
                        continue
                    if item.state is State.QUEUED:
                        self._move(item, State.ACCEPTED, now)  # the receipt overtook the answer to the push
                    if may_follow(DELIVERY, item.state, outcome.state):
                        self._move(item, outcome.state, now, outcome.reason)
                        item.result, item.result_type = outcome.result, outcome.content_type
                        ended.append(outcome.id)
            state.cursor = max(state.cursor, upto) if state.log == log else upto
            state.log = log
            return list(dict.fromkeys(ended))

    def redrive(self, selection: Selection) -> int:  # noqa: D102
        with self._gate.writing():
            chosen = [i for i in self._chosen(selection, self._data.items.values()) if i.state in _REDRIVABLE]
            now = self._now()
            # In the order in which they were sent, not in which they ended: a lane's order is a promise.
            for item in sorted(chosen, key=lambda item: (item.sent, item.rank)):
                log = self._data.logs[item.lane]
                if log.items.get(item.sequence) is item:
                    del log.items[item.sequence]
                self._move(item, State.QUEUED, now)
                item.sent, item.possible_duplicate = now, True
                self._enqueue(item, now)
            return len(chosen)

    def sweep(self, life: float) -> tuple[list[MessageId], float | None]:  # noqa: D102
        with self._gate.writing():
            now, ended = self._now(), []
            due: list[tuple[float, DeliveryRecord]] = [
                (self._due(item, life), item) for item in self._data.items.values()
            ]
            due.sort(key=lambda pair: pair[0])
            for moment, item in due[:SWEEP_COUNT]:
                if moment > now:
                    break
                if item.over:
                    self._forget(item)
                    continue
                expires = item.expires()
                if item.state is State.QUEUED and expires is not None and expires <= now:
                    self._move(item, State.EXPIRED, now, "expired before the peer took it")
                else:
                    self._move(item, State.DEAD, now, f"given up after {life:g} s")
                ended.append(item.message.id)
            live = {item.message.id for item in self._data.items.values() if not item.over}
            for identity, (_message, at) in list(self._data.own.items()):
                if at + self._context.remember <= now and identity not in live:
                    del self._data.own[identity]
            return ended, min((self._due(item, life) for item in self._data.items.values()), default=None)

    def _due(self, item: DeliveryRecord, life: float) -> float:
        """When `sweep` has something to do with it."""
        if item.state is State.ACCEPTED and item.over:
            return item.changed + self._context.keep_sent.get(item.lane.channel, 0.0)
        if item.over:
            return item.changed + self._context.remember
        expires = item.expires() if item.state is State.QUEUED else None
        return item.sent + life if expires is None else min(expires, item.sent + life)

    def wipe(self, selection: Selection) -> int:  # noqa: D102
        with self._gate.writing():
            chosen = [item for item in self._chosen(selection, self._data.items.values()) if item.over]
            for item in chosen:
                self._forget(item)
            return len(chosen)

    # ── peers ────────────────────────────────────────────────────────────────────────────────────

    def peers(self) -> Mapping[str, PeerState]:  # noqa: D102
        with self._gate.reading():
            out = {}
            for name, peer in self._data.peers.items():
                mine = [item for item in self._data.items.values() if item.lane.peer == name]
                waiting = [item.size for item in mine if item.state is State.QUEUED]
                awaiting = sum(item.awaiting for item in mine)
                out[name] = PeerState(
                    peer.held, peer.reason, len(waiting), sum(waiting), awaiting, peer.log, peer.cursor
                )
            return out

    def hold(self, peer: str, reason: str) -> None:  # noqa: D102
        with self._gate.writing():
            state = self._data.peers.setdefault(peer, PeerRecord())
            state.held, state.reason = True, reason

    def release(self, peer: str) -> None:  # noqa: D102
        with self._gate.writing():
            if (state := self._data.peers.get(peer)) is not None:
                state.held, state.reason = False, ""

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def _show(self, item: DeliveryRecord) -> Delivery:
        since = item.changed if item.state in ENDED else item.sent
        return Delivery(
            item.message.id, item.lane.peer, item.lane.channel, item.lane.priority, item.state, item.sequence,
            self._now() - since, item.size, item.reason, item.result, item.result_type, item.message.receipt,
            item.possible_duplicate,
        )  # fmt: skip

    def _chosen(self, selection: Selection, items: Iterable[DeliveryRecord]) -> list[DeliveryRecord]:
        def meant(item: DeliveryRecord) -> bool:
            return (
                _in(item.message.id, selection.ids)
                and _in(item.state, selection.states)
                and selection.channel in {None, item.lane.channel}
                and selection.peer in {None, item.lane.peer}
                and (selection.older_than is None or self._show(item).age >= selection.older_than)
            )

        return [item for item in items if meant(item)]

    def status(self, message_id: MessageId) -> list[Delivery]:  # noqa: D102
        with self._gate.reading():
            return [self._show(item) for item in self._of(message_id)]

    def scan(  # noqa: D102
        self, selection: Selection, after: tuple[int, int] = (0, 0), limit: int = 100
    ) -> list[tuple[tuple[int, int], Delivery]]:
        with self._gate.reading():
            # An index starts at 0 and the first cursor is (0, 0): serials start at 1.
            rest = [item for serial, item in sorted(self._data.items.items()) if serial > after]
            return [(item.serial, self._show(item)) for item in self._chosen(selection, rest)[:limit]]

    def envelope(self, message_id: MessageId) -> bytes | None:  # noqa: D102
        with self._gate.reading():
            return next((item.message.envelope for item in self._of(message_id)), None)

    def counts(self) -> Mapping[tuple[str, str], Mapping[str, int]]:  # noqa: D102
        with self._gate.reading():
            out = {at: Counter({"sent": number}) for at, number in self._data.sent.items()}
            for item in self._data.items.values():
                out[item.lane.peer, item.lane.channel][item.state.value] += 1
            return out

    def close(self) -> None:  # noqa: D102
        self._gate.closed = True


def _in(value: object, wanted: Collection[object]) -> bool:
    return not wanted or value in wanted


__all__ = ["MemoryOutbox"]
