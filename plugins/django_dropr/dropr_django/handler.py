"""dropr's handler ``django``: for ``dropr worker`` and ``dropr up`` on a node whose channels carry tasks of Django.

    channels:
      default: {serializer: json, handler: "django:shop.settings"}

Owns that Django is set up before the first task. ``manage.py dropr_worker`` needs no such line in the YAML.
"""

import os
from typing import Any

import attrs

from dropr_core import options as fields
from dropr_core.config.targets import check_module, search
from dropr_core.contracts.context import Context
from dropr_core.contracts.handler import Handler, Work
from dropr_core.errors import PluginError
from dropr_core.hookspecs import hookimpl
from dropr_core.system.loading import unforked


@attrs.frozen(kw_only=True)
class Options:
    """Options of the handler ``django``."""

    target: str | None = fields.option(
        None, doc="The settings of the project: package.settings.", unset="DJANGO_SETTINGS_MODULE", check=check_module
    )


class DjangoHandler(Handler):
    """Runs the tasks that messages name."""

    def __init__(self, node: str, log: Any) -> None:
        """Django is set up."""
        with unforked:
            from dropr_django.running import Runner

        self._runner, self._node, self._log = Runner(node, log), node, log

    def handle(self, work: Work) -> Any:
        """Run it; what goes home is a value with its times (results.py)."""
        told = self._runner.run(work)
        if work.message.sender != self._node:
            return told
        if told["value"] is not None:
            self._keep(work, told)
        return None

    def _keep(self, work: Work, told: dict[str, Any]) -> None:
        """Of a task that this node has sent to itself no receipt goes home. That its value is lost undoes no work."""
        with unforked:
            from dropr_django.opened import node_of_this_process
            from dropr_django.results import keep_value

        try:
            keep_value(node_of_this_process(), work.message.message_id, work.message.channel, told)
        except Exception as error:
            self._log.warning("the value of task %s is not kept: %s: %s", work.id, type(error).__name__, error)


def set_up(settings: str | None) -> None:
    """Have Django ready. Raises PluginError."""
    with unforked:
        import django
        from django.apps import apps

    if settings is not None:
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", settings)
    if apps.ready:
        return
    search(None)
    try:
        django.setup()
    except Exception as error:
        raise PluginError(
            f"handler django: Django cannot be set up: {type(error).__name__}: {error}; name the settings "
            "(handler: django:shop.settings, or DJANGO_SETTINGS_MODULE) and start dropr in the project's directory"
        ) from error


@hookimpl
def dropr_handler(options: Options, context: Context) -> Handler:
    """The handler ``django``. Raises PluginError if Django cannot be set up."""
    set_up(options.target)
    return DjangoHandler(context.node, context.log)
