"""What went wrong in code that is not ours: handlers, and loop bodies that receive.

Owns how such an exception becomes one line that is kept with the attempt, and the part of the traceback that helps
the author of that code. Whatever the exception is, these functions do not raise; they import and open nothing, for the
failure may be that this process has no file handles left. Must not know what happens to the message.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

from dropr_core.model.limits import clip

ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]

_OURS = str(Path(__file__).parents[1])


_STANDARD = os.path.dirname(os.__file__)  # noqa: PTH120 - paths of frames are texts
_INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders into which Python packages are installed."""


def _is_library(file: str) -> bool:
    return file.startswith(_STANDARD) or not _INSTALLED.isdisjoint(Path(file).parts)


def text_of(error: BaseException) -> str:
    """What an exception says, fit to be stored; the author's ``__str__`` may raise or give anything."""
    try:
        return clip(str(error))
    except Exception as second:
        return f"[its text cannot be had: {type(second).__name__}]"


def describe(error: BaseException) -> str:
    """``ValueError: no such article (FILE:LINE)``: kind, text and place, the place never cut away."""
    name, text, place = type(error).__name__, text_of(error), _place(error)
    line = f"{name}: {text}" if text else name
    return clip(line) if place is None else f"{clip(line, 3800)} ({clip(place, 200)})"


def excerpt(error: BaseException) -> ExcInfo | None:
    """What to log of a traceback: from where it leaves dropr; None if it never did."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return None if trace is None else (type(error), error, trace)


def _place(error: BaseException) -> str | None:
    """File and line of the innermost frame that is neither ours nor a library's, else of the innermost."""
    frames, trace = [], error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(_OURS):
            frames.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    own = [each for each in frames if not _is_library(each[0].f_code.co_filename)] or frames
    if not own:
        return None
    frame, line = own[-1]
    module = frame.f_globals.get("__name__")
    # As many parts of the path as the module has: enough to find it, and nothing about the machine.
    parts = module.count(".") + 1 if isinstance(module, str) else 1
    return f"{'/'.join(Path(frame.f_code.co_filename).parts[-parts:])}:{line}"
