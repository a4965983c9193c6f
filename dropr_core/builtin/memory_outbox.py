"""The outbox of the storage ``memory``.

Owns the log of each lane as a dict of sequence → delivery. Written to be read beside
contracts/storage.py: each method does what its contract says and nothing clever.
"""

import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence

import attrs

from dropr_core.builtin.memory_data import DeliveryRecord, LaneLog, OutboxData, PeerRecord
from dropr_core.builtin.memory_gate import Gate
from dropr_core.contracts.context import Context
from dropr_core.contracts.outbox import REDRIVABLE
from dropr_core.contracts.storage import (
    AppendResult,
    Batch,
    Delivery,
    DeliveryMove,
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
from dropr_core.model.states import DELIVERY, may_follow
from dropr_core.storage_kit.limits import Amount, check_outbox


class MemoryOutbox(Outbox):
    """See contracts/storage.py."""

    staging = True

    def __init__(self, data: OutboxData, lock: "threading.RLock", context: Context) -> None:
        self._data, self.context = data, context
        self._gate = Gate(lock, context, "outbox")

    def _now(self) -> float:
        return self.context.clock.now()

    def _of(self, message_id: MessageId) -> list[DeliveryRecord]:
        return self._data.by_id.get(message_id, [])

    @property
    def store_id(self) -> StoreId:  # noqa: D102
        with self._gate.reading():
            return self._data.store_id

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    def append(self, messages: Sequence[NewMessage]) -> list[AppendResult]:  # noqa: D102
        with self._gate.writing():
            self._forget_own_ids()
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

    def append_staged(self, messages: Sequence[NewMessage], log: str, after: int, upto: int) -> bool:  # noqa: D102
        with self._gate.writing():
            if self._data.staged.get(log, 0) != after:
                return False
            self.append(messages)
            self._data.staged[log] = upto
            return True

    def staged(self) -> Mapping[str, int]:  # noqa: D102
        with self._gate.reading():
            return dict(self._data.staged)

    def unstage(self, logs: Sequence[str]) -> None:  # noqa: D102
        with self._gate.writing():
            for log in logs:
                self._data.staged.pop(log, None)

    def _forget_own_ids(self) -> None:
        """Those of which nothing is listed any more, past their time; the oldest stand first."""
        for identity, (_message, at) in list(self._data.own.items()):
            if at + self.context.remember > self._now():
                return
            if all(item.over for item in self._of(identity)):
                del self._data.own[identity]

    def _store(self, message: NewMessage) -> AppendResult:
        data, now = self._data, self._now()
        data.serial += 1
        sequences = []
        for index, peer in enumerate(message.peers):
            item = DeliveryRecord((data.serial, index), message, Lane(peer, message.channel, message.priority), 0, now)
            data.items[item.serial] = item
            data.by_id.setdefault(message.id, []).append(item)
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
        more: dict[tuple[str, str], Amount] = {}
        for message in fresh:
            for peer in message.peers:
                count, size = more.get((peer, message.channel), (0, 0))
                more[peer, message.channel] = (count + 1, size + len(message.envelope))

        def kept(kind: str, name: str) -> Amount:
            waiting = [
                item.size
                for item in self._data.items.values()
                if item.state is State.QUEUED
                and name == {"all": "", "peer": item.lane.peer, "channel": item.lane.channel}[kind]
            ]
            return len(waiting), sum(waiting)

        check_outbox(self.context, more, kept)

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

    def settle(self, lane: Lane, head: Head, rejected: Sequence[Rejection] = ()) -> None:  # noqa: D102
        with self._gate.writing():
            log, now = self._data.logs.setdefault(lane, LaneLog()), self._now()
            for each in log.items.values():
                each.offered = False
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
                elif item.over and self.context.keep_sent.get(lane.channel, 0.0) <= 0:
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
        self._data.by_id[item.message.id].remove(item)
        if not self._data.by_id[item.message.id]:
            del self._data.by_id[item.message.id]
        log = self._data.logs[item.lane]
        if log.items.get(item.sequence) is item:
            del log.items[item.sequence]

    def move(self, moves: Sequence[DeliveryMove]) -> list[bool]:  # noqa: D102
        with self._gate.writing():
            found = [self._standing(move.delivery) for move in moves]
            done = [item is not None and self._may(item, move.to) for item, move in zip(found, moves, strict=True)]
            again = []
            for item, move, good in zip(found, moves, done, strict=True):
                if item is None or not good:
                    continue
                if move.to is None:
                    self._forget(item)
                elif move.to is State.QUEUED:
                    again.append(item)
                else:
                    self._move(item, move.to, self._now(), move.reason)
            # In the order in which they were sent, not in which they ended: a lane's order is a promise.
            for one in sorted(again, key=lambda one: (one.sent, one.rank)):
                self._send_again(one)
            return done

    def _standing(self, delivery: Delivery) -> DeliveryRecord | None:
        """What stands as it was seen."""
        lane = Lane(delivery.peer, delivery.channel, delivery.priority)
        for item in self._of(delivery.id):
            if (item.lane, item.sequence, item.state) == (lane, delivery.sequence, delivery.state):
                return item
        return None

    def _may(self, item: DeliveryRecord, to: State | None) -> bool:
        if to is None:
            return item.over
        if to is State.QUEUED:
            return item.state in REDRIVABLE
        return may_follow(DELIVERY, item.state, to) and not (to is State.CANCELLED and item.offered)

    def _send_again(self, item: DeliveryRecord) -> None:
        log, now = self._data.logs[item.lane], self._now()
        if log.items.get(item.sequence) is item:
            del log.items[item.sequence]
        self._move(item, State.QUEUED, now)
        item.sent, item.possible_duplicate = now, True
        self._enqueue(item, now)

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

    def _until(self, item: DeliveryRecord) -> float | None:
        """When it expires or, once it has ended, is forgotten."""
        if item.state is State.ACCEPTED and item.over:
            return item.changed + self.context.keep_sent.get(item.lane.channel, 0.0)
        if item.over:
            return item.changed + self.context.remember
        return item.expires() if item.state is State.QUEUED else None

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

    def hold(self, peer: str, reason: str | None) -> None:  # noqa: D102
        with self._gate.writing():
            if reason is not None or peer in self._data.peers:
                state = self._data.peers.setdefault(peer, PeerRecord())
                state.held, state.reason = reason is not None, reason or ""

    # ── looking ──────────────────────────────────────────────────────────────────────────────────

    def _show(self, item: DeliveryRecord) -> Delivery:
        since = item.changed if item.over else item.sent
        return Delivery(
            item.message.id, item.lane.peer, item.lane.channel, item.lane.priority, item.state, item.sequence,
            self._now() - since, item.size, item.reason, item.result, item.result_type, item.message.receipt,
            item.possible_duplicate, item.sent, self._until(item),
        )  # fmt: skip

    def scan(  # noqa: D102
        self, selection: Selection, after: tuple[int, int] = (0, 0), limit: int = 100
    ) -> list[tuple[tuple[int, int], Delivery]]:
        with self._gate.reading():
            # An index starts at 0 and the first cursor is (0, 0): serials start at 1.
            pool: Iterable[DeliveryRecord] = self._data.items.values()
            if selection.ids:
                pool = (item for identity in set(selection.ids) for item in self._of(identity))
                selection = attrs.evolve(selection, ids=())
            mine = sorted((item for item in pool if item.serial > after), key=lambda item: item.serial)
            rest = ((item.serial, self._show(item)) for item in mine)
            return list(itertools.islice((one for one in rest if selection.means(one[1])), limit))

    def envelope(self, message_id: MessageId) -> bytes | None:  # noqa: D102
        with self._gate.reading():
            return next((item.message.envelope for item in self._of(message_id)), None)

    def totals(self) -> Mapping[tuple[str, str], int]:  # noqa: D102
        with self._gate.reading():
            return dict(self._data.sent)

    def close(self) -> None:  # noqa: D102
        self._gate.closed = True


__all__ = ["MemoryOutbox"]
