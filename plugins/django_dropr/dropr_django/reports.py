"""What a task raised, as the one line that dropr keeps of a failed attempt, and back as Django's `TaskError`.

Owns that form: ``task raised shop.tasks.NoStock: none left ↵ File "shop/tasks.py", line 9, in pack ↵ raise NoStock``.
It travels to the sender, so it says of paths what the module's name says, and nothing of the machine.
"""

import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from dropr_core.model.limits import clip
from dropr_django.framework import TaskError

MARK = "task raised "
BREAK = " ↵ "
LONGEST_TEXT, LONGEST_TRACE = 1200, 2400
"""Bytes, so that both and the name fit into what dropr keeps (4 KiB)."""
_OURS = str(Path(__file__).parent)


def path_of(kind: type[BaseException]) -> str:
    """The dotted name of an exception class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def report(error: BaseException, skip: Callable[[str], bool]) -> str:
    """The line. ``skip``: whether a file is of those that only call the task, by its name."""
    try:
        text = str(error)
    except Exception as second:  # the author's own method
        text = f"[its text cannot be had: {type(second).__name__}]"
    lines = [f"{MARK}{path_of(type(error))}: {_one_line(clip(text, LONGEST_TEXT))}"]
    frames = [BREAK.join(one) for one in _frames(error.__traceback__, skip)]
    while len(BREAK.join(frames).encode("utf-8", "replace")) > LONGEST_TRACE and len(frames) > 1:
        del frames[0]  # the innermost say most
    return clip(BREAK.join([*lines, *frames]))


def _one_line(text: str) -> str:
    return BREAK.join(" ".join(line.split()) for line in text.splitlines())


def _frames(trace: TracebackType | None, skip: Callable[[str], bool]) -> list[list[str]]:
    while trace is not None and skip(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    found = []
    for frame, line in traceback.walk_tb(trace):
        code = frame.f_code
        parts = str(frame.f_globals.get("__name__", "")).count(".") + 1
        file = "/".join(Path(code.co_filename).parts[-parts:])
        source = traceback.FrameSummary(code.co_filename, line, code.co_name).line
        found.append([f'File "{file}", line {line}, in {code.co_name}', *([source] if source else [])])
    return found


def is_ours(file: str) -> bool:
    """Whether a file belongs to this package."""
    return file.startswith(_OURS)


def error_of(reason: str) -> Any:
    """The `TaskError` of what dropr kept: the last line of a history, whatever wrote it."""
    last = reason.strip().splitlines()[-1] if reason.strip() else "it failed; no reason was given"
    if not last.startswith(MARK):
        return TaskError(exception_class_path="dropr_core.errors.DeliveryFailed", traceback=last)
    said, *trace = last.removeprefix(MARK).split(f'{BREAK}File "')
    name, _, _ = said.partition(": ")
    lines = ["Traceback (most recent call last):"] if trace else []
    for frame in trace:
        head, *source = frame.split(BREAK)
        lines += [f'  File "{head}', *(f"    {line}" for line in source)]
    said = said.removeprefix("builtins.").replace(BREAK, "\n")
    return TaskError(exception_class_path=name, traceback="\n".join([*lines, said]) + "\n")
