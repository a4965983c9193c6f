"""What became of a task, from what the node knows: Django's `TaskResult` of a message.

Owns the meaning of dropr's states for Django, and where the value of a task is that was handled on its own node: beside
the task, as a message that is done already and is kept as long. Must not know how tasks are sent.
"""

import datetime as dt
import json
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import msgspec
from django.conf import settings
from django.utils import timezone

from dropr_core.api.node import Node
from dropr_core.contracts.storage import Ack, Delivery, Job, JobInfo
from dropr_core.errors import DroprError
from dropr_core.model import envelope
from dropr_core.model.limits import MAX_RESULT
from dropr_core.model.message import Message, State
from dropr_core.model.names import MessageId, format_id, id_of_key, parse_id
from dropr_core.monitor.messages import open_body
from dropr_django.calls import Call, UnknownTask, read_call
from dropr_django.framework import TaskError, TaskResult, TaskResultDoesNotExist, TaskResultStatus
from dropr_django.reports import error_of

VALUES = "django.values"
"""The channel of values of tasks that were handled on their own node. Nobody consumes from it."""

_JOBS: Mapping[State, str] = {
    State.LEASED: "RUNNING", State.DONE: "SUCCESSFUL", State.BURIED: "FAILED", State.EXPIRED: "FAILED",
}  # fmt: skip
TOO_LARGE = "dropr_core.errors.TooBig"
LOOKS = 3
ROOM = MAX_RESULT - 256
"""Bytes of what goes home."""


def document(call: Call, value: Any, started: dt.datetime, worker: str, attempt: int) -> dict[str, Any]:
    """What goes home of a task that is done, in JSON: with the call, for its sender does not keep what is done. What is
    too large for a receipt stays behind: first the arguments, then the value.
    """
    told = {
        "value": value, "started": started.isoformat(), "finished": dt.datetime.now(dt.UTC).isoformat(),
        "worker": worker, "attempt": attempt, "call": call.document(),
    }  # fmt: skip
    if len(msgspec.json.encode(told)) > ROOM:
        told["call"] = attrs.evolve(call, args=[], kwargs={}).document()
        if (size := len(msgspec.json.encode(told))) > ROOM:
            told["value"] = None
            told["lost"] = f"a value of {size} bytes: a receipt carries {ROOM}; store it, and return where it is"
    return told


def keep_value(node: Node, task: MessageId, channel: str, value: Mapping[str, Any]) -> None:
    """Keep the value of a task of this node's own, durably, as long as the task itself. Raises StoreError."""
    seconds = node.runtime.rules(channel).retention
    if not seconds:
        return
    message = Message(
        id=_value_id(node, task), sender=node.name, channel=VALUES, priority=9, content_type="application/json",
        created_at=node.runtime.clock.wall(),
    )  # fmt: skip
    data = envelope.encode(message, msgspec.json.encode(value))
    inbox = node.inbox
    (number,) = inbox.put(VALUES, 9, node.name, [Job(message.message_id, data, expires_in=seconds)])
    consumer = inbox.register("dropr-django")
    try:
        claim = inbox.claim_number(number, consumer)
        if claim is not None:
            inbox.settle([Ack(claim, keep=seconds)])
    finally:
        inbox.retire(consumer)


def find_result(node: Node, alias: str, result_id: str, waiting: Callable[[MessageId], Any] | None = None) -> Any:
    """The `TaskResult` of an id. ``waiting``: the body of a message that still waits in the application's database;
    None if it does not. Raises TaskResultDoesNotExist, StoreError.
    """
    try:
        identity = MessageId(parse_id(result_id))
    except DroprError:
        raise TaskResultDoesNotExist(result_id) from None
    for _ in range(LOOKS):
        result = _look(node, alias, identity)
        if result is None and waiting is not None and (body := waiting(identity)) is not None:
            result = _begin(node, alias, identity, body)
        if result is not None:
            return result
    raise TaskResultDoesNotExist(result_id)


def _look(node: Node, alias: str, identity: MessageId) -> Any:
    """One look; None if nothing is known, or if the receipt came home between two steps of it: then the message has
    gone that was there, and another look finds the receipt.
    """
    deliveries = node.outbox.status(identity)
    job = None if deliveries else node.inbox.status(identity)
    if not deliveries and job is None:
        return None
    told = {one.peer: _decoded(one) for one in deliveries}
    calls = (one["call"] for one in told.values() if one is not None and "call" in one)
    result = _begin(node, alias, identity, next(calls, None))
    if result is None:
        return None
    if job is not None:
        _tell_job(node, result, job)
    else:
        _tell_deliveries(result, deliveries, told)
    return result


def _begin(node: Node, alias: str, identity: MessageId, told: Any) -> Any:
    """The result as it was when the task was enqueued; None if that is no task, or is not known any more.
    ``told``: the call, where it came home.
    """
    try:
        call = read_call(_call_of(node, identity) if told is None else told)
        task = call.task()
    except (ValueError, UnknownTask, DroprError):
        return None
    made = dt.datetime.fromtimestamp(int.from_bytes(identity[:6], "big") / 1000, dt.UTC)  # ids begin with their time
    return TaskResult(
        task=task, id=format_id(identity), status=TaskResultStatus.READY, enqueued_at=local(made), started_at=None,
        finished_at=None, last_attempted_at=None, args=call.args, kwargs=call.kwargs, backend=call.backend or alias,
        errors=[], worker_ids=[],
    )  # fmt: skip


def _call_of(node: Node, identity: MessageId) -> Any:
    """What its message says. Raises ValueError if that is not kept, or no JSON."""
    body = open_body(node.runtime, identity)
    if body is None:
        raise ValueError("it is not kept")
    with body:
        return json.loads(body.read())


def _tell_job(node: Node, result: Any, job: JobInfo) -> None:
    """Of a task that is handled on this node."""
    status = _JOBS.get(job.state, "READY")
    _set(result, status=TaskResultStatus[status], worker_ids=_workers(job.attempts, job.consumer))
    if status == "FAILED":
        _set(result, errors=[error_of(job.reason or job.state.value)], finished_at=_ago(job.age))
    elif job.reason:
        result.errors.append(error_of(job.reason))
    if job.state is State.DONE:
        kept = node.inbox.envelope(_value_id(node, job.id))
        if kept is None:
            _set(result, finished_at=_ago(job.age))
        else:
            _tell_done(result, msgspec.json.decode(envelope.decode(kept).body))


def _tell_deliveries(result: Any, deliveries: list[Delivery], told: Mapping[str, Any]) -> None:
    """Of a task that went to peers: done when all have done it, failed when one has failed and all have ended."""
    if not all(one.over for one in deliveries):
        return
    latest = _ago(min(one.age for one in deliveries))
    bad = [one for one in deliveries if one.state not in (State.PROCESSED, State.ACCEPTED)]
    if bad:
        errors = [error_of(one.reason or f"{one.state.value} on its way to {one.peer}") for one in bad]
        _set(result, status=TaskResultStatus.FAILED, errors=errors, finished_at=latest)
        return
    _set(result, status=TaskResultStatus.SUCCESSFUL, finished_at=latest)
    if len(told) == 1 and (only := next(iter(told.values()))) is not None:
        _tell_done(result, only)
    elif len(told) > 1:
        _set(result, _return_value={peer: (one or {}).get("value") for peer, one in told.items()})


def _decoded(delivery: Delivery) -> dict[str, Any] | None:
    if delivery.result is None:
        return None
    try:
        found = msgspec.json.decode(delivery.result)
    except msgspec.MsgspecError:
        return {"value": delivery.result.decode("utf-8", "replace")}
    return found if isinstance(found, dict) and "value" in found else {"value": found}


def _tell_done(result: Any, told: Mapping[str, Any]) -> None:
    _set(result, _return_value=told["value"])
    if "lost" in told:
        result.errors.append(TaskError(exception_class_path=TOO_LARGE, traceback=told["lost"]))
    if "started" in told:
        started, finished = (local(dt.datetime.fromisoformat(told[name])) for name in ("started", "finished"))
        _set(result, started_at=started, last_attempted_at=started, finished_at=finished,
             worker_ids=_workers(told.get("attempt", 1), told.get("worker", "")))  # fmt: skip


def _workers(attempts: int, last: str) -> list[str]:
    """One for each attempt, for Django counts them so. Who made the earlier ones is not kept."""
    return [*(f"attempt-{number}" for number in range(1, attempts)), last or f"attempt-{attempts}"] if attempts else []


def workers(attempts: int, last: str) -> list[str]:
    """``worker_ids`` of a task in its given attempt."""
    return _workers(attempts, last)


def _value_id(node: Node, task: MessageId) -> MessageId:
    return id_of_key(node.name, VALUES, format_id(task))


def _set(result: Any, **fields: Any) -> None:
    for name, value in fields.items():
        object.__setattr__(result, name, value)  # it is frozen, as Django's own backends know


def local(moment: dt.datetime) -> dt.datetime:
    """A moment as this project has them: aware with USE_TZ, otherwise naive in its own time zone."""
    if settings.USE_TZ:
        return moment
    naive: dt.datetime = timezone.make_naive(moment)
    return naive


def _ago(seconds: float) -> dt.datetime:
    return local(dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds))
