"""Puts rows that were read into the store: all that fits.

Owns how many rows go together. The store takes all of a call or nothing, so a portion with one row that does not fit
is halved until that row stands alone. What becomes of such a row is up to `Waiting`, and what becomes of the table up
to who calls. Must not know the table.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import attrs

from dropr_core.api.message_template import Composed
from dropr_core.api.sender import Sender
from dropr_core.errors import QueueFull, UsageError
from dropr_core.model.limits import clip
from dropr_core.outboxes.reading import read_row
from dropr_core.outboxes.waiting import Pair, Queue, queues_of
from dropr_core.transactions.outbox_table import Row


@attrs.define
class Outcome:
    """What became of some rows."""

    sent: list[int] = attrs.Factory(list)
    refused: list[tuple[int, str]] = attrs.Factory(list)
    stop: QueueFull | None = None
    """There is no room for anything: what is named in neither list is left where it is."""


class Ready(NamedTuple):
    """A row that can be stored."""

    seq: int
    composed: Composed
    pairs: tuple[Pair, ...]


MayGo = Callable[[Ready], bool]
Full = Callable[[Ready, Queue, str], None]


class Placing:
    """For one thread."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def place(self, rows: Sequence[Row], outcome: Outcome, may_go: MayGo, full: Full) -> None:
        """Store rows in their order. ``may_go`` is asked for each, in order, and again after others did not fit;
        ``full`` is told which did not, and why. Raises StoreError.
        """
        good: list[Ready] = []
        try:
            for row in rows:
                try:
                    composed = read_row(self._sender, row)
                    pairs = tuple((peer, composed.outgoing.channel) for peer in composed.outgoing.peers)
                    good.append(Ready(row.seq, composed, pairs))
                except UsageError as error:
                    outcome.refused.append((row.seq, clip(str(error))))
                except QueueFull as error:  # no room for its body
                    outcome.stop = error
                    break
            stop, outcome.stop = outcome.stop, None
            self._store(good, outcome, may_go, full)
            outcome.stop = outcome.stop or stop
        finally:
            for one in good:
                if one.composed.written is not None:
                    one.composed.written.release()

    def _store(self, rows: Sequence[Ready], outcome: Outcome, may_go: MayGo, full: Full) -> None:
        """All together; where they are refused (no room, or an id that was used for something else), by halves."""
        rows = [row for row in rows if may_go(row)] if outcome.stop is None else []
        if not rows:
            return
        try:
            self._sender.store([row.composed.outgoing for row in rows], 0.0, ())
            outcome.sent.extend(row.seq for row in rows)
        except UsageError as error:
            if len(rows) == 1:
                outcome.refused.append((rows[0].seq, clip(str(error))))
        except QueueFull as error:
            if error.queue is None or (len(rows) == 1 and not error.never and not _of(rows[0], error.queue)):
                outcome.stop = error
            elif len(rows) == 1 and error.never:
                outcome.refused.append((rows[0].seq, clip(str(error))))
            elif len(rows) == 1:
                full(rows[0], error.queue, str(error))
        else:
            return
        if len(rows) > 1:
            half = len(rows) // 2
            self._store(rows[:half], outcome, may_go, full)
            self._store(rows[half:], outcome, may_go, full)


def _of(row: Ready, queue: Queue) -> bool:
    """Whether a full queue is one of a row's own: what is staged goes first, and may find another one full."""
    return any(queue in queues_of(pair) for pair in row.pairs)


__all__ = ["Outcome", "Placing", "Ready"]
