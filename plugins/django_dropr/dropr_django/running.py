"""One task, run: what is around the call of its function.

Owns signals, the context, database connections, and what an exception says. Which message it came by and what becomes
of that is dropr's business.
"""

import datetime as dt
import logging
import os
import socket
from typing import Any

from django.db import close_old_connections
from django.utils import timezone

from dropr_core.contracts.handler import Failed, Work
from dropr_core.errors import Reject, Retry
from dropr_django.calls import find_task, read_call
from dropr_django.framework import TaskContext, TaskResult, TaskResultStatus, normalize_json, signals
from dropr_django.reports import error_of, is_ours, report
from dropr_django.results import document, local, workers


class NoJson(TypeError):
    """What a task returned cannot travel."""


class Runner:
    """Runs tasks of one worker process, in any of its threads."""

    def __init__(self, node: str, log: logging.Logger) -> None:
        """``node``: its name, for people who ask which worker it was."""
        self._worker = f"{node}@{socket.gethostname()}-{os.getpid()}"
        self._log = log

    def run(self, work: Work) -> dict[str, Any]:
        """Run the task of a message; what goes home. Raises Reject, Retry, Failed, UnknownTask."""
        call = read_call(work.value)
        find_task(call.path)
        task, started = call.task(), dt.datetime.now(dt.UTC)
        result = TaskResult(
            task=task, id=work.id, status=TaskResultStatus.RUNNING, enqueued_at=None, started_at=local(started),
            finished_at=None, last_attempted_at=local(started), args=call.args, kwargs=call.kwargs,
            backend=call.backend, errors=[], worker_ids=workers(work.attempt, self._worker),
        )  # fmt: skip
        close_old_connections()
        try:
            self._tell(signals.task_started, result)
            value = self._call(result)
        finally:
            close_old_connections()
        return document(call, value, started, self._worker, work.attempt)

    def _call(self, result: Any) -> Any:
        task = result.task
        context = (TaskContext(task_result=result),) if task.takes_context else ()
        try:
            value = _as_json(task, task.call(*context, *result.args, **result.kwargs))
        except (Retry, Reject):
            raise
        except BaseException as error:
            said = report(error, _around)
            self._end(result, TaskResultStatus.FAILED, errors=[error_of(said)])
            if isinstance(error, NoJson):  # it is done: to do it again would bring the same
                raise Reject(said) from None
            raise Failed(error, said) from error
        self._end(result, TaskResultStatus.SUCCESSFUL, _return_value=value)
        return value

    def _end(self, result: Any, status: Any, **fields: Any) -> None:
        for name, value in {"status": status, "finished_at": timezone.now(), **fields}.items():
            object.__setattr__(result, name, value)
        self._tell(signals.task_finished, result)

    def _tell(self, signal: Any, result: Any) -> None:
        """What listens may fail; the task has not failed by that."""
        for receiver, answer in signal.send_robust(_sender(result), task_result=result):
            if isinstance(answer, Exception):
                self._log.error("%r raised for task %s: %s: %s", receiver, result.id, type(answer).__name__, answer)


def _as_json(task: Any, value: Any) -> Any:
    try:
        return normalize_json(value)
    except (TypeError, ValueError) as error:
        raise NoJson(f"{task.module_path} returned what JSON cannot carry: {error}") from None


def _around(file: str) -> bool:
    """Whether a file only stands between us and the task."""
    return is_ours(file) or "asgiref" in file or "/django/tasks/" in file or "/django_tasks/" in file


def _sender(result: Any) -> type:
    return type(result.task.get_backend())
