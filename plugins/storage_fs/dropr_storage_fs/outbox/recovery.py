"""The outbox for the engine: its operations, its snapshot, and what its logs tell after a death.

Owns nothing of the live state. Must not know files.
"""

from collections.abc import Mapping, Sequence
from typing import get_args

import msgspec

from dropr_storage_fs.engine.model import HalfModel
from dropr_storage_fs.engine.operations import Lost, Meta, Operation, UseRun
from dropr_storage_fs.files.layout import EXPIRES, OWN, Frame
from dropr_storage_fs.files.layout import Record as LogRecord
from dropr_storage_fs.outbox import operations
from dropr_storage_fs.outbox.changes import as_operation
from dropr_storage_fs.outbox.operations import (
    AnyOperation,
    FullLane,
    HoldPeer,
    KeepOwnId,
    LaneCounters,
    MakeLane,
    MoveCursor,
    NoteStaged,
    SetDue,
)
from dropr_storage_fs.outbox.remembered import PastDeliveries
from dropr_storage_fs.outbox.retention import Retention
from dropr_storage_fs.outbox.rows import LaneState
from dropr_storage_fs.outbox.state import OutboxState

LOST_KEPT = 8
"""Generations given up after a disk error that are remembered: whoever waited for one of them asks soon."""

_decode = msgspec.msgpack.Decoder(list[AnyOperation]).decode
_decode_label = msgspec.json.Decoder(MakeLane).decode


class RecordExtra(msgspec.Struct, array_like=True):
    """What stands in a record with an own id or an expiry."""

    expires_in: float | None
    fingerprint: bytes | None


_decode_extra = msgspec.msgpack.Decoder(RecordExtra).decode


def expires_in(record: LogRecord) -> float:
    """Seconds after `send` after which a record with this flag expires."""
    return _decode_extra(record.extra).expires_in or 0.0


class OutboxModel(HalfModel[OutboxState]):
    """See module."""

    operations = get_args(AnyOperation)

    def __init__(self, retention: Retention, remembered: PastDeliveries) -> None:
        self._retention, self._remembered = retention, remembered

    def make_state(self) -> OutboxState:
        """An empty state."""
        return OutboxState(self._retention)

    def decode(self, payload: bytes) -> Sequence[Operation[OutboxState]]:
        """The operations of a commit."""
        return _decode(payload)

    def decode_label(self, data: bytes) -> tuple[int, Operation[OutboxState]]:
        """What stands beside a lane's log."""
        found = _decode_label(data)
        return found.lane, found

    def label(self, state: OutboxState, number: int) -> Sequence[object]:
        """What is written down beside it."""
        return ["lane", number, *state.numbers[number].lane]

    def snapshot(self, state: OutboxState) -> list[Operation[OutboxState]]:
        """Operations that make this state from nothing."""
        ops: list[Operation[OutboxState]] = [Meta(state.store, state.number)]
        ops += [Lost(generation) for generation in state.lost[-LOST_KEPT:]]
        for number, lane in state.numbers.items():
            ops.append(MakeLane(number, *lane.lane))
            ops += [as_operation(record) for record in lane.known.values()]
            ops.append(FullLane(number, _counters(lane), state.ends.get(number)))
        ops += [UseRun.of(run) for run in state.runs.values()]
        for name, peer in state.peers.items():
            ops.append(HoldPeer(name, peer.held, peer.reason))
            if peer.log is not None:
                ops.append(MoveCursor(name, peer.log, peer.cursor))
        ops += [KeepOwnId(key, *own) for key, own in state.own.items()]
        ops += [NoteStaged(*note) for note in state.staged.items()]
        ops += [SetDue(*at, moment) for at, moment in state.due.items()]
        return ops

    def wants_generation(self, state: OutboxState) -> bool:
        """When much is over."""
        return self._remembered.wanted(state)

    def set_down(self, state: OutboxState, number: int) -> None:
        """Into a run. Raises OSError."""
        self._remembered.set_down(state, number)

    def journal_version(self, state: OutboxState) -> int:
        """3 if there is anything that an older version does not know: it must not open it."""
        return 3 if state.runs or any(lane.voids for lane in state.numbers.values()) else 1

    def tidy(self, state: OutboxState) -> None:
        """Runs that nobody knows any more go."""
        self._remembered.tidy(state.runs)

    def recovered(
        self,
        state: OutboxState,
        number: int,
        frame: Frame,
        records: Sequence[LogRecord],
        segment: int,  # noqa: ARG002
    ) -> list[Operation[OutboxState]]:
        """Own ids and times of expiry stand in the records, too."""
        ops: list[Operation[OutboxState]] = []
        lane = state.numbers[number]
        if frame.extra and frame.extra not in state.transactions and not state.damaged:
            # A part of a call for several lanes that was never promised: the journal does not know it.
            size = sum(len(record.envelope) for record in records)
            return [operations.Void(number, frame.first, frame.count, size)]
        for record in records:
            if record.flags & (OWN | EXPIRES):
                extra, place = _decode_extra(record.extra), record.sequence
                expires = bool(record.flags & EXPIRES) and lane.queued(place)
                if expires and (number, place) not in state.due:
                    ops.append(SetDue(number, place, record.born + (extra.expires_in or 0.0)))
                if record.flags & OWN and record.id not in state.own:
                    ops.append(KeepOwnId(record.id, extra.fingerprint or b"", record.born, [(number, place)]))
        return ops

    def forget_beyond(self, state: OutboxState, last: Mapping[int, int]) -> None:
        """Forget notes about places that a log never got."""
        state.due = {at: moment for at, moment in state.due.items() if at[1] <= last.get(at[0], at[1])}
        for identity, own in list(state.own.items()):
            if any(place > last.get(number, place) for number, place in own.places):
                del state.own[identity]


def _counters(lane: LaneState) -> LaneCounters:
    return LaneCounters(
        lane.head, lane.head_id, lane.high, lane.base, lane.gaps, lane.duplicate, sorted(lane.requeued), [],
        lane.gone, lane.gone_bytes, lane.redriven, lane.in_flight, lane.voids.packed(),
    )  # fmt: skip
