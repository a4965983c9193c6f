"""Takes messages out of one table of the user's database into the lanes, once, in the order of their numbers.

Owns one step: rows are read, appended to the outbox of the store (durable, and known by their ids if that is done
twice), then deleted from the table. Killed anywhere in between, the step is done again: nothing is lost, nothing is
sent twice. A row that cannot be sent is set aside with its reason, a row whose queue is full waits for it (waiting.py),
and neither holds up what goes elsewhere. Must not know threads, nor when it is called.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from dropr_core.api.outboxes import Outbox
from dropr_core.api.runtime import Runtime
from dropr_core.api.sender import Sender
from dropr_core.outboxes.placing import Outcome, Placing, Ready
from dropr_core.outboxes.reading import LARGEST, pairs_of
from dropr_core.outboxes.waiting import Queue, Waiting
from dropr_core.system.log_fields import about
from dropr_core.transactions.databases import Link
from dropr_core.transactions.outbox_table import Row, Seen

ROWS = 1000
"""Rows in one look at most."""
BYTES = 8 * 1024 * 1024
"""Bytes of their bodies at most; one is taken whatever its size."""
TRIES = 16
"""Full queues that are tried in one step at most."""


@attrs.define
class _Look:
    """A page of rows, and what became of it."""

    after: int
    """It begins behind this number."""
    end: int
    """The last row that was considered."""
    last: bool
    """There is nothing behind it."""
    queue: Queue | None = None
    """It is the one row that waits for this queue, and is tried again."""
    gone: bool = False
    """That row is not in the table any more."""
    numbers: list[int] = attrs.Factory(list)
    """What is taken."""
    outcome: Outcome = attrs.Factory(Outcome)


class Relay:
    """The one of an outbox. For one thread."""

    def __init__(self, runtime: Runtime, outbox: Outbox, log: logging.Logger) -> None:
        self._runtime, self._outbox, self._log = runtime, outbox, log
        self._sender = Sender(runtime)
        self._placing = Placing(self._sender)
        self._waiting = Waiting()
        self._undone: _Look | None = None
        """What stands in the store, and still in the table of SQLite: its user held the database for too long."""

    @property
    def full(self) -> Mapping[Queue, str]:
        """Full queues for which rows wait, each with what the store said."""
        return self._waiting.reasons

    def rest(self) -> float:
        """Seconds until `step` has something to do though nothing new is in the table."""
        return self._waiting.rest(time.monotonic())

    def begin_anew(self) -> None:
        """Nothing that was seen of the table before holds: it is looked at over another connection."""
        self._waiting = Waiting()
        if self._undone is not None:
            self._undone.queue = None

    def step(self, link: Link) -> bool:
        """Take some rows; whether there may be more. Raises StoreError: what was not done is done by the next call.
        Of these QueueFull means that there is no room for anything.
        """
        if self._undone is not None:
            look = self._undone
            with link.transaction():
                self._write(link, look.outcome)
            self._undone = None
            self._done(look)
        more, waiting = False, self._waiting
        waited = waiting.any
        for queue, row in waiting.due(time.monotonic())[:TRIES]:
            self._take(link, _Look(row - 1, row, last=False, queue=queue, numbers=[row]))
        for after in waiting.starts(time.monotonic()):
            more |= self._look(link, after)
            if waited and not waiting.any:
                return True  # from the beginning, for what became visible late
        return more or waiting.going_back

    def _look(self, link: Link, after: int) -> bool:
        """Take what may go of the rows behind a number; whether there are more."""
        page = [Seen(*values) for values in link.run(self._outbox.table.page(self._runtime.name, after, ROWS))]
        look = _Look(after, after, last=len(page) < ROWS)
        self._waiting.found(after, [row.seq for row in page], time.monotonic(), last=look.last)
        total = 0
        for row in page:
            if row.size > LARGEST:
                problem = f"the row has {row.size} bytes, more than {LARGEST}: send it as a file"
                look.outcome.refused.append((row.seq, problem))
            elif self._may_be_next(row, after):
                if look.numbers and total + row.size > BYTES:
                    look.last = False
                    break
                look.numbers.append(row.seq)
                total += row.size
            look.end = row.seq
        self._take(link, look)
        return not look.last

    def _may_be_next(self, row: Seen, after: int) -> bool:
        """Whether nothing is known that a row waits for; those that do are not read."""
        if not self._waiting.any:
            return True
        pairs = pairs_of(self._sender, row)
        return pairs is None or self._waiting.may_go(row.seq, pairs, after, time.monotonic())

    def _take(self, link: Link, look: _Look) -> None:
        """Put rows into the store and delete them."""
        if look.numbers or look.outcome.refused:
            link.harden()  # nothing is sent on that a crash of the server could take back
            if link.kind == "postgresql":
                with link.transaction():  # our rows are locked until they are deleted
                    self._place(link, look)
                    self._write(link, look.outcome)
            else:
                # Nobody else takes rows of this node, and who writes must not wait for a flush of ours.
                self._place(link, look)
                self._undone = look
                if look.outcome.sent or look.outcome.refused:
                    with link.transaction():
                        self._write(link, look.outcome)
                self._undone = None
        self._done(look)

    def _place(self, link: Link, look: _Look) -> None:
        if not look.numbers:
            return
        waiting, now = self._waiting, time.monotonic()

        def may_go(row: Ready) -> bool:
            return look.queue is not None or waiting.may_go(row.seq, row.pairs, look.after, now)

        def full(row: Ready, queue: Queue, reason: str) -> None:
            waiting.block(row.seq, row.pairs, queue, reason, now)

        rows = [_row(values) for values in link.run(self._outbox.table.rows(look.numbers))]
        if look.queue is not None and not rows:  # locked by somebody, or taken away
            page = link.run(self._outbox.table.page(self._runtime.name, look.after, 1))
            look.gone = not any(values[0] == look.end for values in page)
        self._placing.place(rows, look.outcome, may_go, full)

    def _write(self, link: Link, outcome: Outcome) -> None:
        for number, problem in outcome.refused:
            link.run(self._outbox.table.set_aside(number, problem))
        if outcome.sent:
            link.run(self._outbox.table.delete(outcome.sent))

    def _done(self, look: _Look) -> None:
        """The table is as it should be. Raises QueueFull if there is no room for more."""
        outcome, now = look.outcome, time.monotonic()
        for number, problem in outcome.refused:
            self._log.error(
                "outbox %s: row %d cannot be sent and is set aside: %s; when that is mended: 'dropr outbox redrive'",
                self._outbox.name, number, problem, extra=about(),
            )  # fmt: skip
        if outcome.stop is not None:
            raise outcome.stop
        if look.queue is not None:
            waits = not (look.gone or outcome.sent or outcome.refused)
            self._waiting.tried(look.queue, look.end, now, waits=waits)
        else:
            self._waiting.looked(look.after, look.end, now, last=look.last)


def _row(values: Sequence[Any]) -> Row:
    """As the drivers give it: bytes may be a view, and in SQLite a text."""
    row = Row(*values)
    body = row.body.encode() if isinstance(row.body, str) else bytes(row.body)
    prepared = None if row.prepared is None else bytes(row.prepared)
    return row._replace(body=body, prepared=prepared, age=float(row.age))


__all__ = ["Relay"]
