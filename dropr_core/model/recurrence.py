"""When a schedule is due: cron expressions with a time zone, intervals, one moment.

Owns the due times, as whole milliseconds since the epoch: pure, and the same on every node that knows the rule. Must
not know what is due, nor what the time is.
"""

import datetime as dt
from collections.abc import Iterator
from typing import Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import attrs

from dropr_core.errors import UsageError
from dropr_core.model.limits import shorten

try:
    from cronsim import CronSim, CronSimError
except ImportError:
    CronSim = None  # type: ignore[assignment, misc]

SECOND = 1000
FIRST_LOOK = 60 * SECOND
"""Milliseconds of the first stretch in which `latest` looks for due times."""
_LAST = 253_000_000_000_000
"""Milliseconds: about the year 9987."""
MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class Recurrence(Protocol):
    """A rule that says when something is due."""

    @property
    def text(self) -> str:
        """The whole rule as a text: equal for equal rules."""
        ...

    def after(self, moment: int) -> Iterator[int]:
        """Every due time after a moment, each once, in order; endless unless it ends."""
        ...


@attrs.frozen
class Cron:
    """A cron expression in a time zone, with the rules of Debian's cron: see docs/guide/schedules.md."""

    expression: str
    zone: str = "UTC"

    @property
    def text(self) -> str:
        """The rule."""
        return f"cron {self.expression} in {self.zone}"

    def after(self, moment: int) -> Iterator[int]:
        """Every due time after a moment. Ends only where none comes within 50 years."""
        last = moment
        if not 0 <= moment < _LAST:  # a clock that was set to a year that no calendar has
            return
        start = dt.datetime.fromtimestamp(moment // SECOND, _zone(self.zone))
        for found in _cronsim(self.expression, start):
            due = round(found.timestamp()) * SECOND
            if due >= _LAST:
                return
            # The hour that comes twice is shown once more to who starts within it, and what stands in the hour that is
            # missing falls together after it.
            if due > last:
                yield due
                last = due


@attrs.frozen
class Every:
    """Whole periods since the epoch: due at the same moments on every node, whenever it was started."""

    period: int
    """Milliseconds."""

    @property
    def text(self) -> str:
        """The rule."""
        return f"every {self.period} ms"

    def after(self, moment: int) -> Iterator[int]:
        """Every due time after a moment."""
        due = (moment // self.period + 1) * self.period
        while True:
            yield due
            due += self.period


@attrs.frozen
class Once:
    """One moment."""

    moment: int

    @property
    def text(self) -> str:
        """The rule."""
        return f"at {self.moment} ms"

    def after(self, moment: int) -> Iterator[int]:
        """The moment, if it is still to come."""
        if moment < self.moment:
            yield self.moment


def make_cron(expression: str, zone: str = "UTC") -> Cron:
    """A rule of five fields (or six, seconds first), or ``@daily`` and the like. Raises UsageError for what is none,
    and where the library for it is not installed.
    """
    made = Cron(MACROS.get(expression.strip().lower(), " ".join(expression.split())), zone)
    if next(made.after(0), None) is None:
        raise UsageError(f"cron {shorten(expression)}: no such day comes within 50 years")
    return made


def make_every(seconds: float) -> Every:
    """An interval. Raises UsageError."""
    if not seconds >= 1:
        raise UsageError(f"every {seconds:g}s: an interval is one second at least")
    return Every(round(seconds * SECOND))


def to_moment(seconds: float) -> int:
    """A time in seconds since the epoch in whole milliseconds."""
    return int(seconds * SECOND)


def first_after(rule: Recurrence, moment: int) -> int | None:
    """The next due time after a moment; None: there is none."""
    return next(rule.after(moment), None)


def latest(rule: Recurrence, after: int, upto: int, most: int) -> tuple[list[int], bool]:
    """The last due times of a stretch of time, ``upto`` with it, ``most`` of them at most; and whether there were more.

    The work does not grow with the stretch: a clock may have been set forward by a hundred years.
    """
    upto, stretch = min(upto, _LAST), FIRST_LOOK
    while True:
        start = max(after, upto - stretch)
        found = []
        for due in rule.after(start):
            if due > upto:
                break
            found.append(due)
        if start <= after or len(found) > most:
            return found[-most:], len(found) > most
        stretch *= 2


def _zone(name: str) -> dt.tzinfo:
    if name == "UTC":
        return dt.UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"zone {shorten(name)}: no such time zone here; write one like Europe/Berlin or UTC (where the system "
            "has no list of them: pip install 'dropr-core[schedule]')"
        ) from None


def _cronsim(expression: str, start: dt.datetime) -> Any:
    if CronSim is None:
        raise UsageError("cron expressions need a library: pip install 'dropr-core[schedule]'")
    try:
        return CronSim(expression, start)
    except CronSimError as error:
        raise UsageError(
            f"cron {shorten(expression)}: {str(error).lower()}; write five fields: minute hour day-of-month month "
            "day-of-week, such as '30 4 * * mon-fri'"
        ) from None


__all__ = [
    "Cron", "Every", "Once", "Recurrence", "first_after", "latest", "make_cron", "make_every", "to_moment",
]  # fmt: skip
