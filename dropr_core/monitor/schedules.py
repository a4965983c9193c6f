"""Schedules as they are shown, and what a person may do to one: for the command line and the page alike.

Owns how much is told, and that whoever waits for a change is woken. What is due when is decided in `schedules/`. Must
not know who asked.
"""

import base64
from itertools import islice
from typing import TYPE_CHECKING, Any

from dropr_core.config.units import format_duration
from dropr_core.errors import DroprError, UsageError
from dropr_core.model import topics
from dropr_core.model.names import parse_id
from dropr_core.model.recurrence import to_moment
from dropr_core.schedules.definitions import Definitions
from dropr_core.schedules.due import jitter, plan
from dropr_core.schedules.firing import Firing, say_moment
from dropr_core.schedules.state import Run, StateFile
from dropr_core.schedules.wording import in_words
from dropr_core.system.loading import unforked

if TYPE_CHECKING:
    from dropr_core.api.runtime import Runtime
    from dropr_core.config.schedules import ScheduleConfig

# ── looking ──────────────────────────────────────────────────────────────────────────────────────


def schedule_documents(node: "Runtime", only: str | None = None, most: int | None = None) -> list[dict[str, Any]]:
    """What is known of each schedule, by name (``only``: of this one; ``most``: of the first so many): ``name``,
    ``rule``, ``words``, ``zone``, ``channel``, ``to``, ``from``, ``state``, ``reason``, ``next``, ``last``,
    ``last_state``, ``skipped``. Raises StoreError.
    """
    definitions = Definitions(node.config, node.documents)
    schedules, bad = definitions.all()
    now, paused = to_moment(node.clock.wall()), definitions.paused
    names = sorted({*schedules, *bad}) if only is None else [name for name in (only,) if name in {**schedules, **bad}]
    found = list[dict[str, Any]]()
    for name in islice(names, most):
        if name not in schedules:
            found.append({"name": name, **_NOTHING, "from": "added", "state": "broken", "reason": bad[name]})
            continue
        one = _document(node, schedules[name], now)
        if name in paused:
            one |= {"state": "paused", "next": None}
        found.append({"name": name, **one, "from": "file" if name in node.config.schedules else "added"})
    return found


_NOTHING: dict[str, Any] = {
    "rule": "", "words": "", "zone": None, "channel": "", "to": [], "state": "on", "reason": "", "next": None,
    "last": None, "last_state": "", "skipped": 0,
}  # fmt: skip


def _document(node: "Runtime", config: "ScheduleConfig", now: int) -> dict[str, Any]:
    state = StateFile(node.documents, config.name).look()
    last = state.runs[-1] if state.runs else None
    shown: dict[str, Any] = {
        **_NOTHING, "rule": _rule(config), "words": in_words(config),
        "zone": None if config.cron is None else config.zone, "channel": config.target, "to": list(config.to),
        "last": None if last is None else say_moment(last.due), "last_state": "" if last is None else last.state,
        "skipped": state.skipped,
    }  # fmt: skip
    if not config.enabled:
        return shown | {"state": "disabled"}
    try:
        rule = config.rule()
    except DroprError as error:
        return shown | {"state": "broken", "reason": str(error)}
    later = jitter(config.name, node.name, int(config.jitter * 1000))
    cursor = state.cursor if state.rule == rule.text else now
    made = plan(rule, cursor, state.fired, now, config.missed, later)
    due = now if made.fire else made.next
    return shown | {"next": None if due is None else say_moment(due), "state": "over" if due is None else "on"}


def _rule(config: "ScheduleConfig") -> str:
    if config.cron is not None:
        return f"{config.cron} ({config.zone})"
    if config.every is not None:
        return f"every {format_duration(config.every)}"
    return f"at {config.at}"


def run_documents(node: "Runtime", name: str) -> list[dict[str, Any]]:
    """The last runs of a schedule, the newest first: ``due``, ``at``, ``id``, ``manual``, and how each ended or where
    its message is: ``state``, ``result``, ``reason``. Raises StoreError.
    """
    return [
        {"due": say_moment(run.due), "at": say_moment(run.at), "id": run.id, "manual": run.manual, **_ending(node, run)}
        for run in reversed(StateFile(node.documents, name).look().runs)
    ]


def _ending(node: "Runtime", run: Run) -> dict[str, Any]:
    with unforked:
        from dropr_core.api.sent import Sent

    if run.state or not run.id:
        return {"state": run.state, "result": run.result, "reason": run.reason}
    identity = parse_id(run.id)
    if deliveries := node.outbox.status(identity):
        result = next((one.result for one in deliveries if one.result is not None), None)
        state = str(Sent.known(node, identity).status.state)
        reason = "; ".join(dict.fromkeys(one.reason for one in deliveries if one.reason))
        return {"state": state, "result": None if result is None else _text(result), "reason": reason}
    job = node.inbox.status(identity)
    if job is None:
        return {"state": "unknown", "result": None, "reason": "ended, and nothing is known of it any more"}
    return {"state": str(job.state), "result": None, "reason": job.reason}


def _text(result: bytes) -> str:
    """It as UTF-8; other bytes as base64."""
    try:
        return bytes(result).decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(result).decode("ascii")


# ── changing ─────────────────────────────────────────────────────────────────────────────────────


def is_known(node: "Runtime", name: str) -> bool:
    """Whether it stands in the node's file or was added. Raises StoreError."""
    return name in node.config.schedules or Definitions(node.config, node.documents).is_added(name)


def run_now(node: "Runtime", name: str) -> Run:
    """Let a schedule happen now, besides its due times. Raises UsageError (also where it is not known, or cannot be
    used), OSError (its file cannot be read), QueueFull, StoreError.
    """
    definitions = Definitions(node.config, node.documents)
    schedules, bad = definitions.all()
    config = schedules.get(name)
    if config is None:
        raise UsageError(f"schedule {name} cannot run: {bad.get(name, 'there is none of this name')}")
    now = to_moment(node.clock.wall())
    run = Run(now, now, Firing(node).fire(config, now), manual=True)
    with StateFile(node.documents, name).changing() as state:
        state.add(run)
    definitions.touch()
    node.notifier.notify(topics.CONTROL)
    return run


def pause(node: "Runtime", name: str) -> bool:
    """From now on what comes due is left out; whether that is new. Raises StoreError."""
    changed = Definitions(node.config, node.documents).pause(name, to_moment(node.clock.wall()))
    node.notifier.notify(topics.CONTROL)
    return changed


def resume(node: "Runtime", name: str) -> bool:
    """It happens again; whether it was paused. Raises StoreError."""
    with StateFile(node.documents, name).changing() as state:  # first: what was due while it rested is left out
        state.cursor = max(state.cursor, to_moment(node.clock.wall()))
    changed = Definitions(node.config, node.documents).resume(name)
    node.notifier.notify(topics.CONTROL)
    return changed


def remove(node: "Runtime", name: str) -> bool:
    """Forget one that was added, and its runs; whether it was there. Raises UsageError, StoreError."""
    definitions = Definitions(node.config, node.documents)
    if not definitions.is_added(name):
        raise UsageError(f"schedule {name} stands in the node's file; remove it there")
    changed = definitions.remove(name)
    if name not in node.config.schedules:
        StateFile(node.documents, name).remove()
    node.notifier.notify(topics.CONTROL)
    return changed
