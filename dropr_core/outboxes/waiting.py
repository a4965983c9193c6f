"""Which rows of a table wait because a queue is full, and where to look for those that may go.

Owns the order: of a pair (peer, channel) nothing overtakes what waits; a row to several peers waits for each of them,
and what follows it to any of them waits behind it. And owns the bound: of each pair only the first row that waits is
known, of each full queue only that one is tried again, and rows are passed over once, however many they are. Numbers
in, numbers out; must not know tables, stores or clocks.

A look is a page of rows in order, from a number on. Between two numbers each pair is in one of three states:

    free      nothing of it waits: whatever is found may go
    waiting   from its `first` row on everything waits
    back      there is room again: its rows are looked for from that number on, up to where every row was seen once
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs

from dropr_core.model.backoff import Backoff

Pair = tuple[str, str]
"""Peer, channel."""
Queue = tuple[str, str]
"""What is full: ("peer", name) or ("channel", name)."""

BEGINNING = -(1 << 63)
"""Before every row."""
ROOM = Backoff(1.0, 10.0)
"""Rests between two tries whether a full queue has room."""
WINDOW = 500
"""Numbers before the last row that are looked at again each time: transactions at the same time end in any order."""
AGAIN = 60.0
"""Seconds between two looks at everything, for rows that became visible later than that."""
SHARE = 20
"""Such looks take one part in so many of the time at most, however many rows wait."""
_ALL = ("", "")
"""In place of a pair: everything is looked at again."""


@attrs.define
class _Full:
    """A queue without room."""

    reason: str
    next: float
    """When its first row is tried again."""
    tries: int = 1
    rows: dict[int, tuple[Pair, ...]] = attrs.Factory(dict)
    """Rows that wait for this queue itself, and for no other row."""


class Waiting:
    """What waits in one table. For one thread; ``now`` is of any clock that does not go back."""

    def __init__(self) -> None:
        self._first: dict[Pair, int] = {}
        self._back: dict[Pair, int] = {}
        self._full: dict[Queue, _Full] = {}
        self._said: dict[Queue, str] = {}
        self._seen = BEGINNING
        """Every row up to here was looked at."""
        self._again = self._spent = self._began = 0.0
        """When everything is looked at again, what that has taken so far, and when this look began."""

    @property
    def any(self) -> bool:
        """Whether anything waits."""
        return bool(self._first or self._back)

    @property
    def reasons(self) -> Mapping[Queue, str]:
        """Queues for which something waits."""
        return self._said

    # ── where to look ────────────────────────────────────────────────────────────────────────────

    def starts(self, now: float) -> list[int]:
        """Numbers after which to look next: for what is new, and for what has room again."""
        if not self.any:
            return [BEGINNING]
        if now >= self._again and _ALL not in self._back:
            self._back[_ALL], self._spent = BEGINNING, 0.0
        new = max(BEGINNING, self._seen - WINDOW)
        back = [row for pair, row in self._back.items() if pair != _ALL] or list(self._back.values())
        return [new, min(back)] if back else [new]

    @property
    def going_back(self) -> bool:
        """Whether there is more to look at, new rows aside."""
        return bool(self._back)

    def due(self, now: float) -> list[tuple[Queue, int]]:
        """Full queues to be tried now, and the row of each."""
        found = []
        for queue, full in list(self._full.items()):
            if now >= full.next:
                # Of a row that became visible late those that waited already are behind.
                rows = (row for row, pairs in full.rows.items() if all(self._first.get(pair) == row for pair in pairs))
                if (row := min(rows, default=None)) is None:
                    self.open(queue)
                else:
                    found.append((queue, row))
        return found

    def rest(self, now: float) -> float:
        """Seconds until there is something to do though nothing new is there."""
        if not self.any:
            return float("inf")
        times = [self._again, *(full.next for full in self._full.values())]
        return 0.0 if self._back else max(0.0, min(times) - now)

    # ── one look ─────────────────────────────────────────────────────────────────────────────────

    def found(self, after: int, rows: Sequence[int], now: float, *, last: bool) -> None:
        """The rows of a look, ``last``: there are no more behind them. Who waited behind one that is gone may go."""
        self._began = now
        there, end = set(rows), rows[-1] if rows else after
        for pair, row in list(self._first.items()):
            if row > after and (last or row <= end) and row not in there:
                self._open(pair, row)

    def may_go(self, row: int, pairs: Collection[Pair], after: int, now: float) -> bool:
        """Whether a row of a look may go, asked in order; if not, what is behind it waits as well."""
        if not self.any:
            return True
        if any(self._waits(row, pair, after) for pair in pairs):
            for pair in pairs:
                first = self._first.get(pair)
                if self._reached(row, pair, after) if first is None else row < first:
                    self._hold(pair, row)
            return False
        full = next((queue for pair in pairs for queue in queues_of(pair) if queue in self._full), None)
        if full is not None:
            self.block(row, pairs, full, self._full[full].reason, now)
            return False
        for pair in pairs:
            if self._first.get(pair) == row:
                self._open(pair, row)
        return True

    def block(self, row: int, pairs: Iterable[Pair], queue: Queue, reason: str, now: float) -> None:
        """A row that might go found its queue full."""
        if not self.any:
            self._again = now + AGAIN
        for full in self._full.values():
            full.rows.pop(row, None)
        full = self._full.setdefault(queue, _Full(reason, now + ROOM.fixed(1)))
        full.rows[row] = tuple(pairs)
        full.reason = self._said[queue] = reason
        for pair in full.rows[row]:
            self._hold(pair, row)

    def looked(self, after: int, end: int, now: float, *, last: bool) -> None:
        """A look is over: every row up to ``end`` has gone, or waits."""
        self._seen = max(self._seen, end)
        if self._back.get(_ALL, after - 1) >= after:
            self._spent += now - self._began
        for pair, row in list(self._back.items()):
            if row >= after and (last or end >= self._seen):
                del self._back[pair]
                if pair == _ALL:
                    self._again = now + max(AGAIN, SHARE * self._spent)
            elif after <= row < end:
                self._back[pair] = end
        self._tidy()

    # ── one try ──────────────────────────────────────────────────────────────────────────────────

    def tried(self, queue: Queue, row: int, now: float, *, waits: bool) -> None:
        """A row that waited for a queue was tried; unless it ``waits`` for that again, all others are looked for."""
        full = self._full[queue]
        if waits and row in full.rows:
            full.tries += 1
            full.next = now + ROOM.fixed(full.tries)
        else:
            self.open(queue)

    def open(self, queue: Queue) -> None:
        """There may be room in a queue."""
        for row, pairs in self._full.pop(queue).rows.items():
            for pair in pairs:
                if self._first.get(pair) == row:
                    self._open(pair, row)

    # ── pairs ────────────────────────────────────────────────────────────────────────────────────

    def _waits(self, row: int, pair: Pair, after: int) -> bool:
        first = self._first.get(pair)
        if first is not None:
            return first < row or (first == row and any(row in full.rows for full in self._full.values()))
        return not self._reached(row, pair, after)

    def _reached(self, row: int, pair: Pair, after: int) -> bool:
        """Whether all rows of a pair before this one were looked at since there is room."""
        back = self._back.get(pair)
        return back is None or row <= back or after <= back

    def _hold(self, pair: Pair, row: int) -> None:
        self._first[pair] = min(row, self._first.get(pair, row))
        self._back.pop(pair, None)

    def _open(self, pair: Pair, row: int) -> None:
        """Its rows are looked for from this one on."""
        self._first.pop(pair, None)
        self._back[pair] = min(row - 1, self._back.get(pair, row))

    def _tidy(self) -> None:
        pairs = (self._first.keys() | self._back.keys()) - {_ALL}
        if self._said:
            needed = {queue for pair in pairs for queue in queues_of(pair)} | self._full.keys()
            self._said = {queue: reason for queue, reason in self._said.items() if queue in needed}
        if not pairs:
            self._back.clear()
            self._full.clear()
            self._said.clear()
            self._seen = BEGINNING


def queues_of(pair: Pair) -> tuple[Queue, Queue]:
    """The queues that rows of a pair go into."""
    return ("peer", pair[0]), ("channel", pair[1])


__all__ = ["BEGINNING", "Pair", "Queue", "Waiting", "queues_of"]
