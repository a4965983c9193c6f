"""How ended deliveries begin again.

Owns appending known deliveries once more. Must not know why they ended, nor who wants them again.
"""

import os
from collections.abc import Sequence

from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.files.layout import DUPLICATE, EXPIRES, OWN, Record, Row
from dropr_storage_fs.outbox.operations import CountRedriven, Forget, Intent, KeepOwnId, SetDue
from dropr_storage_fs.outbox.recovery import expires_in
from dropr_storage_fs.outbox.remembered import PastDeliveries
from dropr_storage_fs.outbox.rows import DeliveryRecord
from dropr_storage_fs.outbox.state import OutboxState


def append_again(
    commit: Commit[OutboxState],
    remembered: PastDeliveries,
    number: int,
    rows: Sequence[tuple[DeliveryRecord, Record]],
    now: float,
) -> None:
    """Append known deliveries of a lane once more, as possible duplicates."""
    if not rows:
        return
    first, transaction = commit.end(number).last + 1, os.urandom(8)
    again: list[Row] = [(record.id, record.flags | DUPLICATE, record.extra, record.envelope) for _, record in rows]
    commit.intend(Intent(number, first, again, now, transaction))
    commit.do(CountRedriven(number, len(rows)))
    for index, (known, record) in enumerate(rows):
        place = first + index
        commit.do(Forget(number, known.place))
        if record.flags & EXPIRES:
            commit.do(SetDue(number, place, now + expires_in(record)))
        own = commit.state.own.get(record.id)
        if own is None and record.flags & OWN:
            own = remembered.own(commit.state, record.id)
        if own is not None:
            places = [at for at in own.places if at[0] != number] + [(number, place)]
            commit.do(KeepOwnId(record.id, own.fingerprint, own.born, places))
    commit.write()
    commit.frame(number, first, now, again, transaction)
