"""The transports of one process: a URL's scheme picks the plugin.

Owns the instances, one for each plugin, made when a URL first needs it.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from dropr_core.config.interpolation import NOWHERE, SourceLocation
from dropr_core.contracts.context import Context
from dropr_core.contracts.transport import Transport
from dropr_core.plugin.registry import create, transport_for


class Transports:
    """Makes and keeps transports."""

    def __init__(
        self, options: Mapping[str, Mapping[str, Any]], context: Context, at: SourceLocation = NOWHERE
    ) -> None:
        self._options, self._context, self._at = options, context, at
        self._made: dict[str, Transport] = {}

    def for_url(self, url: str) -> Transport:
        """The transport of a URL; raises PluginError if none is installed for its scheme."""
        name = transport_for(urlsplit(url).scheme, tuple(self._options))
        made = self._made.get(name)
        if made is None:
            options = self._options.get(name, {})
            made = create("transport", name, options, self._context, f"transports.{name}", self._at)
            self._made[name] = made
        return made

    def close(self) -> None:
        """Close all; safe twice."""
        for name, transport in self._made.items():
            try:
                transport.close()
            except Exception:  # the others must be closed as well
                self._context.log.exception("transport '%s' raised in close", name)
