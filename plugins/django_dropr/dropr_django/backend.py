"""The backend of Django's tasks: `enqueue` ends at this machine's disk, whatever any network does.

Owns the way from a task to a message: channel, priority, time, transaction. What became of it is told by results.py,
who runs it stands in running.py.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.utils import timezone

from dropr_core.api.node import Node
from dropr_core.api.sender import Sender
from dropr_core.model.names import IdMaker, MessageId, format_id
from dropr_core.system.loading import unforked
from dropr_django.calls import Call
from dropr_django.configuration import BackendOptions
from dropr_django.framework import BaseTaskBackend, TaskResult, TaskResultStatus, signals
from dropr_django.in_transaction import waiting_call
from dropr_django.opened import node_of_this_process
from dropr_django.priorities import place_of
from dropr_django.results import find_result


class DroprBackend(BaseTaskBackend):  # type: ignore[misc]  # Django has no types
    """``TASKS = {"default": {"BACKEND": "dropr_django.backend.DroprBackend", "QUEUES": […], "OPTIONS": {…}}}``."""

    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        """As Django makes it. Raises ImproperlyConfigured."""
        super().__init__(alias, params)
        try:
            self.dropr = BackendOptions.read(self.options)
        except ImproperlyConfigured as error:
            raise ImproperlyConfigured(f"TASKS[{alias!r}]: {error}") from None
        self._make_id = IdMaker()

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Send it. When this returns it is on this machine's disk; inside of a transaction (of OPTIONS' DATABASE, with
        ENQUEUE_ON_COMMIT) as soon as that has committed, and never if it is rolled back.

        Raises InvalidTask, TypeError for arguments that JSON cannot carry, QueueFull, UsageError, StoreError.
        """
        self.validate_task(task)
        identity = self._make_id()
        result = TaskResult(
            task=task, id=format_id(identity), status=TaskResultStatus.READY, enqueued_at=timezone.now(),
            started_at=None, finished_at=None, last_attempted_at=None, args=list(args), kwargs=dict(kwargs),
            backend=self.alias, errors=[], worker_ids=[],
        )  # fmt: skip
        node, connection = node_of_this_process(), connections[self.dropr.database]
        send = partial(self._send, node, result, identity)
        if not connection.in_atomic_block:
            send()
        elif self.dropr.transactional and self._is_routed(node, task):
            send(connection)
        elif self.dropr.enqueue_on_commit or self.dropr.transactional:
            transaction.on_commit(send, using=self.dropr.database)
        else:
            send()
        return result

    def _is_routed(self, node: Node, task: Any) -> bool:
        known = node.config.channels.get(self.dropr.channel(task.queue_name))
        return known is not None and bool(known.to)

    def _send(self, node: Node, result: Any, identity: MessageId, connection: Any = None) -> None:
        task = result.task
        channel = self.dropr.channel(task.queue_name)
        call = Call(task.module_path, result.args, result.kwargs, task.queue_name, task.priority, self.alias)
        options = place_of(task.priority)
        if task.run_after is not None:
            options["at"] = _aware(task.run_after)
        if self._is_routed(node, task):
            node.send(call.document(), channel=channel, id=identity, receipt=True, connection=connection, **options)
        else:
            Sender(node.runtime).put(call.document(), channel, options, identity)
        signals.task_enqueued.send(type(self), task_result=result)

    def get_result(self, result_id: str) -> Any:
        """What is known now of a task that this node has sent. Raises TaskResultDoesNotExist, StoreError."""
        node = node_of_this_process()
        waiting = partial(waiting_call, node, connections[self.dropr.database]) if self.dropr.transactional else None
        return find_result(node, self.alias, result_id, waiting)

    def check(self, **_more: Any) -> Iterable[Any]:
        """For ``manage.py check``."""
        with unforked:
            from dropr_django.checks import check_backend

        return check_backend(self)


def _aware(moment: dt.datetime) -> dt.datetime:
    return moment if timezone.is_aware(moment) else timezone.make_aware(moment)
