"""Events about a store, not more often than a person can read them.

Owns "the same event at most once a minute". Must not know what the events are.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dropr_core.contracts.context import Context

TELL_EVERY = 60.0
"""Seconds between two events of the same name."""


class StoreEvents:
    """Tells observers about one half of a store."""

    def __init__(self, context: Context, store: Path) -> None:
        self._context, self._store = context, str(store)
        self._told: dict[str, float] = {}

    def tell(self, event: str, details: Mapping[str, Any], *, each: bool = False) -> None:
        """Raise an event (``full``, ``corrupt``, ``write_failed`` …). ``each``: every one of them, as for damage."""
        now = self._context.clock.now()
        if each or now - self._told.get(event, float("-inf")) >= TELL_EVERY:
            self._told[event] = now
            self._context.event(event, {"store": self._store, **details})
