"""Takes messages out of one table of the user's database into the lanes, once, in the order of their numbers.

Owns one step: rows are read, appended to the outbox of the store (durable, and known by their ids if that is done
twice), then deleted from the table. Killed anywhere in between, the step is done again: nothing is lost, nothing is
sent twice. A row that cannot be sent is set aside with its reason and holds up nobody. Must not know threads, nor when
it is called.
"""

import logging
from collections.abc import Sequence
from typing import Any

import attrs

from dropr_core.api.message_template import Composed
from dropr_core.api.outboxes import Outbox
from dropr_core.api.runtime import Runtime
from dropr_core.api.sender import Sender
from dropr_core.errors import UsageError
from dropr_core.model.limits import clip
from dropr_core.outboxes.reading import LARGEST, read_row
from dropr_core.system.log_fields import about
from dropr_core.transactions.databases import Link
from dropr_core.transactions.outbox_table import Row

ROWS = 1000
"""Rows in one step at most."""
BYTES = 8 * 1024 * 1024
"""Bytes of their bodies at most; one is taken whatever its size."""


@attrs.define
class _Step:
    """What became of some rows."""

    sent: list[int]
    refused: list[tuple[int, str]]


@attrs.frozen
class _Choice:
    """The rows of a step, by their numbers."""

    numbers: list[int]
    too_large: list[tuple[int, str]]
    found: int
    """How many were looked at."""


class Relay:
    """The one of an outbox. For one thread."""

    def __init__(self, runtime: Runtime, outbox: Outbox, log: logging.Logger) -> None:
        self._runtime, self._outbox, self._log = runtime, outbox, log
        self._sender = Sender(runtime)
        self._undone: _Step | None = None
        """What stands in the store, and still in the table of SQLite: its user held the database for too long."""

    def step(self, link: Link) -> bool:
        """Take some rows; whether there may be more. Raises StoreError: what was not done is done by the next call."""
        if link.kind == "postgresql":
            chosen = self._choose(link)
            if chosen is None:
                return False
            link.harden()  # nothing is sent on that a crash of the server could take back
            with link.transaction():  # our rows are locked until they are deleted
                step, more = self._take(link, chosen)
                self._write(link, step)
        else:
            # Nobody else takes rows of this node, and who writes must not wait for a flush of ours.
            more = True
            if self._undone is None:
                chosen = self._choose(link)
                if chosen is None:
                    return False
                link.harden()
                self._undone, more = self._take(link, chosen)
            if self._undone.sent or self._undone.refused:
                with link.transaction():
                    self._write(link, self._undone)
            step, self._undone = self._undone, None
        for number, problem in step.refused:
            self._log.error(
                "outbox %s: row %d cannot be sent and is set aside: %s; when that is mended: 'dropr outbox redrive'",
                self._outbox.name, number, problem, extra=about(),
            )  # fmt: skip
        return more

    def _choose(self, link: Link) -> _Choice | None:
        """Which rows come next; None: there are none."""
        found = link.run(self._outbox.table.sizes(self._runtime.name, ROWS))
        choice, total = _Choice([], [], len(found)), 0
        for number, size in found:
            if size > LARGEST:
                choice.too_large.append((number, f"the row has {size} bytes, more than {LARGEST}: send it as a file"))
                continue
            if choice.numbers and total + size > BYTES:
                break
            choice.numbers.append(number)
            total += size
        return choice if found else None

    def _take(self, link: Link, choice: _Choice) -> tuple[_Step, bool]:
        """Read rows and put them into the store; whether there may be more."""
        step = _Step([], list(choice.too_large))
        if choice.numbers:
            self._send([_row(values) for values in link.run(self._outbox.table.rows(choice.numbers))], step)
        return step, len(choice.numbers) + len(choice.too_large) < choice.found or choice.found == ROWS

    def _send(self, rows: Sequence[Row], step: _Step) -> None:
        good: list[tuple[int, Composed]] = []
        try:
            for row in rows:
                try:
                    good.append((row.seq, read_row(self._sender, row)))
                except UsageError as error:
                    step.refused.append((row.seq, clip(str(error))))
            if good:
                self._store(good, step)
        finally:
            for _, one in good:
                if one.written is not None:
                    one.written.release()

    def _store(self, good: Sequence[tuple[int, Composed]], step: _Step) -> None:
        """All together; where one is refused (its id was used for something else), one by one."""
        try:
            self._sender.store([one.outgoing for _, one in good], 0.0, ())
            step.sent.extend(number for number, _ in good)
        except UsageError as error:
            if len(good) == 1:
                step.refused.append((good[0][0], clip(str(error))))
                return
            for one in good:
                self._store([one], step)

    def _write(self, link: Link, step: _Step) -> None:
        for number, problem in step.refused:
            link.run(self._outbox.table.set_aside(number, problem))
        if step.sent:
            link.run(self._outbox.table.delete(step.sent))


def _row(values: Sequence[Any]) -> Row:
    """As the drivers give it: bytes may be a view, and in SQLite a text."""
    row = Row(*values)
    body = row.body.encode() if isinstance(row.body, str) else bytes(row.body)
    prepared = None if row.prepared is None else bytes(row.prepared)
    return row._replace(body=body, prepared=prepared, age=float(row.age))


__all__ = ["Relay"]
