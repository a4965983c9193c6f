"""What a process does again and again: when each thing is due, and when the next one is.

Owns the one place that computes when the daemon wakes up. A task that fails rests (store_trouble.py) and is not
tried before, whatever wakes the process; the others go on. Must not know what the tasks do.
"""

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
    """Also done when the process is awake anyway, so many seconds apart at least. None: only when it is due."""
    due: float = 0.0
    last: float = float("-inf")


class Agenda:
    """The tasks of one process. For one thread."""

    def __init__(self, clock: Clock, trouble: StoreTrouble) -> None:
        self._clock, self._trouble = clock, trouble
        self._tasks: list[Task] = []

    def add(self, task: Task) -> Task:
        """One more; they are done in the order in which they were added."""
        self._tasks.append(task)
        return task

    def turn(self) -> float:
        """Do all that is due; the node time at which to be called again at the latest."""
        for task in self._tasks:
            now = self._clock.now()
            if task.spacing is not None:
                task.due = min(task.due, task.last + task.spacing)
            if now >= task.due and self._trouble.attempt(task.thing, partial(self._do, task, now)):
                task.last = now
        return min(max(task.due, self._trouble.until(task.thing)) for task in self._tasks)

    @staticmethod
    def _do(task: Task, now: float) -> None:
        task.due = task.work(now)
