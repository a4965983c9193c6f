"""The observers of a node: told what happens, each call under a guard.

Owns the guard: an observer that raises is logged, ever more rarely, and disturbs nobody. Must not know what any
observer does, nor who tells them.
"""

import inspect
import logging
import types
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pluggy

from dropr_core import hookspecs
from dropr_core.config.options import NOWHERE, SourceLocation
from dropr_core.contracts.context import Context
from dropr_core.errors import PluginError, UsageError
from dropr_core.model.facts import MAX_PROPAGATED, PROPAGATED, MessageFacts
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

    @property
    def propagating(self) -> bool:
        """Whether any of them adds headers to what is sent."""
        return self._have("dropr_message_headers")

    @property
    def embracing(self) -> bool:
        """Whether any of them wants to be around the calls of handlers."""
        return self._have("dropr_message_handling")

    def _have(self, hook: str) -> bool:
        return any(getattr(manager.hook, hook).get_hookimpls() for _, manager, _, _ in self._observers)

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

    def call(self, hook: str, **arguments: Any) -> list[Any]:
        """Call one hook of every observer; never raises (but for KeyboardInterrupt). What they returned, as far as it
        is not None.
        """
        answers: list[Any] = []
        for name, manager, _, log in self._observers:
            try:
                answers += getattr(manager.hook, hook)(**arguments)
            except (Exception, SystemExit) as error:
                self._note(name, hook, log, error)
        return answers

    def _note(self, name: str, hook: str, log: logging.Logger, error: BaseException) -> None:
        times = self._failed[name, hook] = self._failed.get((name, hook), 0) + 1
        if times & (times - 1) == 0:  # the 1st, 2nd, 4th …: it may well fail for every message
            log.error("observer '%s' raised in %s (%d times)", name, hook, times, exc_info=error)

    def headers(self, node: str, channel: str) -> dict[str, str]:
        """What goes along with a message that is being sent (`dropr_message_headers`); never raises."""
        found: dict[str, str] = {}
        for name, manager, _, log in self._observers:
            try:
                for answer in manager.hook.dropr_message_headers(node=node, channel=channel):
                    found.update(_propagated(answer))
            except (Exception, SystemExit) as error:
                self._note(name, "dropr_message_headers", log, error)
        return found

    def handling(self, node: str, facts: MessageFacts, attempt: int) -> "Handling":
        """To be entered around a handler's call (`dropr_message_handling`); neither it nor what is in it raises."""
        parts: list[Part] = []
        for name, manager, _, log in self._observers:
            note = partial(self._note, name, "dropr_message_handling", log)
            try:
                entered = manager.hook.dropr_message_handling(node=node, facts=facts, attempt=attempt)
                parts += [(one, note) for one in entered]
            except (Exception, SystemExit) as error:
                note(error)
        return Handling(parts)

    def tell(self, node: str, event: str, details: Mapping[str, Any]) -> None:
        """Call the hook ``dropr_<event>`` if there is one, else ``dropr_store_event``."""
        hook = f"dropr_{event}"
        if self._observers:
            if hook in _EVENTS:
                self.call(hook, **{**_EVENTS[hook], **details, "node": node})
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


Part = tuple[AbstractContextManager[object], Callable[[BaseException], None]]


class Handling:
    """The context managers of observers around one call of a handler, each under a guard."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts
        self._entered: list[Part] = []

    def __enter__(self) -> None:
        for one, note in self._parts:
            try:
                one.__enter__()
            except (Exception, SystemExit) as error:
                note(error)
            else:
                self._entered.append((one, note))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        while self._entered:
            one, note = self._entered.pop()
            try:
                one.__exit__(kind, error, trace)  # what it answers is not asked for: nothing is swallowed
            except BaseException as own:  # it may raise anew what it was given
                if own is not error:
                    note(own)


def _propagated(answer: Mapping[str, str]) -> dict[str, str]:
    """The headers that an observer wants to add. Raises UsageError for what it may not."""
    wrong = [name for name, value in answer.items() if name not in PROPAGATED or not isinstance(value, str)]
    if wrong:
        raise UsageError(f"headers {wrong} cannot be added to a message, only {sorted(PROPAGATED)}, each a text")
    if sum(len(name) + len(value) for name, value in answer.items()) > MAX_PROPAGATED:
        raise UsageError(f"headers of more than {MAX_PROPAGATED} characters cannot be added to a message")
    return dict(answer)


_MAKERS = frozenset([*(f"dropr_{kind}" for kind in KINDS), "dropr_keypair", "dropr_asgi"])
_OTHERS = {"dropr_store_event", "dropr_message_headers", "dropr_message_handling"}
_EVENTS: Mapping[str, Mapping[str, None]] = types.MappingProxyType(
    {
        name: dict.fromkeys(inspect.signature(hook).parameters)
        for name, hook in vars(hookspecs).items()
        if name.startswith("dropr_") and name not in _MAKERS | _OTHERS
    }
)
"""Hook of an event → its arguments, each None while nobody says more; read once, for each message is told."""
