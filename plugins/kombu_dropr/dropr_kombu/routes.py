"""Which way a queue goes: over to a peer, or to the workers of this node.

Owns the reading of `broker_transport_options` and of the node's `channels:` for that. Must not know how anything is
sent.
"""

from collections.abc import Iterable, Mapping

import attrs

from dropr_core.config.node import NodeConfig
from dropr_core.errors import UsageError
from dropr_kombu.address import channel_of


@attrs.frozen
class Route:
    """Where messages of one queue go."""

    channel: str
    to: tuple[str, ...] = ()
    """Peers and groups; empty: by the channel's own `to:`."""
    away: bool = False
    """Whether they go to other nodes; else to consumers of this one."""

    @property
    def where(self) -> str:
        """For a log line."""
        return ", ".join(self.to) or "another node"


class Routes:
    """Those of one node, for the options of one application."""

    def __init__(self, config: NodeConfig, options: Mapping[str, object]) -> None:
        """``options``: ``queues``: a mapping of queue → peer, list of peers, or ``{"to": …, "channel": …}``; an empty
        ``to`` keeps a queue here whatever the YAML says. Raises UsageError.
        """
        self._config = config
        self._said = _queues(options.get("queues"))
        self._known: dict[str, Route] = {}

    def of(self, queue: str) -> Route:
        """The route of a queue. Raises UsageError if its channel cannot take tasks."""
        route = self._known.get(queue)
        if route is None:
            route = self._find(queue)
            if len(self._known) < 10_000:  # names come from the application
                self._known[queue] = route
        return route

    def _find(self, queue: str) -> Route:
        said = self._said.get(queue)
        channel = said.channel if said is not None and said.channel else channel_of(queue)
        config = self._config.channels.get(channel)
        if config is not None and (config.serializer is not None or config.type is not None):
            raise UsageError(
                f"queue {queue}: channel {channel} has a serializer or a type in the YAML of node {self._config.node}, "
                "but what Celery sends is serialised by Celery: take it out there, or give the queue another channel"
            )
        if said is not None and said.to is not None:
            return Route(channel, said.to, away=bool(said.to))
        named = config.to if config is not None else ()
        return Route(channel, tuple(named) if named else (), away=bool(named))


@attrs.frozen
class _Said:
    to: tuple[str, ...] | None
    channel: str


def _queues(given: object) -> dict[str, _Said]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise UsageError('broker_transport_options["queues"] is a mapping of queues to peers: {"mails": "warehouse"}')
    return {str(queue): _said(str(queue), value) for queue, value in given.items()}


def _said(queue: str, value: object) -> _Said:
    if isinstance(value, Mapping):
        unknown = sorted(set(value) - {"to", "channel"})
        if unknown:
            raise UsageError(f"queue {queue}: no option {unknown[0]!r}; there are 'to' and 'channel'")
        return _Said(_peers(queue, value["to"]) if "to" in value else None, str(value.get("channel") or ""))
    return _Said(_peers(queue, value), "")


def _peers(queue: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,) if value else ()
    if isinstance(value, Iterable):
        return tuple(str(one) for one in value)
    raise UsageError(f"queue {queue}: {value!r} is no peer, group or list of them")
