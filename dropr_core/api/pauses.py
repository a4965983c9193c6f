"""Channels of this node whose consumers get nothing for now, though messages go on coming in.

Owns the file ``paused.json`` of the data directory, which every process of the node looks at: who asks often asks the
file system whether it has changed, and reads it only then. Must not know consumers.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from dropr_core.errors import StoreCorrupt, UsageError
from dropr_core.model import topics
from dropr_core.model.limits import MAX_SECONDS, clip
from dropr_core.model.names import check_stored_channel
from dropr_core.system.clock import Clock
from dropr_core.system.files import replace_text
from dropr_core.system.notifier import Notifier
from dropr_core.system.os_errors import store_errors
from dropr_core.system.ownership import open_private

NAME = "paused.json"
VERSION = 1


@attrs.frozen
class Pause:
    """One channel at rest."""

    since: float
    """Node time."""
    until: float | None
    """Node time at which it ends by itself; None: never."""
    reason: str = ""


class Pauses:
    """Those of one node, as this process sees them. Safe from many threads."""

    def __init__(self, data: Path, clock: Clock, notifier: Notifier) -> None:
        self._path, self._clock, self._notifier = data / NAME, clock, notifier
        self._seen: tuple[int, int, int] | None = None
        self._kept: Mapping[str, Pause] = {}

    def now(self) -> dict[str, Pause]:
        """Channel → its pause, of those that are not over. Raises StoreError."""
        kept = self._look()
        if not kept:
            return {}
        moment = self._clock.now()
        return {channel: one for channel, one in kept.items() if one.until is None or one.until > moment}

    def unpaused(self, channels: Sequence[str]) -> Sequence[str]:
        """Those of the channels whose consumers may get something. Costs a look at a file's date. Raises StoreError."""
        if not self._look():
            return channels
        paused = self.now()
        return [channel for channel in channels if channel not in paused]

    def next_end(self, channels: Sequence[str]) -> float | None:
        """Node time at which the next of their pauses ends by itself."""
        ends = [one.until for channel, one in self.now().items() if channel in channels and one.until is not None]
        return min(ends, default=None)

    def pause(self, channel: str, seconds: float | None = None, reason: str = "") -> Pause:
        """From now on its consumers get nothing, for so many seconds (None: until `unpause`); durable. A pause that
        there is already is replaced. What a consumer holds ahead is still given. Raises UsageError, StoreError.
        """
        check_stored_channel(channel)
        if seconds is not None and not 0 <= seconds < MAX_SECONDS:
            raise UsageError(f"pause of {channel}: {seconds!r} is not a duration (seconds from 0 up)")
        now = self._clock.now()
        made = Pause(now, None if seconds is None else now + seconds, clip(reason))
        with self._changing() as kept:
            kept[channel] = made
        self._notifier.notify(topics.inbox(channel))  # who waits for its next message finds out until when
        return made

    def unpause(self, channel: str) -> bool:
        """Its consumers get messages again; durable. Whether it was paused. Raises StoreError."""
        with self._changing() as kept:
            before = kept.pop(channel, None)
        self._notifier.notify(topics.inbox(channel))
        return before is not None

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Pause]]:
        """What is kept, to be changed by one process at a time, and written."""
        with store_errors(self._path):
            lock = open_private(self._path.with_name("paused.lock"), os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)  # held for the time of one small write
                self._seen = None
                kept = self.now()
                yield kept
                document = {"version": VERSION, "channels": {name: attrs.asdict(one) for name, one in kept.items()}}
                replace_text(self._path, json.dumps(document) + "\n", durable=True)
            finally:
                os.close(lock)

    def _look(self) -> Mapping[str, Pause]:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._seen, self._kept = None, {}
            return self._kept
        except OSError:
            return self._kept  # as it was
        seen = found.st_mtime_ns, found.st_ino, found.st_size
        if seen != self._seen:
            self._kept = self._read()
            self._seen = seen
        return self._kept

    def _read(self) -> dict[str, Pause]:
        with store_errors(self._path):
            try:
                text = self._path.read_text(encoding="utf-8")
            except FileNotFoundError:
                return {}
        try:
            document: dict[str, Any] = json.loads(text)
            if document["version"] != VERSION:
                raise ValueError(f"version {document['version']!r}")
            return {str(name): Pause(float(one["since"]), None if one["until"] is None else float(one["until"]),
                                     str(one["reason"])) for name, one in document["channels"].items()}  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreCorrupt(
                f"{self._path}: which channels are paused cannot be read ({error}); remove the file to let all of them "
                "go on, and pause again what shall rest ('dropr pause')"
            ) from None


__all__ = ["Pause", "Pauses"]
