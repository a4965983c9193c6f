"""Where a thread or a task of this process is now, as lines for the log.

Owns the walk over their frames, and what of it tells something: the code of the user's, not the frames of dropr by
which it was called. Must not know why somebody asks.
"""

import asyncio
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

_OURS = str(Path(__file__).parents[1])


def thread_stack(thread: int) -> str:
    """Where the thread with this `threading.get_ident` is; empty if it has ended."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 -- there is no other way
    return "" if frame is None else _text(reversed(list(traceback.walk_stack(frame))))


def task_stack(task: "asyncio.Task[Any]") -> str:
    """What a task waits for. Of one that runs at this moment nothing can be said here: ask for its thread."""
    return _text(_awaited(task.get_coro()))


def _awaited(awaitable: Any) -> Iterator[tuple[FrameType, int]]:
    """From the task's coroutine to the innermost that it awaits."""
    while awaitable is not None:
        frame = next(
            (found for kind in ("cr", "gi", "ag") if (found := getattr(awaitable, f"{kind}_frame", None))), None
        )
        if frame is None:
            return
        yield frame, frame.f_lineno
        awaitable = (
            getattr(awaitable, "cr_await", None)
            or getattr(awaitable, "gi_yieldfrom", None)
            or getattr(awaitable, "ag_await", None)
        )


def _text(frames: Any) -> str:
    """Frames, the outermost first, from where they leave dropr; all, if they never do."""
    found = list(frames)
    ours = [frame.f_code.co_filename.startswith(_OURS) for frame, _ in found]
    start = ours.index(True) if True in ours else 0
    while start < len(found) and ours[start]:
        start += 1
    return "".join(traceback.StackSummary.extract(iter(found[start:] or found)).format()).rstrip("\n")


__all__ = ["task_stack", "thread_stack"]
