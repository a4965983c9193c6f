"""One run of a schedule: its message is put or sent, once.

Owns what the message is and by which id it is known, so that a run which was put already is found and not put again.
Must not know what is due.
"""

import datetime as dt
import json
from pathlib import Path
from typing import Any

from dropr_core.api.runtime import Runtime
from dropr_core.api.send_options import SendOptions
from dropr_core.api.sender import Sender
from dropr_core.config.schedules import ScheduleConfig
from dropr_core.errors import Conflict
from dropr_core.model.names import MessageId, format_id, id_of_run
from dropr_core.model.recurrence import SECOND

HEADER = "dropr-schedule"
"""The header with the name of the schedule."""
DUE = "dropr-due"
"""The header with the due time, in ISO 8601."""


def sender_of(node: str) -> str:
    """Under which name a node's schedules put messages into its own queue: that of no peer."""
    return f"{node}:schedules"


def say_moment(moment: int) -> str:
    """A moment as people write it, in UTC."""
    try:
        text = dt.datetime.fromtimestamp(moment / SECOND, dt.UTC).isoformat(
            timespec="milliseconds" if moment % SECOND else "seconds"
        )
    except (OverflowError, ValueError, OSError):
        return f"{moment} ms"
    return text.replace("+00:00", "Z")


class Firing:
    """Puts and sends for one open node."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self._sender = runtime, Sender(runtime)

    def peers(self, schedule: ScheduleConfig) -> bool:
        """Whether its messages go to peers."""
        channel = self._runtime.config.channels.get(schedule.target)
        return bool(schedule.to or (channel is not None and channel.to))

    def identity(self, schedule: ScheduleConfig, due: int) -> MessageId:
        """The id of a run's message."""
        return id_of_run(schedule.name, schedule.target, due)

    def fire(self, schedule: ScheduleConfig, due: int) -> str:
        """Put or send the message of a due time, unless that was done before; its id. Raises UsageError, OSError (its
        file cannot be read), QueueFull, StoreError.
        """
        identity, value = self.identity(schedule, due), self._value(schedule)
        options: SendOptions = {"headers": {HEADER: schedule.name, DUE: say_moment(due)}}
        kind = None
        if schedule.value is not None and self._of_added_webhook(schedule):
            value, kind = json.dumps(value, ensure_ascii=False).encode(), "application/json"
        if schedule.priority is not None:
            options["priority"] = schedule.priority
        if schedule.expires_in is not None:
            options["expires_in"] = schedule.expires_in
        if self.peers(schedule):
            options |= {"channel": schedule.target, "id": identity, "receipt": True}
            if schedule.to:
                options["to"] = schedule.to
            try:
                self._sender.send(value, options, 0.0)
            except Conflict:  # sent before, and what it sends was changed since
                self._runtime.log.info("schedule %s: the run of %s was sent already", schedule.name, say_moment(due))
        elif self._runtime.inbox.status(identity) is None:
            self._sender.put_known(value, schedule.target, options, identity, sender_of(self._runtime.name), kind)
        return format_id(identity)

    def _of_added_webhook(self, schedule: ScheduleConfig) -> bool:
        """Its channel has no serializer in the configuration, where that of a webhook in the file has one."""
        return schedule.webhook is not None and schedule.name not in self._runtime.config.schedules

    def _value(self, schedule: ScheduleConfig) -> Any:
        if schedule.file is not None:
            return self._runtime.config.where.directory / Path(schedule.file).expanduser()
        if schedule.text is not None:
            return schedule.text
        channel = self._runtime.config.channels.get(schedule.target)
        serializer = channel.serializer.use if channel is not None and channel.serializer is not None else ""
        return schedule.value if schedule.value is not None or serializer == "json" else ""


__all__ = ["DUE", "HEADER", "Firing", "say_moment", "sender_of"]
