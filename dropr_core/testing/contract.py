"""What all contract classes have in common.

Owns `Contract`, by which the pytest plugin knows them, and `within`, `together` and `shut`: calls that must
come back. Must not know any kind of plugin.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar, Protocol

PATIENCE = 20.0
"""Seconds after which a call that should have come back is said to hang. Never a pause."""


ABANDONED = "dropr-within"
"""Name of threads that wait for a call which may never come back."""


class Contract:
    """Base of every contract class."""

    dropr_contract: ClassVar[bool] = True
    patience: ClassVar[float] = PATIENCE
    """Seconds after which these tests take something for hanging; a slow technology may raise it."""


def within(seconds: float, call: Callable[[], Any], what: str) -> Any:
    """What ``call`` returns or raises; AssertionError if it does not come back in time."""
    return _result(_begin(call), seconds, what)


def together(seconds: float, calls: Sequence[Callable[[], Any]], what: str) -> list[Any]:
    """What the calls return, each in a thread of its own at the same time; AssertionError as of `within`."""
    begun, ends = [_begin(call) for call in calls], time.monotonic() + seconds
    return [_result(done, ends - time.monotonic(), what, seconds) for done in begun]


class Closes(Protocol):
    """What can be closed."""

    def close(self) -> None:
        """Let go of everything."""


def shut(one: Closes, seconds: float = PATIENCE) -> None:
    """Close it; AssertionError if that does not come back in time. What it raises is raised here."""
    within(seconds, one.close, f"close of the {type(one).__name__}")


def _begin(call: Callable[[], Any]) -> "Future[Any]":
    done: Future[Any] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    # A thread that may be left behind: what hangs cannot be ended, only named.
    threading.Thread(target=run, name=ABANDONED, daemon=True).start()
    return done


def _result(done: "Future[Any]", seconds: float, what: str, allowed: float | None = None) -> Any:
    try:
        error = done.exception(max(0.0, seconds))
    except TimeoutError:
        raise AssertionError(f"{what} did not come back within {allowed or seconds:g} s") from None
    if error is not None:
        raise error
    return done.result(0)


__all__ = ["PATIENCE", "Closes", "Contract", "shut", "together", "within"]
