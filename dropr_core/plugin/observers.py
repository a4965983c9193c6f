"""The observers of a node: told what happens, each call under a guard.

Owns the guard: an observer that raises is logged, ever more rarely, and disturbs nobody. Must not know what any
observer does, nor who tells them.
"""

import inspect
import logging
import types
from collections.abc import Mapping
from typing import Any

import pluggy

from dropr_core import hookspecs
from dropr_core.config.options import NOWHERE, SourceLocation
from dropr_core.contracts.context import Context
from dropr_core.errors import PluginError
from dropr_core.plugin.registry import KINDS, find, make, read_options, register


class Observers:
    """The observers of a node. Each call is guarded: an observer that raises is logged, nothing else happens."""

    def __init__(self) -> None:
        self._observers: list[tuple[str, pluggy.PluginManager, object, logging.Logger]] = []
        self._failed: dict[tuple[str, str], int] = {}

    @property
    def present(self) -> bool:
        """Whether there is anybody to tell; what follows is not worth its cost otherwise."""
        return bool(self._observers)

    def add(
        self, name: str, options: Any, context: Context, where: str = "observers", at: SourceLocation = NOWHERE
    ) -> None:
        """Find, check and build the observer ``name``; raises PluginError or ConfigError."""
        found = find("observer", name)
        manager = register(found, found.module)
        values = read_options(found, options, where, at)
        observer: object = found.module
        if manager.hook.dropr_observer.get_hookimpls():
            observer = make(found, manager, "dropr_observer", values, context)
            manager = register(found, observer)
        if not any(caller.name not in _MAKERS for caller in manager.get_hookcallers(observer) or ()):
            raise PluginError(f"{found} observes nothing: it has no method marked with @hookimpl; tell its author")
        self._observers.append((name, manager, observer, context.log))

    def call(self, hook: str, **arguments: Any) -> None:
        """Call one hook of every observer; never raises (but for KeyboardInterrupt)."""
        for name, manager, _, log in self._observers:
            try:
                getattr(manager.hook, hook)(**arguments)
            except (Exception, SystemExit):
                times = self._failed[name, hook] = self._failed.get((name, hook), 0) + 1
                if times & (times - 1) == 0:  # the 1st, 2nd, 4th …: it may well fail for every message
                    log.exception("observer '%s' raised in %s (%d times)", name, hook, times)

    def tell(self, node: str, event: str, details: Mapping[str, Any]) -> None:
        """Call the hook ``dropr_<event>`` if there is one, else ``dropr_store_event``."""
        hook = f"dropr_{event}"
        if self._observers:
            if hook in _EVENTS:
                told = dict.fromkeys(inspect.signature(getattr(hookspecs, hook)).parameters)
                self.call(hook, **{**told, **details, "node": node})
            else:
                self.call("dropr_store_event", node=node, event=event, details=types.MappingProxyType(dict(details)))

    def close(self) -> None:
        """Close the observers that have a ``close``; safe twice."""
        observers, self._observers = self._observers, []
        for name, _, observer, log in observers:
            close = getattr(observer, "close", None)
            if observer is not None and not isinstance(observer, types.ModuleType) and callable(close):
                try:
                    close()
                except Exception:
                    log.exception("observer '%s' raised in close", name)


_MAKERS = frozenset([*(f"dropr_{kind}" for kind in KINDS), "dropr_keypair", "dropr_asgi"])
_EVENTS = frozenset(name for name in vars(hookspecs) if name.startswith("dropr_")) - _MAKERS - {"dropr_store_event"}
