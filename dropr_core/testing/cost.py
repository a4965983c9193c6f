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


def instructions(call: Callable[[], Any]) -> int:
    """How many instructions of Python a call carries out in this thread; its result is dropped."""
    count = 0

    def step(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        if event == "opcode":
            count += 1
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
    count, real = 0, sqlite3.connect

    def step() -> None:
        nonlocal count
        count += 1

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = real(*arguments, **options)
        connection.set_progress_handler(step, 1)
        return connection

    sqlite3.connect = connect  # type: ignore[assignment]
    try:
        yield lambda: count
    finally:
        sqlite3.connect = real


__all__ = ["Counter", "cost", "instructions", "sqlite3_steps"]
