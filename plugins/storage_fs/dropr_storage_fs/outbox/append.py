"""Putting messages into the outbox.

Owns `append`: own ids, numbering and storing. Must not know what happens to deliveries afterwards.
"""

import itertools
import os
from collections.abc import Mapping, Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.records import AppendRun, PlainMessages
from dropr_core.contracts.storage import AppendResult, NewMessage
from dropr_core.errors import Conflict, StoreError
from dropr_core.model.names import Lane, format_id
from dropr_core.storage_kit.group_commit import BatchedJob
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.files.layout import DELAYED, EXPIRES, OWN, RECEIPT, Row, UniformRows, encode
from dropr_storage_fs.files.shared import MAX_LOGS
from dropr_storage_fs.outbox.limits import Limits
from dropr_storage_fs.outbox.operations import Intent, KeepOwnId, MakeLane, NoteStaged, SetDue
from dropr_storage_fs.outbox.remembered import PastDeliveries
from dropr_storage_fs.outbox.rows import LaneState, OwnId
from dropr_storage_fs.outbox.state import OutboxState

Messages = Sequence[NewMessage]
OutboxCommit = Commit[OutboxState]


class Appender:
    """`append` of the outbox."""

    def __init__(
        self, engine: Engine[OutboxState], context: Context, limits: Limits, remembered: PastDeliveries
    ) -> None:
        self._engine, self._context, self._limits, self._remembered = engine, context, limits, remembered
        self._run = self._append_all

    def append(self, messages: Messages) -> Sequence[AppendResult]:
        """Store all messages or none, durably; see the contract."""
        self._engine.guard.enter(write=True)
        if not messages:
            return []
        self._engine.space.check()
        return self._engine.write_durable(BatchedJob(self._run, messages))

    def append_staged(self, messages: Messages, log: str, after: int, upto: int) -> bool:
        """`append` with a note about a staging log; see the contract."""
        self._engine.guard.enter(write=True)
        self._engine.space.check()

        def job(commit: OutboxCommit) -> bool:
            if commit.state.staged.get(log, 0) != after:
                commit.journalled = not self._engine.journal_is_flushed()  # another process's note may be undone yet
                return False
            self._append_any(commit, messages, NoteStaged(log, upto))
            return True

        return self._engine.write_durable(job)

    def unstage(self, logs: Sequence[str]) -> None:
        """These staging logs are gone."""

        def job(commit: OutboxCommit) -> None:
            for log in logs:
                if log in commit.state.staged:
                    commit.do(NoteStaged(log, 0))

        self._engine.write_durable(job, reserve=True)

    def _append_all(self, commit: OutboxCommit, calls: list[Messages]) -> list[Sequence[AppendResult]]:
        """What several threads want to append at the same time, in one frame if it is all for one lane."""
        if len(calls) == 1:
            return [self._append_plain(commit, calls[0]) or self._append_any(commit, calls[0])]
        placed = self._append_plain(commit, [message for messages in calls for message in messages])
        if placed:
            stops = list(itertools.accumulate(map(len, calls)))
            return [placed[start:stop] for start, stop in zip([0, *stops], stops)]  # noqa: B905 -- one longer
        return [self._append_plain(commit, messages) or self._append_any(commit, messages) for messages in calls]

    # ── the common case ──────────────────────────────────────────────────────────────────────────

    def _append_plain(self, commit: OutboxCommit, messages: Messages) -> Sequence[AppendResult]:
        """All for one lane that is known, without limits or anything to remember. Else empty."""
        _, channel, priority, peers, *_ = messages[0]
        one = commit.state.lanes.get(Lane(peers[0], channel, priority)) if len(peers) == 1 else None
        if one is None or self._limits.any:
            return []
        if len(messages) == 1:
            return self._append_one(commit, messages[0], one)
        plain = PlainMessages.of(messages)
        if plain is None:
            return []
        rows = UniformRows(plain.ids, plain.envelopes, _flags(plain.like.receipt, plain.like.delayed), b"")
        first = commit.end(one.number).last + 1
        commit.frame(one.number, first, self._context.clock.now(), rows)
        return AppendRun(plain.ids, one.sequence(first))

    def _append_one(self, commit: OutboxCommit, message: NewMessage, lane: LaneState) -> Sequence[AppendResult]:
        identity, _, _, _, envelope, receipt, life, delayed, fingerprint = message
        if life is not None or fingerprint is not None:
            return []
        place = commit.end(lane.number).last + 1
        rows = [(identity, _flags(receipt, delayed), b"", envelope)]
        commit.frame(lane.number, place, self._context.clock.now(), rows)
        return [AppendResult(identity, (lane.sequence(place),), False)]

    # ── any case ─────────────────────────────────────────────────────────────────────────────────

    def _append_any(
        self, commit: OutboxCommit, messages: Messages, note: NoteStaged | None = None
    ) -> list[AppendResult]:
        owns = self._owns(commit.state, messages)
        known = _known(owns, messages)
        for own in owns.values():  # whoever sent it first may be about to flush it, and fail
            for number, _ in own.places:
                if not commit.is_flushed(number):
                    commit.touch(number)
        rows: dict[Lane, list[Row]] = {}
        where: list[list[tuple[Lane, int]]] = []
        for index, message in enumerate(messages):
            mine: list[tuple[Lane, int]] = []
            where.append(mine)
            if index in known:
                continue
            row = _row(message)
            for peer in message.peers:
                lane = Lane(peer, message.channel, message.priority)
                part = rows.setdefault(lane, [])
                mine.append((lane, len(part)))
                part.append(row)
        if rows:
            self._limits.check(commit.state, rows)
        firsts = self._store(commit, rows, note)
        return self._placed(commit, messages, known, where, firsts, owns)

    def _owns(self, state: OutboxState, messages: Messages) -> dict[bytes, OwnId]:
        """What is kept of those that were sent before."""
        out: dict[bytes, OwnId] = {}
        for message in messages:
            if message.fingerprint is not None:
                own = state.own.get(message.id) or self._remembered.own(state, message.id)
                if own is not None:
                    out[message.id] = own
        return out

    def _store(self, commit: OutboxCommit, rows: dict[Lane, list[Row]], note: NoteStaged | None) -> dict[Lane, int]:
        """Write what each lane gets, and the note. Returns the first place of each."""
        state, now = commit.state, self._context.clock.now()
        new = [lane for lane in rows if lane not in state.lanes]
        if state.number + len(new) > MAX_LOGS:
            raise StoreError(f"more than {MAX_LOGS} lanes: use fewer channels")
        for lane in new:
            commit.do(MakeLane(state.number, *lane))
        firsts = {lane: commit.end(state.lanes[lane].number).last + 1 for lane in rows}
        transaction = b""
        if len(rows) > 1 or note is not None:
            # One flush of the journal is the one moment at which all of it is stored; the logs are made to follow.
            transaction = os.urandom(8)
            for lane, part in rows.items():
                commit.intend(Intent(state.lanes[lane].number, firsts[lane], list(part), now, transaction))
        if note is not None:
            commit.do(note)
        commit.write()
        for lane, part in rows.items():
            commit.frame(state.lanes[lane].number, firsts[lane], now, part, transaction)
        return firsts

    def _placed(
        self, commit: OutboxCommit, messages: Messages, known: dict[int, int], where: list[list[tuple[Lane, int]]],
        firsts: dict[Lane, int], owns: Mapping[bytes, OwnId],
    ) -> list[AppendResult]:  # fmt: skip
        state, now = commit.state, self._context.clock.now()
        placed: list[AppendResult] = []
        ops: list[KeepOwnId | SetDue] = []
        for index, message in enumerate(messages):
            if index in known:
                if known[index] < 0:
                    placed.append(AppendResult(message.id, _existing(state, message, owns[message.id]), True))
                else:
                    placed.append(placed[known[index]]._replace(existed=True))
                continue
            sequences = []
            places = []
            for lane, at in where[index]:
                one = state.lanes[lane]
                place = firsts[lane] + at
                sequences.append(one.sequence(place))
                places.append((one.number, place))
            if message.fingerprint is not None:
                ops.append(KeepOwnId(message.id, message.fingerprint, now, places))
            if message.expires_in is not None:
                ops += [SetDue(*at, now + message.expires_in) for at in places]
            placed.append(AppendResult(message.id, tuple(sequences), False))
        for op in ops:
            commit.note(op)
        return placed


def _flags(receipt: bool, delayed: bool) -> int:
    return (RECEIPT if receipt else 0) | (DELAYED if delayed else 0)


def _row(message: NewMessage) -> Row:
    identity, _, _, _, envelope, receipt, expires, delayed, fingerprint = message
    flags, extra = _flags(receipt, delayed), b""
    if expires is not None or fingerprint is not None:
        flags |= (EXPIRES if expires is not None else 0) | (OWN if fingerprint is not None else 0)
        extra = encode([expires, fingerprint])
    return identity, flags, extra, envelope


def _known(owns: Mapping[bytes, OwnId], messages: Messages) -> dict[int, int]:
    """Messages that were sent before → -1, or that stand in this call already → where; raises Conflict."""
    known: dict[int, int] = {}
    seen: dict[bytes, int] = {}
    for index, message in enumerate(messages):
        if message.fingerprint is None:
            continue
        first = seen.setdefault(message.id, index)
        before = owns.get(message.id)
        fingerprint = before.fingerprint if before is not None else messages[first].fingerprint
        if fingerprint != message.fingerprint:
            raise Conflict(f"message {format_id(message.id)} was sent before with other content")
        if before is not None or first != index:
            known[index] = -1 if before is not None else first
    return known


def _existing(state: OutboxState, message: NewMessage, own: OwnId) -> tuple[int, ...]:
    """The sequences of a message that was sent before; 0 where it has ended."""
    at: dict[str, int] = {}
    for number, place in own.places:
        lane = state.numbers[number]
        if state.alive(number, place):
            at[lane.lane.peer] = lane.sequence(place)
    return tuple(at.get(peer, 0) for peer in message.peers)
