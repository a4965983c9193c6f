"""The app: what is in place once Django is set up.

Owns the node of the process, and that a changed setting closes it. Opens nothing by itself.
"""

import os
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.signals import setting_changed

from dropr_core.system.loading import unforked
from dropr_django.opened import NodeOfProcess


class DroprConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """Of ``dropr_django``."""

    name = "dropr_django"
    verbose_name = "dropr"
    default_auto_field = "django.db.models.BigAutoField"
    opened: NodeOfProcess

    def ready(self) -> None:
        """Once for each process."""
        with unforked:
            from dropr_django.checks import check_node

        self.opened = NodeOfProcess()
        os.register_at_fork(after_in_child=self.opened.after_fork)
        checks.register(check_node)
        setting_changed.connect(self._changed)

    def _changed(self, *, setting: str, **_more: Any) -> None:
        if setting == "DROPR":
            self.opened.close()
