"""Channels of this node whose consumers get nothing for now, though messages go on coming in.

Owns the document ``paused.json`` of the node (docs/formats/paused.md); its times are node time where it is a file, the
store's where machines share it. Must not know consumers.
"""

from collections.abc import Sequence
from typing import Any

import attrs

from dropr_core.errors import UsageError
from dropr_core.model import topics
from dropr_core.model.limits import MAX_SECONDS, clip
from dropr_core.model.names import check_stored_channel
from dropr_core.system.clock import Clock
from dropr_core.system.notifier import Notifier
from dropr_core.system.shared_document import Documents, Form

NAME = "paused.json"
VERSION = 1
ADVICE = (
    "it says which channels are paused; remove it to let all of them go on, and pause again what shall rest "
    "('dropr pause')"
)


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

    def __init__(self, documents: Documents, clock: Clock, notifier: Notifier) -> None:
        self._documents = documents
        self._file = documents.document(NAME, Form(_decode, _encode, dict[str, Pause], ADVICE))
        self._clock, self._notifier = clock, notifier

    def now(self) -> dict[str, Pause]:
        """Channel → its pause, of those that are not over. Raises StoreError."""
        kept = self._file.look()
        if not kept:
            return {}
        moment, shift = self._clock.now(), self._documents.shift()
        here = {channel: _shifted(one, -shift) for channel, one in kept.items()} if shift else kept
        return {channel: one for channel, one in here.items() if not _is_over(one, moment)}

    def unpaused(self, channels: Sequence[str]) -> Sequence[str]:
        """Those of the channels whose consumers may get something. Costs a look at a file's date. Raises StoreError."""
        if not self._file.look():
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
        shift = self._documents.shift()
        with self._file.changing() as kept:
            for over in [name for name, one in kept.items() if _is_over(one, now + shift)]:
                del kept[over]
            kept[channel] = _shifted(made, shift)
        self._notifier.notify(topics.inbox(channel))  # who waits for its next message finds out until when
        return made

    def unpause(self, channel: str) -> bool:
        """Its consumers get messages again; durable. Whether it was paused. Raises StoreError."""
        with self._file.changing() as kept:
            before = kept.pop(channel, None)
        self._notifier.notify(topics.inbox(channel))
        return before is not None and not _is_over(before, self._clock.now() + self._documents.shift())


def _is_over(one: Pause, moment: float) -> bool:
    return one.until is not None and one.until <= moment


def _shifted(one: Pause, seconds: float) -> Pause:
    """By another clock."""
    return attrs.evolve(one, since=one.since + seconds, until=None if one.until is None else one.until + seconds)


def _encode(kept: dict[str, Pause]) -> object:
    return {"version": VERSION, "channels": {name: attrs.asdict(one) for name, one in kept.items()}}


def _decode(document: Any) -> dict[str, Pause]:
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']!r}")
    return {
        str(name): Pause(float(one["since"]), None if one["until"] is None else float(one["until"]), str(one["reason"]))
        for name, one in document["channels"].items()
    }


__all__ = ["Pause", "Pauses"]
