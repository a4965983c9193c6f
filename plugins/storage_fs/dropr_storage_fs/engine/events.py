"""What happens to a half that observers want to know, and errors of the disk in dropr's words.

Owns that the same event is told at most once a minute, and damage once for each place. Must not know
what is stored.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dropr_core.contracts.context import Context
from dropr_core.errors import DroprError, QueueFull
from dropr_storage_fs.files import disk

TELL_EVERY = 60.0


class Events:
    """Tells of one half."""

    def __init__(self, directory: Path, context: Context) -> None:
        self._directory, self._context = directory, context
        self._told: dict[str, float] = {}
        self._damaged: set[tuple[object, object]] = set()

    def tell(self, event: str, details: Mapping[str, Any]) -> None:
        """Raise an event."""
        if event == "corrupt":
            place = (details.get("file"), details.get("from"))
            if place in self._damaged:
                return
            self._damaged.add(place)
        else:
            now = self._context.clock.now()
            if now - self._told.get(event, float("-inf")) < TELL_EVERY:
                return
            self._told[event] = now
        self._context.event(event, {"store": str(self._directory), **details})

    def failed(self, error: OSError) -> DroprError:
        """The error that callers get for one of the disk, of which observers are told."""
        translated = disk.translate(error, self._directory)
        self.tell("full" if type(translated) is QueueFull else "write_failed", {"error": str(error)})
        return translated
