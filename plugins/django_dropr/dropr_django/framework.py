"""Django's tasks framework, where it is: in Django from 6.0 on, before that in the package django-tasks.

Owns that choice. Both have the same names but for one error. Must not know what we make of them.
"""

from importlib import import_module
from typing import Any

import django

ROOT = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"
"""What applications import `task` from."""

_base: Any = import_module(f"{ROOT}.base")
_exceptions: Any = import_module(f"{ROOT}.exceptions")
signals: Any = import_module(f"{ROOT}.signals")
tasks: Any = import_module(ROOT)

BaseTaskBackend: Any = import_module(f"{ROOT}.backends.base").BaseTaskBackend
Task: Any = _base.Task
TaskContext: Any = _base.TaskContext
TaskError: Any = _base.TaskError
TaskResult: Any = _base.TaskResult
TaskResultStatus: Any = _base.TaskResultStatus
TaskResultDoesNotExist: Any = _exceptions.TaskResultDoesNotExist

normalize_json: Any = import_module("django.utils.json" if ROOT == "django.tasks" else f"{ROOT}.utils").normalize_json


def backends() -> list[Any]:
    """Every backend that the setting TASKS names. Raises ImproperlyConfigured for one that cannot be made."""
    return [tasks.task_backends[alias] for alias in tasks.task_backends.settings]
