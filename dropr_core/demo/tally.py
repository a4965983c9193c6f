"""The demo's book-keeping: what was sent, what came, and whether the two agree.

Owns counting only: every message has a number in its stream, and a count within its lane. Must not
know nodes, processes or screens. A counter that could lie would make the demo worthless: it counts
what is missing, it never assumes.
"""

import threading
import time
from collections.abc import Hashable

import attrs


@attrs.frozen
class Row:
    """One stream at one receiver, as the final table shows it."""

    name: str
    sent: int
    received: int
    """Different messages that came."""
    lost: int
    doubled: int
    misordered: int
    wrong: int
    """Came with another content than was sent, or was never sent at all."""

    @property
    def good(self) -> bool:
        """Everything came, once, in order, as it was."""
        return not (self.lost or self.doubled or self.misordered or self.wrong)


class Stream:
    """Messages 0, 1, 2 … on their way to one receiver. Safe from many threads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.first_at = 0.0
        """When the first message came (time.monotonic seconds); 0 before."""
        self.last_at = 0.0
        self._lock = threading.Lock()
        self._sent = 0
        self._seen = bytearray()
        self._received = self._doubled = self._misordered = self._strange = 0
        self._damaged = 0
        self._last: dict[Hashable, int] = {}
        self._mark: int | None = None
        self._marked_at: float | None = None

    def sent(self, count: int = 1) -> None:
        """So many more were sent; said only after `send` returned."""
        with self._lock:
            self._sent += count

    def arrived(self, number: int, lane: Hashable, count: int, *, intact: bool = True) -> None:
        """Message ``number`` came, as the ``count``-th of its lane."""
        now = time.monotonic()
        with self._lock:
            self._damaged += not intact
            if not 0 <= number < 1 << 32:
                self._strange += 1
                return
            if number >= len(self._seen):
                self._seen.extend(bytes(number + 1 - len(self._seen)))
            if self._seen[number]:
                self._doubled += 1
                return
            self._seen[number] = 1
            self._received += 1
            self.first_at = self.first_at or now
            self.last_at = now
            if count <= self._last.get(lane, -1):
                self._misordered += 1
            else:
                self._last[lane] = count
            if self._mark is not None and self._marked_at is None and number >= self._mark:
                self._marked_at = now

    def strange(self) -> None:
        """Something came that cannot be one of ours."""
        with self._lock:
            self._strange += 1

    def watch(self) -> int:
        """From now on look for the first arrival of a message that is sent later; its least number."""
        with self._lock:
            self._mark, self._marked_at = self._sent, None
            return self._sent

    @property
    def watched_at(self) -> float | None:
        """When the watched message came (time.monotonic seconds), or None."""
        return self._marked_at

    @property
    def progress(self) -> tuple[int, int]:
        """(different messages received, sent so far)."""
        return self._received, self._sent

    @property
    def complete(self) -> bool:
        """Whether everything sent so far came at least once."""
        with self._lock:
            return self._received >= self._sent and sum(self._seen[: self._sent]) == self._sent

    def row(self) -> Row:
        """The result so far."""
        with self._lock:
            known = sum(self._seen[: self._sent])
            never_sent = sum(self._seen[self._sent :])
            return Row(
                self.name, self._sent, self._received, self._sent - known, self._doubled, self._misordered,
                self._damaged + self._strange + never_sent,
            )  # fmt: skip


@attrs.frozen
class Recovery:
    """One piece of trouble, and how long it took until mail flowed again."""

    what: str
    seconds: float | None
    """From the kill, or from the re-opening of the road, to the first message sent after it; None: never."""
    detail: str = ""


@attrs.frozen
class DemoResult:
    """Everything that the demo found out."""

    rows: tuple[Row, ...]
    receipts_wanted: int
    receipts_good: int
    """Came home as processed, with the very result that was expected."""
    receipts_bad: int
    """Came home with something else."""
    recoveries: tuple[Recovery, ...]
    missing: str = ""
    """What did not happen in time; empty: everything did."""

    @property
    def receipts_missing(self) -> int:
        """Wanted, and never came."""
        return self.receipts_wanted - self.receipts_good - self.receipts_bad

    @property
    def good(self) -> bool:
        """Whether every promise was kept. Nothing sent is not a success."""
        return (
            not self.missing
            and any(row.sent for row in self.rows)
            and all(row.good for row in self.rows)
            and self.receipts_good == self.receipts_wanted
            and all(recovery.seconds is not None for recovery in self.recoveries)
        )
