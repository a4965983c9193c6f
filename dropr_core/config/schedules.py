"""The section `schedules:` as frozen classes: what is due when, and what happens then.

Owns names, types and defaults of a schedule, whether it stands in the file or was added on the command line, and the
channel that a webhook gets. Must not know who fires it.
"""

import datetime as dt
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import attrs

from dropr_core.config.options import BAD, Reader, duration, given, option, own
from dropr_core.config.schema import NOTHING, ChannelConfig, Component
from dropr_core.config.yamlfile import Steps
from dropr_core.errors import UsageError
from dropr_core.model.names import check_channel, check_name
from dropr_core.system.loading import unforked

if TYPE_CHECKING:
    from dropr_core.model.recurrence import Recurrence

PREFIX = "schedules/"
"""Before the name of a schedule: the channel of its webhook."""


def read_moment(reader: Reader, value: Any, steps: Steps) -> Any:
    """A datetime from ISO 8601 with a time zone."""
    try:
        moment = dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        shown = reader.show(value, steps)
        return reader.mistake(steps, f"expected a moment such as '2026-12-24T18:00:00+01:00', found {shown}")
    if moment.utcoffset() is None:
        return reader.mistake(
            steps, f"has no time zone; write {value}Z for UTC, or the difference to it: {value}+01:00"
        )
    return moment


def read_webhook(reader: Reader, value: Any, steps: Steps) -> Any:
    """A web address, or the options of the handler ``webhook``."""
    if isinstance(value, str):
        return Component("webhook", MappingProxyType({"target": value}))
    if isinstance(value, Mapping) and "target" in value:
        return Component("webhook", MappingProxyType(dict(value)))
    return reader.mistake(steps, "expected a web address, or {target: ADDRESS, OPTION: …} of the handler webhook")


def read_value(reader: Reader, value: Any, steps: Steps) -> Any:  # noqa: ARG001
    """Whatever the file says."""
    return value


_MOMENT: Mapping[str, Any] = {"type": "string", "format": "date-time"}
_WEBHOOK: Mapping[str, Any] = {"oneOf": [{"type": "string"}, {"type": "object", "required": ["target"]}]}


@attrs.frozen(kw_only=True)
class ScheduleConfig:
    """Messages that are put or sent at times of the clock."""

    name: str = given()
    cron: str | None = option(None, doc="Due by a cron expression: `30 4 * * mon-fri`, `@daily`.")
    zone: str = option("UTC", doc="The time zone of `cron`, such as `Europe/Berlin`.")
    every: float | None = duration(
        None, least=1, doc="Due at each whole multiple of this since 1970 in UTC, on every node at the same moments."
    )
    at: dt.datetime | None = own(
        read_moment, "moment", _MOMENT, default=None, doc="Due once: `2026-12-24T18:00:00+01:00`."
    )
    channel: str | None = option(
        None, doc="Where the message goes: by the channel's `to:`, else to consumers of this node.", check=check_channel
    )
    to: tuple[str, ...] = option((), doc="Peers and groups that get it, instead of the channel's.")
    webhook: Component | None = own(
        read_webhook, "web address", _WEBHOOK, default=None,
        doc="POST the message to this address; it gets a channel of its own, `schedules/NAME`.",
    )  # fmt: skip
    value: Any = own(
        read_value, "anything", NOTHING, default=None, doc="What is sent, through the channel's serializer."
    )
    text: str | None = option(None, doc="What is sent, as text.")
    file: str | None = option(None, doc="The file whose content is sent, as it is at each due time.")
    missed: Literal["skip", "one", "all"] = option(
        "one", doc="Of due times that passed more than a minute ago while no daemon ran: none, the last, all of them."
    )
    jitter: float = duration(0, most=86400, doc="Each time it happens up to so much later, by chance.")
    priority: int | None = option(None, least=0, most=9, doc="0 (first) to 9 (last).", unset="the channel's")
    expires_in: float | None = duration(None, doc="After that long no consumer gets it.", unset="the channel's")
    enabled: bool = option(default=True, doc="Whether it happens at all.")

    @property
    def target(self) -> str:
        """The channel."""
        return PREFIX + self.name if self.webhook is not None else self.channel or ""

    def rule(self) -> "Recurrence":
        """When it is due. Raises UsageError unless there is exactly one rule, and a good one."""
        with unforked:
            from dropr_core.model.recurrence import (  # only who has schedules pays
                Once,
                make_cron,
                make_every,
                to_moment,
            )

        given_ones = [word for word in ("cron", "every", "at") if getattr(self, word) is not None]
        if len(given_ones) != 1:
            found = " and ".join(given_ones) or "none of them"
            raise UsageError(
                f"says when by one of cron, every and at; here {'is' if not given_ones else 'are'} {found}"
            )
        if self.cron is not None:
            return make_cron(self.cron, self.zone)
        if self.every is not None:
            return make_every(self.every)
        assert self.at is not None
        return Once(to_moment(self.at.timestamp()))

    def check(self) -> None:
        """Raise UsageError for what nobody could carry out."""
        check_name(self.name, "schedule")
        self.rule()
        if (self.channel is None) == (self.webhook is None):
            raise UsageError("says where by one of channel and webhook")
        if self.webhook is not None and self.to:
            raise UsageError("has `to` and a webhook; a webhook is called from this node")
        if sum((self.value is not None, self.text is not None, self.file is not None)) > 1:
            raise UsageError("says what by one of value, text and file")


def with_webhooks(
    channels: Mapping[str, ChannelConfig], schedules: Mapping[str, ScheduleConfig]
) -> Mapping[str, ChannelConfig]:
    """The channels, and with them those that webhooks get. What the file says of such a channel (`attempts`, `timeout`
    …) holds.
    """
    made = dict(channels)
    for one in schedules.values():
        if one.webhook is not None:
            known = made.get(one.target) or ChannelConfig(name=one.target, serializer=_serializer_for(one))
            made[one.target] = attrs.evolve(known, handler=one.webhook)
    return MappingProxyType(made)


def _serializer_for(one: ScheduleConfig) -> Component | None:
    return Component("json") if one.value is not None else None


__all__ = ["BAD", "PREFIX", "ScheduleConfig", "with_webhooks"]
