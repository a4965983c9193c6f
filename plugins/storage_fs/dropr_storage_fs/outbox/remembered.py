"""Deliveries and own ids that are remembered in files, and not in memory.

Owns looking them up (by message, by place, in order) and setting them down: when a new generation of the journal
begins, what is merely remembered goes into a new run, together with older runs that are not much larger. Used inside a
job. Must not know when a generation begins.
"""

import contextlib
import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from dropr_core.model.message import State
from dropr_core.system.clock import Clock
from dropr_storage_fs.files import sorted_run
from dropr_storage_fs.files.layout import encode
from dropr_storage_fs.files.segment import Place
from dropr_storage_fs.files.sorted_run import Entry, SortedRun
from dropr_storage_fs.outbox.changes import as_operation
from dropr_storage_fs.outbox.operations import AddDelivery, KeepOwnId
from dropr_storage_fs.outbox.retention import Retention
from dropr_storage_fs.outbox.rows import DeliveryRecord, LaneState, OwnId, Run, key_of
from dropr_storage_fs.outbox.state import OutboxState

PREFIX = "remembered."
SET_DOWN_AT, RUN_LEAST, RUN_MOST = 4096, 1024, 100_000
"""So many deliveries in memory that are merely remembered ask for a run; a run is not made for fewer records, and takes
no older ones in beyond so many."""

_decode = msgspec.msgpack.Decoder(AddDelivery | KeepOwnId).decode


class Found(NamedTuple):
    """A delivery, and the run that it stands in."""

    run: int
    key: int
    record: DeliveryRecord


class Remembered:
    """The runs of one outbox."""

    def __init__(self, directory: Path, clock: Clock, retention: Retention) -> None:
        self._directory, self._clock, self._retention = directory, clock, retention
        self._open: dict[int, SortedRun] = {}

    # ── looking up ───────────────────────────────────────────────────────────────────────────────

    def _runs(self, state: OutboxState) -> Iterator[tuple[Run, SortedRun]]:
        """Every run that can be read, the newest first."""
        for number in [number for number in self._open if number not in state.runs]:
            self._open.pop(number).close()
        for number in sorted(state.runs, reverse=True):
            run = self._run(number)
            if run is not None:
                yield state.runs[number], run

    def _run(self, number: int) -> SortedRun | None:
        found = self._open.get(number)
        if found is None:
            with contextlib.suppress(FileNotFoundError):
                found = self._open[number] = SortedRun(self._path(number))
        return found if found is not None and found.good else None

    def _path(self, number: int) -> Path:
        return self._directory / f"{PREFIX}{number:08d}"

    def of_message(self, state: OutboxState, message_id: bytes) -> list[Found]:
        """All deliveries of a message."""
        out: list[Found] = []
        for run, file in self._runs(state):
            for payload in file.find(message_id):
                out += self._found(run, _decode(payload))
        return out

    def own(self, state: OutboxState, message_id: bytes) -> OwnId | None:
        """What is kept of a message with an id that the caller chose."""
        for _, file in self._runs(state):
            for payload in file.find(message_id):
                op = _decode(payload)
                if isinstance(op, KeepOwnId) and not self._retention.is_past(op.born, self._clock.now()):
                    return OwnId(op.fingerprint, op.born, op.places)
        return None

    def at(self, state: OutboxState, lane: LaneState, place: int) -> DeliveryRecord | None:
        """What stands at a place of a lane."""
        key = key_of(lane.number, place)
        return next((found.record for found in self._between(state, key - 1, key + 1)), None)

    def after(self, state: OutboxState, lane: LaneState, place: int) -> Iterator[Found]:
        """All deliveries of a lane beyond a place, in order."""
        return self._between(state, key_of(lane.number, place), key_of(lane.number + 1, 0))

    def _between(self, state: OutboxState, key: int, before: int) -> Iterator[Found]:
        sources = [self._of_run(run, file, key, before) for run, file in self._runs(state)]
        return heapq.merge(*sources, key=lambda found: found.key)

    def _of_run(self, run: Run, file: SortedRun, key: int, before: int) -> Iterator[Found]:
        for _, payload in file.after(key, before):
            yield from self._found(run, _decode(payload))

    def _found(self, run: Run, op: AddDelivery | KeepOwnId) -> list[Found]:
        if not isinstance(op, AddDelivery) or self._retention.is_past(op.changed, self._clock.now()):
            return []
        key = key_of(op.lane, op.place)
        if key in run.gone:
            return []
        record = DeliveryRecord(
            op.lane, op.place, op.id, State(op.state), op.changed, op.born, op.flags, op.size, op.reason, op.result,
            op.result_type, Place(op.segment, op.offset),
        )  # fmt: skip
        return [Found(run.number, key, record)]

    # ── setting down ─────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def wanted(state: OutboxState) -> bool:
        """Whether so much is merely remembered that it should go into a run."""
        settled = state.settled
        return settled >= SET_DOWN_AT and 4 * settled >= len(state.by_id) - settled

    def set_down(self, state: OutboxState, number: int) -> None:
        """Make a run of what is merely remembered, if that is much. Raises OSError; then nothing has changed."""
        now = self._clock.now()
        for past in [run.number for run in state.runs.values() if self._retention.run_ends_at(run) <= now]:
            state.drop_run(past)
        records = [
            record
            for lane in state.numbers.values()
            for record in lane.known.values()
            if self._retention.merely_remembered(lane, record)
        ]
        owns = [identity for identity, own in state.own.items() if not self._is_needed(state, own)]
        if len(records) + len(owns) < RUN_LEAST:
            return
        absorbed = self._absorbed(state, len(records) + len(owns))
        ops = [op for one in absorbed for op in self._rest_of(state.runs[one])]
        ops += [as_operation(record) for record in records]
        ops += [KeepOwnId(identity, *state.own[identity]) for identity in owns]
        run = self._write(number, ops)
        stale = self._open.pop(number, None)  # of the same number, made in vain before
        if stale is not None:
            stale.close()
        for one in absorbed:
            state.drop_run(one)
        for record in records:
            state.set_down(record)
        for identity in owns:
            del state.own[identity]
        state.use_run(run)

    def _is_needed(self, state: OutboxState, own: OwnId) -> bool:
        """Whether something may still happen to a message with an own id."""
        for number, place in own.places:
            lane = state.numbers[number]
            record = lane.known.get(place)
            if lane.queued(place) or (record is not None and not self._retention.merely_remembered(lane, record)):
                return True
        return False

    @staticmethod
    def _absorbed(state: OutboxState, count: int) -> list[int]:
        """Runs that go into a new one: the newest ones, as long as they are not much larger than what is there."""
        out: list[int] = []
        for number in sorted(state.runs, reverse=True):
            size = state.runs[number].count
            if size > 4 * count or size + count > RUN_MOST:
                break
            out.append(number)
            count += size
        return out

    def _rest_of(self, run: Run) -> Iterator[AddDelivery | KeepOwnId]:
        """What of a run is still remembered."""
        file, now = self._run(run.number), self._clock.now()
        for payload in [] if file is None else file.everything():
            op = _decode(payload)
            if isinstance(op, KeepOwnId):
                if not self._retention.is_past(op.born, now):
                    yield op
            elif key_of(op.lane, op.place) not in run.gone and not self._retention.is_past(op.changed, now):
                yield op

    def _write(self, number: int, ops: Iterable[AddDelivery | KeepOwnId]) -> Run:
        run = Run(number, 0, 0.0)
        keyed: list[Entry] = []
        others: list[Entry] = []
        for op in ops:
            run.count += 1
            if isinstance(op, AddDelivery):
                run.newest = max(run.newest, op.changed)
                run.processed[op.lane] += 1
                keyed.append(Entry(key_of(op.lane, op.place), op.id, encode(op)))
            else:
                run.newest = max(run.newest, op.born)
                others.append(Entry(None, op.id, encode(op)))
        keyed.sort(key=lambda entry: entry.key or 0)
        sorted_run.write(self._path(number), [*keyed, *others])
        return run

    def tidy(self, state: OutboxState) -> None:
        """Remove the files of runs that nobody knows any more."""
        for path in self._directory.glob(f"{PREFIX}*"):
            digits = path.name.removeprefix(PREFIX)
            if digits.isdigit() and int(digits) not in state.runs:
                with contextlib.suppress(OSError):
                    path.unlink()

    def close(self) -> None:
        """Close all files; safe twice."""
        while self._open:
            self._open.popitem()[1].close()
