"""Django over dropr: a backend for its tasks, a worker, system checks, and dead letters in its admin.

    INSTALLED_APPS = [..., "dropr_django"]
    DROPR = {"NODE": "/etc/shop.yaml"}
    TASKS = {"default": {"BACKEND": "dropr_django.backend.DroprBackend"}}

Owns the one name that applications import, `node`. Must not import Django before somebody asks for that: settings
import this package.
"""

from typing import TYPE_CHECKING

from dropr_core.system.loading import unforked

if TYPE_CHECKING:
    from dropr_core.api.node import Node


def node() -> "Node":
    """The node of this process, opened when it is first asked for, and anew in a process that was forked. Closed at the
    end of the process. Raises ImproperlyConfigured, ConfigError, PluginError, StoreError.
    """
    with unforked:
        from dropr_django.opened import node_of_this_process

    return node_of_this_process()


__all__ = ["node"]
