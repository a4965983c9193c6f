"""Putting messages into the outbox.

Owns `append`: own ids, limits, numbering and storing. Must not know what happens to deliveries afterwards.
"""

import itertools
import os
from collections.abc import Sequence
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import AppendRun
from dropr_core.contracts.storage import AppendResult, NewMessage
from dropr_core.errors import Conflict, QueueFull, StoreError
from dropr_core.model.names import Lane, format_id
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Half
from dropr_storage_fs.engine.group_commit import Together
from dropr_storage_fs.files.layout import DELAYED, EXPIRES, OWN, RECEIPT, Alike, Row, encode
from dropr_storage_fs.files.shared import MAX_LOGS
from dropr_storage_fs.outbox.rows import LaneState
from dropr_storage_fs.outbox.state import OutboxState


class AppendPart:
    """`append` of the outbox."""

    _half: Half
    _context: Context
    _limited: bool

    def append(self, messages: Sequence[NewMessage]) -> Sequence[AppendResult]:
        """Store all messages or none, durably; see the contract."""
        self._half.enter(write=True)
        if not messages:
            return []
        self._half.space.check()
        return self._half.durable(Together(self._append_all, messages))

    def _append_all(self, commit: Commit, calls: list[Sequence[NewMessage]]) -> list[Sequence[AppendResult]]:
        """What several threads want to append at the same time, in one frame if it is all for one lane."""
        if len(calls) == 1:
            return [self._append_plain(commit, calls[0]) or self._append_any(commit, calls[0])]
        placed = self._append_plain(commit, [message for messages in calls for message in messages])
        if placed:
            stops = list(itertools.accumulate(map(len, calls)))
            return [placed[start:stop] for start, stop in zip([0, *stops], stops)]  # noqa: B905 -- one longer
        return [self._append_plain(commit, messages) or self._append_any(commit, messages) for messages in calls]

    def _append_plain(self, commit: Commit, messages: Sequence[NewMessage]) -> Sequence[AppendResult]:
        """The common case: all for one lane that is known, without limits or anything to remember. Else empty."""
        _, channel, priority, peers, *_ = messages[0]
        one = self._half.state.lanes.get((peers[0], channel, priority)) if len(peers) == 1 else None
        if one is None or self._limited:
            return []
        count = len(messages)
        if count == 1:
            return self._append_one(commit, messages[0], one)
        ids, on, levels, to, envelopes, receipts, lives, delays, prints = zip(*messages, strict=True)
        if (  # compared in columns: this is done for every message
            on.count(channel) < count or levels.count(priority) < count or to.count(peers) < count
            or lives.count(None) < count or prints.count(None) < count
        ):  # fmt: skip
            return []
        rows: Sequence[Row]
        if receipts.count(receipts[0]) < count or delays.count(delays[0]) < count:
            rows = [
                (identity, (RECEIPT if receipt else 0) | (DELAYED if delay else 0), b"", envelope)
                for identity, receipt, delay, envelope in zip(ids, receipts, delays, envelopes, strict=True)
            ]
        else:
            flags = (RECEIPT if receipts[0] else 0) | (DELAYED if delays[0] else 0)
            rows = Alike(ids, envelopes, flags, b"")
        first = self._half.log(one.number).end.last + 1
        commit.frame(one.number, first, self._context.clock.now(), rows)
        return AppendRun(ids, one.sequence(first))

    def _append_one(self, commit: Commit, message: NewMessage, lane: LaneState) -> Sequence[AppendResult]:
        identity, _, _, _, envelope, receipt, life, delayed, mark = message
        if life is not None or mark is not None:
            return []
        place = self._half.log(lane.number).end.last + 1
        flags = (RECEIPT if receipt else 0) | (DELAYED if delayed else 0)
        commit.frame(lane.number, place, self._context.clock.now(), [(identity, flags, b"", envelope)])
        return [AppendResult(identity, (lane.sequence(place),), False)]

    def _append_any(self, commit: Commit, messages: Sequence[NewMessage]) -> list[AppendResult]:
        state: OutboxState = self._half.state
        known = self._known(state, messages)
        rows: dict[Lane, list[Row]] = {}
        where: list[list[tuple[Lane, int]]] = []
        for index, message in enumerate(messages):
            if index in known:
                where.append([])
                continue
            identity, channel, priority, peers, envelope, receipt, expires, delayed, fingerprint = message
            flags, extra = 0, b""
            if receipt:
                flags = RECEIPT
            if delayed:
                flags |= DELAYED
            if expires is not None or fingerprint is not None:
                flags |= (EXPIRES if expires is not None else 0) | (OWN if fingerprint is not None else 0)
                extra = encode([expires, fingerprint])
            row = (identity, flags, extra, envelope)
            mine = []
            for peer in peers:
                lane = Lane(peer, channel, priority)
                part = rows.get(lane)
                if part is None:
                    part = rows[lane] = []
                mine.append((lane, len(part)))
                part.append(row)
            where.append(mine)
        if rows:
            self._check_room(state, rows)
        firsts = self._store(commit, state, rows)
        return self._placed(commit, messages, known, where, firsts)

    def _known(self, state: OutboxState, messages: Sequence[NewMessage]) -> dict[int, int]:
        """Messages that were sent before → -1, or that stand in this call already → where; raises Conflict."""
        known: dict[int, int] = {}
        seen: dict[bytes, int] = {}
        for index, message in enumerate(messages):
            if message.fingerprint is None:
                continue
            first = seen.setdefault(message.id, index)
            before = state.own.get(message.id)
            fingerprint = before[0] if before is not None else messages[first].fingerprint
            if fingerprint != message.fingerprint:
                raise Conflict(f"message {format_id(message.id)} was sent before with other content")
            if before is not None or first != index:
                known[index] = -1 if before is not None else first
        return known

    def _store(self, commit: Commit, state: OutboxState, rows: dict[Lane, list[Row]]) -> dict[Lane, int]:
        """Write what each lane gets. Returns the first place of each."""
        half, now = self._half, self._context.clock.now()
        new = [lane for lane in rows if lane not in state.lanes]
        if new:
            if state.number + len(new) > MAX_LOGS:
                raise StoreError(f"more than {MAX_LOGS} lanes: use fewer channels")
            commit.ops([["lane", state.number + index, *lane] for index, lane in enumerate(new)])
        firsts = {lane: half.log(state.lanes[lane].number).end.last + 1 for lane in rows}
        extra = b""
        if len(rows) > 1:
            # One flush of the journal is the one moment at which all of it is stored; the logs are made to follow.
            extra = os.urandom(8)
            for lane, part in rows.items():
                commit.do(["intent", state.lanes[lane].number, firsts[lane], list(part), now, extra])
        commit.write()
        for lane, part in rows.items():
            commit.frame(state.lanes[lane].number, firsts[lane], now, part, extra)
        return firsts

    def _placed(
        self, commit: Commit, messages: Sequence[NewMessage], known: dict[int, int],
        where: list[list[tuple[Lane, int]]], firsts: dict[Lane, int],
    ) -> list[AppendResult]:  # fmt: skip
        state, now = self._half.state, self._context.clock.now()
        placed: list[AppendResult] = []
        ops: list[Any] = []
        for index, message in enumerate(messages):
            if index in known:
                if known[index] < 0:
                    placed.append(AppendResult(message.id, self._existing(state, message), True))
                else:
                    placed.append(placed[known[index]]._replace(existed=True))
                continue
            sequences = []
            places = []
            for lane, at in where[index]:
                one: LaneState = state.lanes[lane]
                place = firsts[lane] + at
                sequences.append(one.sequence(place))
                places.append((one.number, place))
            if message.fingerprint is not None:
                ops.append(["own", message.id, message.fingerprint, now, places])
            if message.expires_in is not None:
                ops += [["due", *at, now + message.expires_in] for at in places]
            placed.append(AppendResult(message.id, tuple(sequences), False))
        for op in ops:
            commit.note(op)
        return placed

    @staticmethod
    def _existing(state: OutboxState, message: NewMessage) -> tuple[int, ...]:
        at: dict[str, int] = {}
        for number, place in state.own[message.id][2]:
            lane = state.numbers[number]
            known = lane.known.get(place)
            if lane.queued(place) or (known is not None and not known.over):
                at[lane.lane.peer] = lane.sequence(place)
        return tuple(at.get(peer, 0) for peer in message.peers)

    def _check_room(self, state: OutboxState, rows: dict[Lane, list[Row]]) -> None:
        context = self._context
        if context.max_messages is not None or context.max_bytes is not None:
            self._check(state, rows, f"the outbox of {context.node}", (context.max_messages, context.max_bytes), "")
        for field, limits in (("peer", context.peer_limits), ("channel", context.channel_limits)):
            if limits:
                for name in {getattr(lane, field) for lane in rows} & set(limits):
                    self._check(state, rows, f"{field} {name}", limits[name], field, name)

    def _check(
        self, state: OutboxState, rows: dict[Lane, list[Row]], what: str, limit: tuple[int | None, int | None],
        field: str, name: str = "",
    ) -> None:  # fmt: skip
        lanes = [one for one in state.numbers.values() if not field or getattr(one.lane, field) == name]
        coming = [part for lane, part in rows.items() if not field or getattr(lane, field) == name]
        logs = [(self._half.log(one.number), one) for one in lanes]
        have = (
            sum(log.end.count - one.gone for log, one in logs),
            sum(log.end.bytes - one.gone_bytes for log, one in logs),
        )
        more = (sum(map(len, coming)), sum(len(row[3]) for part in coming for row in part))
        for unit, most, now, new in zip(("messages", "bytes"), limit, have, more, strict=True):
            if most is not None and now + new > most:
                raise QueueFull(
                    f"{what}: {now} {unit} are waiting, {new} more would be over the limit of {most}; "
                    "try again when some were delivered, or raise the limit"
                )
