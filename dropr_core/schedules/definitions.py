"""The schedules that a node knows: those of its file, and those that were added on the command line.

Owns the file ``schedules.json`` of the data directory (docs/formats/schedules.md): what was added, and which are
paused. Must not know what is due.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from dropr_core.config.interpolation import SourceLocation
from dropr_core.config.node import NodeConfig
from dropr_core.config.options import Reader
from dropr_core.config.schedules import ScheduleConfig
from dropr_core.errors import DroprError, UsageError
from dropr_core.system.shared_document import Documents, Form

NAME = "schedules.json"
VERSION = 1
MOST = 10_000
"""Schedules that may be added."""
ADVICE = (
    "it says which schedules were added; remove it and add them again ('dropr schedule add'), and pause what shall rest"
)


@attrs.define
class Added:
    """What the file says."""

    schedules: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    """Name → its options, in the words of the YAML."""
    paused: dict[str, int] = attrs.field(factory=dict)
    """Name → since when, in milliseconds since the epoch."""


class Definitions:
    """Those of one node, as every process sees them. Safe from many threads."""

    def __init__(self, config: NodeConfig, documents: Documents) -> None:
        self._config = config
        self._file = documents.document(NAME, Form(_decode, _encode, Added, ADVICE))

    def stamp(self) -> object:
        """The same object as long as nothing was changed; costs a look at a file's date. Raises StoreError."""
        return self._file.look()

    def all(self) -> tuple[dict[str, ScheduleConfig], dict[str, str]]:
        """Name → schedule, and name → what is wrong with those that cannot be used. Raises StoreError."""
        good, bad = dict(self._config.schedules), dict[str, str]()
        for name, options in self._file.look().schedules.items():
            if name in good:
                bad[name] = (
                    "it stands in the node's file now, which counts; 'dropr schedule remove' forgets the other one"
                )
                continue
            try:
                good[name] = read_schedule(name, options, self._config)
            except DroprError as error:
                bad[name] = str(error)
        return good, bad

    def is_added(self, name: str) -> bool:
        """Whether it was added, and does not stand in the node's file."""
        return name in self._file.look().schedules

    @property
    def paused(self) -> Mapping[str, int]:
        """Those that rest, since when."""
        return self._file.look().paused

    def add(self, name: str, options: Mapping[str, Any]) -> ScheduleConfig:
        """One more; durable. Raises UsageError, StoreError."""
        made = read_schedule(name, options, self._config)
        if name in self._config.schedules:
            raise UsageError(f"schedule {name} stands in the node's file; change it there")
        with self._file.changing() as added:
            if name in added.schedules:
                raise UsageError(f"schedule {name} is there already; 'dropr schedule remove {name}' first")
            if len(added.schedules) >= MOST:
                raise UsageError(f"{MOST} schedules were added already; remove those that are over")
            added.schedules[name] = dict(options)
        return made

    def remove(self, name: str) -> bool:
        """Forget what was added; whether it was there. Raises StoreError."""
        with self._file.changing() as added:
            added.paused.pop(name, None)
            return added.schedules.pop(name, None) is not None

    def touch(self) -> None:
        """Let every process look again at all schedules. Raises StoreError."""
        with self._file.changing():
            pass

    def pause(self, name: str, now: int) -> bool:
        """From now on it does not happen; whether that is new. Raises StoreError."""
        with self._file.changing() as added:
            new = name not in added.paused
            added.paused.setdefault(name, now)
        return new

    def resume(self, name: str) -> bool:
        """It happens again; whether it was paused. Raises StoreError."""
        with self._file.changing() as added:
            return added.paused.pop(name, None) is not None


def read_schedule(name: str, options: Mapping[str, Any], config: NodeConfig) -> ScheduleConfig:
    """A schedule from the words of the YAML. Raises UsageError (also as ConfigError) with every mistake."""
    reader = Reader(SourceLocation("", Path.cwd()))
    made = reader.read(ScheduleConfig, options, (name,), name=name)
    reader.finish()
    if made is None:
        raise UsageError(f"schedule {name} cannot be read")
    made.check()
    channel = config.channels.get(made.target)
    if made.webhook is not None:
        if channel is not None and (channel.handler is not None or channel.to):
            raise UsageError(f"channel {made.target} belongs to the webhook of schedule {name}: no handler, no to")
    elif made.value is not None and not isinstance(made.value, str) and (channel is None or channel.serializer is None):
        raise UsageError(f"channel {made.target} has no serializer for a value; give it one, or say text")
    for target in made.to:
        config.resolve(target)
    return made


def _encode(added: Added) -> object:
    return {"version": VERSION, "added": added.schedules, "paused": added.paused}


def _decode(document: Any) -> Added:
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']!r}")
    schedules = {
        str(name): {str(key): one for key, one in options.items()} for name, options in document["added"].items()
    }
    return Added(schedules, {str(name): int(since) for name, since in document["paused"].items()})


__all__ = ["Definitions", "read_schedule"]
