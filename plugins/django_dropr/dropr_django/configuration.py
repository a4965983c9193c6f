"""The setting DROPR, and the options of a backend in the setting TASKS.

Owns their names and defaults. Must not open a node.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from dropr_core.config.node import NodeConfig, load

EXAMPLE = 'DROPR = {"NODE": "/etc/shop.yaml"}'


def node_file() -> Path:
    """The YAML of this project's node. Raises ImproperlyConfigured."""
    value = getattr(settings, "DROPR", None)
    if not isinstance(value, Mapping) or not value.get("NODE"):
        raise ImproperlyConfigured(f"the setting DROPR names no node; write {EXAMPLE}")
    unknown = sorted(set(value) - {"NODE"})
    if unknown:
        raise ImproperlyConfigured(f"the setting DROPR has no {unknown[0]!r}; it is {EXAMPLE}")
    return Path(value["NODE"])


def node_config() -> NodeConfig:
    """What it says. Raises ImproperlyConfigured, ConfigError."""
    return load(node_file())


@attrs.frozen
class BackendOptions:
    """OPTIONS of a backend."""

    channels: Mapping[str, str] = attrs.field(factory=dict)
    """CHANNELS: queue → channel; a queue that is not named has the channel of its own name."""
    enqueue_on_commit: bool = True
    """ENQUEUE_ON_COMMIT: inside of a transaction the task is sent when that has committed, and not if it has not."""
    transactional: bool = False
    """TRANSACTIONAL: inside of a transaction the task is written into the outbox table of that very database, so that
    it is committed with it, whoever is killed when. Of queues that lead to a peer.
    """
    database: str = "default"
    """DATABASE: whose transactions."""

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> "BackendOptions":
        """Of the setting. Raises ImproperlyConfigured."""
        names = {field.name.upper(): field.name for field in attrs.fields(cls)}
        unknown = sorted(set(options) - set(names))
        if unknown:
            raise ImproperlyConfigured(f"OPTIONS has no {unknown[0]!r} (known: {', '.join(sorted(names))})")
        read = cls(**{names[name]: value for name, value in options.items()})
        if not isinstance(read.channels, Mapping):
            raise ImproperlyConfigured('OPTIONS["CHANNELS"] is a mapping of queues to channels')
        return read

    def channel(self, queue: str) -> str:
        """The channel of a queue."""
        return self.channels.get(queue, queue)
