"""Where the result of a task goes: to the nodes that may ask for it.

Owns the header that says so, and how it is handed on from a task to those that it sends. Without Celery nothing is
marked. Must not know how a result travels.
"""

import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

HOMES = "dropr_home"
"""Names of nodes: that of the application which began, and that of the task which sent this one and may wait for it."""
CHORD = "dropr_chord_size"
"""On the last task of a chord's header: how many there are. The others may run before anybody knows."""


def homes_of(request: Any) -> list[str]:
    """Those of a task that runs; none of something else that Celery calls a request."""
    found = request.get(HOMES) if callable(getattr(request, "get", None)) else None
    return [str(name) for name in found] if isinstance(found, (list, tuple)) else []


def mark(message: Mapping[str, Any], here: str, chord_sizes: MutableMapping[str, int]) -> None:
    """Write into the message of a task where its result shall go. ``here``: the node that sends it."""
    headers = message.get("headers")
    if not isinstance(headers, dict) or "task" not in headers:
        return
    request = _running()
    homes = homes_of(request)
    if not homes:
        homes = [here]
    elif here not in homes and _reply_to(message) != (request.get("reply_to") or ""):
        homes = [homes[0], here]  # a task of its own, whose sender may wait for it
    headers[HOMES] = homes
    group = headers.get("group")
    if group:
        size = chord_sizes.pop(group, None)
        if size is None and request is not None and request.get("id") == headers.get("id"):
            size = request.get(CHORD)  # the same task once more, as a retry
        if size is not None:
            headers[CHORD] = size


def _reply_to(message: Mapping[str, Any]) -> str:
    return (message.get("properties") or {}).get("reply_to") or ""


def _running() -> Any:
    """The request of the task that this thread runs; None outside of tasks."""
    state = sys.modules.get("celery._state")
    task = state.get_current_task() if state is not None else None
    return task.request if task is not None else None
