"""What happens to a half that observers want to know, and errors of the disk in dropr's words.

Owns that the same event is told at most once a minute, and damage once for each place. Must not know
what is stored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.errors import QueueFull, StoreError
from dropr_core.storage_kit.events import StoreEvents
from dropr_core.system.os_errors import store_error


class Events:
    """Tells of one half."""

    def __init__(self, directory: Path, context: Context) -> None:
        self._directory, self._events = directory, StoreEvents(context, directory)
        self._damaged: set[tuple[object, object]] = set()

    def tell(self, event: str, details: Mapping[str, Any]) -> None:
        """Raise an event."""
        if event == "corrupt":
            place = (details.get("file"), details.get("from"))
            if place in self._damaged:
                return
            self._damaged.add(place)
        self._events.tell(event, details, each=event == "corrupt")

    def failed(self, error: OSError) -> StoreError:
        """The error that callers get for one of the disk, of which observers are told."""
        translated = store_error(error, self._directory)
        self.tell("full" if type(translated) is QueueFull else "write_failed", {"error": str(error)})
        return translated
