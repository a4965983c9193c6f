"""The operations that deliveries change by, made from what is known of them.

Owns what goes into them. Must not know when they are written.
"""

from dropr_core.model.message import State
from dropr_storage_fs.files.layout import DUPLICATE
from dropr_storage_fs.files.layout import Record as LogRecord
from dropr_storage_fs.files.segment import Place
from dropr_storage_fs.outbox.operations import AddDelivery, ChangeDelivery
from dropr_storage_fs.outbox.rows import DeliveryRecord, LaneState


def flags_of(lane: LaneState, record: LogRecord) -> int:
    """The flags of a record, with that of a possible duplicate where the lane says so."""
    again = record.sequence <= max(lane.duplicate, lane.high)
    return record.flags | DUPLICATE if again else record.flags


def add_queued(
    lane: LaneState, record: LogRecord, where: Place, to: State, now: float, reason: str = "",
    result: bytes | None = None, result_type: str = "",
) -> AddDelivery:  # fmt: skip
    """A queued delivery gets a state of its own."""
    return AddDelivery(
        lane.number, record.sequence, record.id, to, now, record.born, flags_of(lane, record), len(record.envelope),
        reason, result, result_type, *where, True,
    )  # fmt: skip


def change(
    record: DeliveryRecord, to: State, now: float, reason: str = "", result: bytes | None = None, result_type: str = ""
) -> ChangeDelivery:
    """A delivery with a state of its own gets another."""
    return ChangeDelivery(record.number, record.place, to, now, reason, result, result_type)


def as_operation(record: DeliveryRecord) -> AddDelivery:
    """As snapshots and runs have it: the counters of the lane have it counted out."""
    return AddDelivery(
        record.number, record.place, record.id, record.state, record.changed, record.born, record.flags, record.size,
        record.reason, record.result, record.result_type, *record.at, False,
    )  # fmt: skip
