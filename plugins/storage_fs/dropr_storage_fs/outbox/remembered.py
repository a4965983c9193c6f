"""Deliveries and own ids that are remembered in files, and not in memory.

Owns which may go there (whatever is over: nothing more happens to it by itself), and how one comes back when something
does. Used inside a job. Must not know how the files are made.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from dropr_core.contracts.context import Context
from dropr_storage_fs.engine import remembered
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.events import Events
from dropr_storage_fs.engine.remembered import Found, Fresh, Remembered
from dropr_storage_fs.engine.run import NO_BODY, Row
from dropr_storage_fs.engine.run_files import RunFiles
from dropr_storage_fs.outbox.changes import as_operation
from dropr_storage_fs.outbox.operations import AddDelivery, KeepOwnId
from dropr_storage_fs.outbox.retention import Retention
from dropr_storage_fs.outbox.rows import DeliveryRecord, LaneState, OwnId, key_of
from dropr_storage_fs.outbox.state import OutboxState

PREFIX = "remembered."
Past = AddDelivery | KeepOwnId

_decode: Callable[[bytes], Past] = msgspec.msgpack.Decoder(Past).decode


class PastDelivery(NamedTuple):
    """A delivery that stands in a run."""

    found: Found[Past]
    record: DeliveryRecord


class PastDeliveries(Remembered[OutboxState, Past]):
    """The runs of one outbox."""

    def __init__(self, directory: Path, context: Context, retention: Retention) -> None:
        super().__init__(RunFiles(directory, PREFIX, Events(directory, context)), context.clock)
        self._retention = retention

    def decode(self, payload: bytes) -> Past:
        """A delivery, or an own id."""
        return _decode(payload)

    def identify(self, op: Past) -> tuple[int | None, bytes]:
        """Own ids are found by their id alone."""
        return (key_of(op.lane, op.place) if isinstance(op, AddDelivery) else None), op.id

    def key(self, log: int, sequence: int) -> int:
        """Lane and place."""
        return key_of(log, sequence)

    def row(self, op: Past) -> Row:
        """Of a delivery."""
        assert isinstance(op, AddDelivery)
        return Row(op.lane, op.state, op.size, op.segment)

    def until(self, op: Past) -> float:
        """Of what version 1 of a run has: what was processed, and own ids."""
        return self._retention.remembered_until(op.changed if isinstance(op, AddDelivery) else op.born)

    # ── looking up ───────────────────────────────────────────────────────────────────────────────

    def own(self, state: OutboxState, message_id: bytes) -> OwnId | None:
        """What is kept of a message with an id that the caller chose."""
        found = [op for _, op in self.keyless(state, message_id) if isinstance(op, KeepOwnId)]
        if not found:
            return None
        # Of one that was sent again there may be several: the latest has the highest places.
        op = max(found, key=lambda op: sum(place for _, place in op.places))
        return OwnId(op.fingerprint, op.born, op.places)

    def named(self, state: OutboxState, message_id: bytes) -> list[PastDelivery]:
        """All deliveries of a message."""
        return [_delivery(found) for found in self.of_message(state, message_id)]

    def of_place(self, state: OutboxState, lane: LaneState, place: int) -> PastDelivery | None:
        """What stands at a place of a lane."""
        found = self.at(state, key_of(lane.number, place))
        return None if found is None else _delivery(found)

    def of_lane(self, state: OutboxState, lane: LaneState, after: int) -> Iterator[PastDelivery]:
        """All deliveries of a lane beyond a place, in order."""
        return map(_delivery, self.between(state, key_of(lane.number, after + 1), key_of(lane.number + 1, 0)))

    def back(self, commit: Commit[OutboxState], past: PastDelivery) -> DeliveryRecord:
        """A delivery is in memory again: something happens to it."""
        self.recall(commit, past.found)
        return commit.state.numbers[past.record.number].known[past.record.place]

    # ── setting down ─────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def wanted(state: OutboxState) -> bool:
        """Whether so much may go out of memory that it should."""
        return state.holes or remembered.asks(state.settled, state.settled_bytes, len(state.by_id) - state.settled)

    def fresh(self, state: OutboxState) -> list[Fresh[Past]]:
        """What is over; own ids to whose messages nothing more happens."""
        out: list[Fresh[Past]] = []
        for lane in state.numbers.values():
            for record in lane.known.values():
                if record.over:
                    op = as_operation(record)
                    if not self._retention.body_is_kept(lane, record):
                        op.segment = NO_BODY
                    until = self._retention.forgotten_at(lane, record)
                    out.append(Fresh(key_of(lane.number, record.place), record.id, until, op, record.weight))
        out.sort(key=lambda one: one.key or 0)
        for identity, own in state.own.items():
            if not any(state.alive(number, place) for number, place in own.places):
                until = self._retention.remembered_until(own.born)
                out.append(Fresh(None, identity, until, KeepOwnId(identity, *own)))
        return out

    def release(self, state: OutboxState, fresh: Iterable[Fresh[Past]]) -> None:
        """They are not in memory any more."""
        for one in fresh:
            if isinstance(one.op, AddDelivery):
                state.set_down(one.op.lane, one.op.place)
            else:
                state.own.pop(one.id)


def _delivery(found: Found[Past]) -> PastDelivery:
    assert isinstance(found.op, AddDelivery)  # own ids have no key
    return PastDelivery(found, found.op.record())
