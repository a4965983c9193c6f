"""What a process does again and again: when each thing is due, and when the next one is.

Owns the one place that computes when the daemon wakes up, and what comes first when it does: what woke it up, not what
is done because it is awake. A task that fails rests (store_trouble.py) and is not tried before, whatever wakes the
process; the others go on. Must not know what the tasks do.
"""

import math
from collections.abc import Callable
from functools import partial

import attrs

from dropr_core.api.store_trouble import StoreTrouble, Thing
from dropr_core.system.clock import Clock


@attrs.define(eq=False)
class Task:
    """One thing to do."""

    thing: Thing
    """Its name when it fails."""
    work: Callable[[float], float]
    """Does it, at a node time; says at which one it is due again at the latest. May raise StoreError, OSError."""
    spacing: float | None = None
    """Also done when the process is awake anyway, so many seconds apart at least; 0: whenever it is awake. None: only
    when it is due.
    """
    due: float = 0.0
    last: float = -math.inf
    early: float = math.inf
    """When it is done by its spacing."""
    again: bool = False
    """Another task of this turn has brought something for it: it is done once more, behind the others."""


class Agenda:
    """The tasks of one process. For one thread."""

    def __init__(self, clock: Clock, trouble: StoreTrouble) -> None:
        self._clock, self._trouble = clock, trouble
        self._tasks: list[Task] = []

    def add(self, task: Task) -> Task:
        """One more. They are done in the order in which they were added, but what can wait comes after the others."""
        self._tasks.append(task)
        return task

    def turn(self, *, woken: bool = True) -> float:
        """Do all that is due; the node time at which to be called again at the latest.

        ``woken``: by something that happened. If it is only that a time has come, what is done by its spacing is done
        now or not, but not planned: else each such turn would bring the next one, and a process with nothing to do
        would get up for each of its tasks.
        """
        can_wait: list[Task] = []
        now = self._clock.now()
        for task in self._tasks:
            soon = math.inf if task.spacing is None else task.last + task.spacing
            if woken:
                task.early = soon
            if now >= task.due or task.spacing == 0.0:
                self._attempt(task, now)
                now = self._clock.now()
            elif now >= min(soon, task.early):
                can_wait.append(task)
        for task in can_wait:
            self._attempt(task, self._clock.now())
        for task in self._tasks:
            if task.again:
                task.again = False
                self._attempt(task, self._clock.now())
        return min(max(min(task.due, task.early), self._trouble.until(task.thing)) for task in self._tasks)

    def _attempt(self, task: Task, now: float) -> None:
        if self._trouble.attempt(task.thing, partial(self._do, task, now)):
            task.last, task.early = now, math.inf

    @staticmethod
    def _do(task: Task, now: float) -> None:
        task.due = task.work(now)
