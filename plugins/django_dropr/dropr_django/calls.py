"""A task as it travels: which function, with which arguments.

Owns the form of the message's body, and which functions may be called because a message says so: tasks of installed
apps, and nothing else.
"""

import json
from collections.abc import Mapping
from typing import Any

import attrs
from django.apps import apps
from django.utils.module_loading import import_string

from dropr_core.errors import Reject
from dropr_django.framework import Task


class UnknownTask(Exception):
    """There is no such task here (yet: this process may be older than the one that sent it)."""


@attrs.frozen
class Call:
    """The body."""

    path: str
    """``package.module.function``, as Django names tasks."""
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    priority: int
    backend: str

    def document(self) -> dict[str, Any]:
        """In JSON."""
        return {
            "task": self.path, "args": self.args, "kwargs": self.kwargs, "queue": self.queue, "priority": self.priority,
            "backend": self.backend,
        }  # fmt: skip

    def task(self) -> Any:
        """The task. Raises UnknownTask."""
        task = find_task(self.path)
        changes = {"priority": self.priority, "queue_name": self.queue, "backend": self.backend}
        if all(getattr(task, name) == value for name, value in changes.items()):
            return task
        try:
            return task.using(**changes)
        except Exception:  # settings of this process that know no such queue or backend; it is the same function
            return task


def read_call(value: Any) -> Call:
    """The call that a body says: a value, or bytes of JSON where a channel has no serializer. Raises Reject."""
    if isinstance(value, bytes):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, Mapping):
        raise Reject("this is no task of Django: its body is no JSON object")
    path, args, kwargs = value.get("task"), value.get("args", []), value.get("kwargs", {})
    queue, priority, backend = value.get("queue", "default"), value.get("priority", 0), value.get("backend", "default")
    good = isinstance(path, str) and isinstance(args, list) and isinstance(kwargs, dict)
    if not good or not isinstance(queue, str) or not isinstance(backend, str) or type(priority) is not int:
        raise Reject('this is no task of Django: expected {"task": "app.tasks.function", "args": [], "kwargs": {}}')
    return Call(str(path), list(args), dict(kwargs), queue, priority, backend)


def find_task(path: str) -> Any:
    """The task of an installed app by its path; nothing of any other module is imported. Raises UnknownTask."""
    module = path.rpartition(".")[0]
    names = [app.name for app in apps.get_app_configs()]
    if not any(module == name or module.startswith(f"{name}.") for name in names):
        raise UnknownTask(f"{path[:200]} is in no installed app (INSTALLED_APPS)")
    try:
        task = import_string(path)
    except ImportError as error:
        raise UnknownTask(f"{path[:200]} cannot be imported: {error}") from error
    if not isinstance(task, Task):
        raise UnknownTask(f"{path[:200]} is no task; mark it with @task")
    return task
