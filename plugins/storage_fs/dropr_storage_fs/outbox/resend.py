"""How ended deliveries begin again.

Owns appending known deliveries once more, and `redrive`. Must not know why they ended.
"""

import os
from collections.abc import Sequence

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Selection
from dropr_storage_fs.engine.commit import Commit
from dropr_storage_fs.engine.engine import Engine
from dropr_storage_fs.files.layout import DUPLICATE, EXPIRES, Record, Row
from dropr_storage_fs.outbox.operations import CountRedriven, Forget, Intent, KeepOwnId, SetDue
from dropr_storage_fs.outbox.recovery import expires_in
from dropr_storage_fs.outbox.retention import REDRIVABLE
from dropr_storage_fs.outbox.rows import DeliveryRecord
from dropr_storage_fs.outbox.state import OutboxState
from dropr_storage_fs.outbox.view import OutboxView


def append_again(
    commit: Commit[OutboxState], number: int, rows: Sequence[tuple[DeliveryRecord, Record]], now: float
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
        if own is not None:
            places = [at for at in own.places if at[0] != number] + [(number, place)]
            commit.do(KeepOwnId(record.id, own.fingerprint, own.born, places))
    commit.write()
    commit.frame(number, first, now, again, transaction)


class Resending:
    """`redrive`."""

    def __init__(self, engine: Engine[OutboxState], context: Context, view: OutboxView) -> None:
        self._engine, self._context, self._view = engine, context, view

    def redrive(self, selection: Selection) -> int:
        """Send ended (dead, failed, expired) deliveries again, at the end of their lanes. Durable."""

        def job(commit: Commit[OutboxState]) -> int:
            lanes: dict[int, list[tuple[DeliveryRecord, Record]]] = {}
            for known in self._view.chosen(commit.state, selection):
                if known.state in REDRIVABLE:
                    record = commit.log(known.number).reader.record_at(known.at)
                    if record is not None:
                        lanes.setdefault(known.number, []).append((known, record))
            now = self._context.clock.now()
            for number, rows in lanes.items():
                # In the order in which they were sent, not in which they ended: a lane's order is a promise.
                rows.sort(key=lambda row: (row[1].born, row[0].place))
                append_again(commit, number, rows, now)
            return sum(map(len, lanes.values()))

        return self._engine.write_durable(job)
