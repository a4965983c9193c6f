"""When a schedule is due, in words for people who read no cron expressions.

Owns the words of the rules that are used most; of any other rule it says nothing, rather than something half true. Must
not know what is due.
"""

import re

from dropr_core.config.schedules import ScheduleConfig
from dropr_core.model.recurrence import MACROS

_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SHORT = {day[:3].lower(): number for number, day in enumerate(_DAYS[:7])}
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def in_words(config: ScheduleConfig) -> str:
    """The rule of a schedule as a sentence, without its time zone; empty: there are no words for it here."""
    if config.cron is not None:
        return _cron(MACROS.get(config.cron.strip().lower(), config.cron).lower().split())
    if config.every is not None:
        return _every(config.every)
    if config.at is not None:
        return f"once, on {config.at:%Y-%m-%d} at {config.at:%H:%M} ({config.at:%Z})"
    return ""


def _every(seconds: float) -> str:
    for length, unit in _UNITS:
        if seconds % length == 0:
            return _each(int(seconds // length), unit)
    return f"every {seconds:g} seconds"


def _each(count: int, unit: str) -> str:
    return f"every {unit}" if count == 1 else f"every {count} {unit}s"


def _cron(fields: list[str]) -> str:
    if len(fields) != 5:
        return ""
    minute, hour, *days = fields
    time, day = _time(minute, hour), _day(*days)
    if not time or not day:
        return ""
    if minute.isdigit() and hour.isdigit():
        return f"{day} {time}"
    return time if day == "every day" else f"{time}, {day}"


def _time(minute: str, hour: str) -> str:
    if minute.isdigit() and hour.isdigit():
        return f"at {int(hour):02}:{int(minute):02}"
    if hour == "*":
        if minute.isdigit():
            return "at every full hour" if int(minute) == 0 else f"at minute {int(minute)} of every hour"
        return _step(minute, 60, "minute")
    return _step(hour, 24, "hour") if minute.isdigit() and int(minute) == 0 else ""


def _step(field: str, whole: int, unit: str) -> str:
    """``*`` and ``*/N``, if N divides the hour or the day: else the last step of each is shorter."""
    if field == "*":
        return _each(1, unit)
    found = re.fullmatch(r"\*/(\d{1,2})", field)
    count = int(found[1]) if found else 0
    return _each(count, unit) if count and whole % count == 0 else ""


def _day(day: str, month: str, weekday: str) -> str:
    if month != "*":
        return ""
    if weekday == "*":
        if day == "*":
            return "every day"
        return f"on day {int(day)} of every month" if day.isdigit() else ""
    if day != "*":
        return ""
    numbers = [_SHORT.get(one, int(one) if one.isdigit() else -1) for one in weekday.split("-")]
    if len(numbers) > 2 or not all(0 <= one <= 7 for one in numbers):
        return ""
    return " to ".join(_DAYS[one] for one in numbers) if len(numbers) == 2 else f"every {_DAYS[numbers[0]]}"


__all__ = ["in_words"]
