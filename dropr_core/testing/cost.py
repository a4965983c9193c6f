"""What a call costs, counted and not timed: the instructions that Python carries out, and what a library tells.

Owns the counting. Python's are counted in the calling thread, whatever code they belong to; what happens inside of a C
function is one instruction, so that a case may offer a counter of its own (`StorageCase.work`). Must not know what is
measured.
"""

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Counter = Callable[[], int]
"""A figure that only grows."""


class Steps:
    """Counts: hand ``count`` to a library as what it calls after each ``EVERY`` steps (a progress handler).

    What it costs to count is not counted as Python's work.
    """

    EVERY = 10

    def __init__(self) -> None:
        self.taken = 0

    def count(self) -> bool:
        """So many more. False: SQLite is to go on."""
        self.taken += self.EVERY
        return False


_COUNTING = Steps.count.__code__


def instructions(call: Callable[[], Any]) -> int:
    """How many instructions of Python a call carries out in this thread; its result is dropped."""
    count = 0

    def step(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        if event == "opcode":
            count += 1
        elif frame.f_code is _COUNTING:
            return None
        frame.f_trace_opcodes = True
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def cost(call: Callable[[], Any], work: Counter | None = None) -> tuple[int, int]:
    """(instructions, what ``work`` counted meanwhile)."""
    before = 0 if work is None else work()
    steps = instructions(call)
    return steps, 0 if work is None else work() - before


@contextmanager
def sqlite3_steps() -> Iterator[Counter]:
    """Counts the steps of SQLite's machine, for storages that call ``sqlite3.connect`` of the standard library."""
    steps, real = Steps(), sqlite3.connect

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = real(*arguments, **options)
        connection.set_progress_handler(steps.count, Steps.EVERY)
        return connection

    sqlite3.connect = connect  # type: ignore[assignment]
    try:
        yield lambda: steps.taken
    finally:
        sqlite3.connect = real


__all__ = ["Counter", "Steps", "cost", "instructions", "sqlite3_steps"]
