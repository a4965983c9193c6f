"""The page's schedules: the list, the last runs of one, and its buttons.

Owns the words of these requests and how much one answer holds. What is told and done, `schedules.py` tells and does,
as for the command line.
"""

import logging
from typing import Any

from dropr_core.api.runtime import Runtime
from dropr_core.model.recurrence import to_moment
from dropr_core.monitor import schedules
from dropr_core.monitor.acting import Words, button
from dropr_core.monitor.routes import Answer, Refused, Request, Route, as_json
from dropr_core.schedules.firing import say_moment
from dropr_core.schedules.state import MAX_TEXT

MOST = 200
"""Schedules of one list."""


def schedule_routes(runtime: Runtime, log: logging.Logger) -> list[Route]:
    """Over one open node."""
    return [
        Route("GET", "/api/schedules", lambda _request: _list(runtime)),
        Route("GET", "/api/schedule/*", lambda request: _runs(runtime, request)),
        button(runtime, log, "schedule-run", _run),
        button(runtime, log, "schedule-pause", _pause),
        button(runtime, log, "schedule-resume", _resume),
    ]


def _list(runtime: Runtime) -> Answer:
    """``schedules``, whether there are ``more``, and what time it is here: ``now``."""
    found = schedules.schedule_documents(runtime, most=MOST + 1)
    now = say_moment(to_moment(runtime.clock.wall()))
    return as_json({"schedules": found[:MOST], "more": len(found) > MOST, "now": now})


def _runs(runtime: Runtime, request: Request) -> Answer:
    """The last ``runs`` of the schedule whose name ends the path."""
    runs = schedules.run_documents(runtime, _known(runtime, request.rest))
    return as_json({"runs": [_bounded(one) for one in runs]})


def _bounded(run: dict[str, Any]) -> dict[str, Any]:
    result = run["result"]
    return run if result is None or len(result) <= MAX_TEXT else {**run, "result": result[:MAX_TEXT] + "…"}


def _known(runtime: Runtime, name: str) -> str:
    if not schedules.is_known(runtime, name):
        raise Refused(404, f"no schedule is called {name[:64]!r}")
    return name


def _run(runtime: Runtime, words: Words) -> str:
    name = _known(runtime, words.text("schedule"))
    try:
        return f"{name} runs now: message {schedules.run_now(runtime, name).id}"
    except (OSError, TypeError, ValueError) as error:  # its file is gone; a value that its serializer does not take
        raise Refused(409, f"{name} sends nothing: {error}") from error


def _pause(runtime: Runtime, words: Words) -> str:
    name = _known(runtime, words.text("schedule"))
    new = schedules.pause(runtime, name)
    return f"{name} is paused; what comes due is left out" if new else f"{name} was paused already"


def _resume(runtime: Runtime, words: Words) -> str:
    name = _known(runtime, words.text("schedule"))
    return f"{name} goes on" if schedules.resume(runtime, name) else f"{name} was not paused"
