"""The secrets in the options of a node's plugins: passwords of a gateway's users, a webhook's key, a proxy.

Owns the walk over every plugin that a configuration names. What of it is secret is declared by the plugin's `Options`,
so the plugin is imported for it; one that has no options in the file is not.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import attrs

from dropr_core.config.confidential import find_secrets, texts_of
from dropr_core.config.node import NodeConfig
from dropr_core.config.options import fields_of
from dropr_core.config.yamlfile import Steps
from dropr_core.errors import DroprError
from dropr_core.plugin.registry import KINDS, find

IN_PROCESS: Mapping[str, Collection[str]] = {
    "daemon": ("storage", "observer", "transport"),
    "server": ("storage", "observer", "transport"),
    "worker": ("storage", "observer", "serializer", "handler"),
    "gateway": ("storage", "observer", "gateway"),
    "monitor": ("storage", "observer"),
}
"""The kinds of plugins that a process uses: others are not imported for its log."""


def secrets_of(config: NodeConfig, kinds: Collection[str] = KINDS) -> Iterator[tuple[Steps, str]]:
    """Place and text of each secret in the options of plugins of these kinds.

    A plugin that cannot be used has none here: whoever starts it says what is wrong with it.
    """
    for kind, name, options, steps in _plugins(config):
        if kind not in kinds or not options:
            continue
        try:
            cls = getattr(find(kind, name).module, "Options", None)
            found = list(find_secrets(cls, options, steps)) if isinstance(cls, type) and attrs.has(cls) else []
        except (DroprError, NameError, TypeError):  # the latter two: Options whose annotations mean nothing
            continue
        yield from found


def undeclared_in(config: NodeConfig) -> Iterator[Steps]:
    """Places in the options of plugins of which nobody here can say whether they are secret: the plugin is not
    installed, or has no option of that name. `dropr config` shows none of them.
    """
    for kind, name, options, steps in _plugins(config):
        if not options:
            continue
        try:
            cls = getattr(find(kind, name).module, "Options", None)
            declared = fields_of(cls) if isinstance(cls, type) and attrs.has(cls) else {}
        except (DroprError, NameError, TypeError):
            declared = {}
        for word, value in options.items():
            if word not in declared:
                yield from (place for place, _ in texts_of(value, (*steps, word)))


def _plugins(config: NodeConfig) -> Iterator[tuple[str, str, Mapping[str, Any], Steps]]:
    """Kind, name, options and their place."""
    yield "storage", config.storage.use, config.storage.options, ("storage",)
    for name, options in config.transports.items():
        yield "transport", name, options, ("transports", name)
    for index, observer in enumerate(config.observers):
        yield "observer", observer.use, observer.options, ("observers", index)
    for name, gateway in config.gateways.items():
        yield "gateway", gateway.plugin, gateway.options, ("gateways", name)
    for name, channel in config.channels.items():
        for kind, component in (("serializer", channel.serializer), ("handler", channel.handler)):
            if component is not None:
                yield kind, component.use, component.options, ("channels", name, kind)
