"""What a schedule does now: which due times happen, which were missed, when to look again.

Owns the decision, and the due times that have happened (`Fired`): whatever the clock does, none of them happens again.
Pure: it is told the time. All times are whole milliseconds since the epoch. Must not know messages or files.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import attrs

from dropr_core.model.recurrence import Recurrence, first_after, latest

GRACE = 60_000
"""A due time that is later than this was missed: nobody was there at its time."""
MOST = 1000
"""Due times that are made up for at once, at most; older ones are left out."""
RANGES = 50
"""Stretches of due times that are remembered as happened; one more begins where some were left out."""

Missed = Literal["skip", "one", "all"]


@attrs.frozen
class Fired:
    """Due times that have happened: stretches from a first to a last one, without a gap between them by the rule."""

    ranges: tuple[tuple[int, int], ...] = ()

    def __contains__(self, due: int) -> bool:
        return any(first <= due <= last for first, last in self.ranges)

    def add(self, rule: Recurrence, due: int) -> "Fired":
        """With one more."""
        if due in self:
            return self
        first = last = due
        rest = []
        for begin, end in self.ranges:
            if end < due and first_after(rule, end) == due:
                first = begin
            elif begin > due and first_after(rule, due) == begin:
                last = end
            else:
                rest.append((begin, end))
        return Fired(tuple(sorted([*rest, (first, last)])[-RANGES:]))


@attrs.frozen
class Plan:
    """What happens now."""

    fire: Sequence[int]
    """Due times, in order."""
    upto: int
    """Everything up to here is dealt with."""
    skipped: int
    """Due times that were missed and are left out."""
    next: int | None
    """When to look again; None: nothing comes any more."""


def plan(
    rule: Recurrence,
    cursor: int,
    fired: Fired,
    now: int,
    missed: Missed,
    later: Callable[[int], int] = lambda _due: 0,
) -> Plan:
    """Decide. ``cursor``: everything up to it was dealt with; if it lies ahead the clock was set back, and what is due
    from now on happens, unless it has happened. ``later``: by how much each due time happens later.
    """
    cursor = min(cursor, now)
    found, more = latest(rule, cursor, now, MOST)
    ready: list[int] = []
    waiting = None
    for due in found:
        if due in fired:
            continue
        if due + later(due) > now:
            waiting = due + later(due)
            break
        ready.append(due)
    late = [due for due in ready if now - due - later(due) > GRACE]
    fire = ready
    if missed == "skip":
        fire = [due for due in ready if due not in late]
    elif missed == "one" and late:
        fire = ready[-1:]
    upto = ready[-1] if ready else cursor
    if waiting is None:
        upto = max(upto, found[-1] if found else cursor)
        waiting = _next(rule, now, fired, later)
    return Plan(fire, upto, len(ready) - len(fire) + more, waiting)


def _next(rule: Recurrence, now: int, fired: Fired, later: Callable[[int], int]) -> int | None:
    """The next time at which there is something to do: behind a stretch that has happened, one does not count it up."""
    moment = now
    while (due := first_after(rule, moment)) is not None:
        end = next((last for first, last in fired.ranges if first <= due <= last), None)
        if end is None:
            return due + later(due)
        moment = end
    return None


def jitter(name: str, node: str, most: int) -> Callable[[int], int]:
    """By how many milliseconds each due time happens later: by chance, and the same whenever it is asked."""

    def later(due: int) -> int:
        if not most:
            return 0
        digest = hashlib.blake2b(f"{name}\0{node}\0{due}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % most

    return later


__all__ = ["GRACE", "MOST", "Fired", "Missed", "Plan", "jitter", "plan"]
