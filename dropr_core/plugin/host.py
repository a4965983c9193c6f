"""What the plugins of a node get from their host.

Owns how a `Context` is made from a node's configuration. Must not know what any plugin does with it.
"""

import logging
from collections.abc import Mapping
from typing import Any

from dropr_core.config.node import NodeConfig
from dropr_core.config.schema import ChannelConfig, PeerConfig
from dropr_core.contracts.context import Context
from dropr_core.plugin.observers import Observers
from dropr_core.system.clock import SystemClock


def make_context(
    config: NodeConfig, clock: SystemClock, log: logging.Logger, observers: Observers, *, read_only: bool = False
) -> Context:
    """The context of this node's plugins; what they tell goes to the observers."""
    limits = config.limits

    def event(name: str, details: Mapping[str, Any]) -> None:
        observers.tell(config.node, name, details)

    return Context(
        node=config.node,
        data=config.data,
        clock=clock,
        log=log,
        event=event,
        max_messages=limits.max_messages,
        max_bytes=limits.max_bytes,
        min_free=limits.min_free,
        peer_limits=_limits(config.peers),
        channel_limits=_limits(config.channels),
        remember=config.delivery.remember,
        keep_sent={name: channel.retention for name, channel in config.channels.items() if channel.retention},
        read_only=read_only,
    )


def _limits(named: Mapping[str, PeerConfig] | Mapping[str, ChannelConfig]) -> dict[str, tuple[int | None, int | None]]:
    """Only what has a limit: a storage looks every name up with every message."""
    limits = {name: (config.max_messages, config.max_bytes) for name, config in named.items()}
    return {name: limit for name, limit in limits.items() if limit != (None, None)}
