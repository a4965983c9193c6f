"""Functions that handle messages: marked with ``@on("channel")``, and called with what their argument is annotated as.

Owns the mark, finding marked functions in a module, and the call: with the `Work`, or with the value as the type that
the function names. Must not know leases or stores.
"""

import contextlib
import inspect
import typing
from collections.abc import Callable, Mapping
from functools import update_wrapper
from types import ModuleType
from typing import Any, TypeVar

from dropr_core.config.targets import load_module
from dropr_core.contracts.handler import Work
from dropr_core.contracts.value_type import ValueType
from dropr_core.errors import ConfigError, PluginError
from dropr_core.model.names import check_channel

F = TypeVar("F", bound=Callable[..., Any])
MARK = "__dropr_channels__"


def on(*channels: str) -> Callable[[F], F]:
    """Mark a function as the handler of these channels. Nothing is registered by that: a node, or `dropr worker`, is
    told the module (`node.handlers("shop.tasks")`, or ``handlers: shop.tasks`` in the YAML). Raises BadName.
    """
    names = tuple(check_channel(channel) for channel in channels)
    if not names or callable(channels[0]):
        raise PluginError('name the channel: @on("orders")')

    def mark(function: F) -> F:
        setattr(function, MARK, (*getattr(function, MARK, ()), *names))
        return function

    return mark


def find_marked(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """Channel → the function of a module that is marked for it. Raises PluginError for two of one channel."""
    found: dict[str, Callable[..., Any]] = {}
    for value in list(vars(module).values()):
        channels = getattr(value, MARK, ()) if callable(value) and not isinstance(value, type) else ()
        for channel in channels:
            other = found.setdefault(channel, value)
            if other is not value:
                raise PluginError(
                    f"{module.__name__}: {_name(other)} and {_name(value)} are both marked for channel {channel}; "
                    "keep one of the marks"
                )
    return found


def load_marked(modules: typing.Iterable[str]) -> Mapping[str, Callable[..., Any]]:
    """Channel → function, of all modules together. Raises PluginError, ConfigError if one has none or two have the same
    channel.
    """
    found: dict[str, Callable[..., Any]] = {}
    where: dict[str, str] = {}
    for name in modules:
        marked = find_marked(load_module(name, f"handlers {name}"))
        if not marked:
            raise ConfigError([f'handlers: no function in {name} is marked with @dropr_core.on("channel")'])
        for channel, function in marked.items():
            if channel in found and found[channel] is not function:
                both = f"{where[channel]} and {name}"
                raise ConfigError([f"handlers: {both} both have a function marked for channel {channel}; keep one"])
            found[channel], where[channel] = function, name
    return found


def takes_work(function: Callable[..., Any], who: str) -> Callable[[Work], Any]:
    """A function of the `Work` alone, of one that takes the work, or the value as a type, or the value and the work.

    What its first argument is annotated as decides: with nothing, `Work` or `Any` it gets the `Work`; with anything
    else the value, held against that type, and a message that does not fit is buried. Raises PluginError.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C do not tell
        return function
    taken = _taken(signature)
    annotations = _annotations(function)
    first = annotations.get(taken[0].name, taken[0].annotation) if taken else Any
    with_work = wants_both(function)
    if _is_work(first) or first in (inspect.Parameter.empty, Any, object):
        return function
    if isinstance(first, str):
        raise PluginError(
            f"{who}: what {_name(function)} takes is annotated as {first!r}, which means nothing where it is defined; "
            "import that name there (not under TYPE_CHECKING)"
        )
    kind = ValueType(first, who)

    def call(work: Work) -> Any:
        value = kind.make(work.value)
        return function(value, work) if with_work else function(value)

    async def call_async(work: Work) -> Any:
        return await call(work)

    return update_wrapper(call_async if is_async(function) else call, function, updated=())


def wants_both(function: Callable[..., Any]) -> bool:
    """Whether it takes the value, and the `Work` as its second argument."""
    try:
        taken = _taken(inspect.signature(function))
    except ValueError:
        return False
    if len(taken) < 2:
        return False
    return _is_work(_annotations(function).get(taken[1].name, taken[1].annotation))


def _taken(signature: inspect.Signature) -> list[inspect.Parameter]:
    kinds = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    return [one for one in signature.parameters.values() if one.kind in kinds]


def is_async(function: Callable[..., Any]) -> bool:
    """Whether each call of it has to be awaited; of an object that can be called, its method says so."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _annotations(function: Callable[..., Any]) -> Mapping[str, Any]:
    """As far as they mean something: a name that is only there for type checkers stays a text."""
    if not inspect.isroutine(function):
        function = getattr(function, "func", None) or type(function).__call__  # a partial, or an object
    with contextlib.suppress(Exception):
        return typing.get_type_hints(function, include_extras=True)
    return {}


def _is_work(annotation: Any) -> bool:
    return annotation is Work or (isinstance(annotation, str) and annotation.rpartition(".")[2] == "Work")


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or type(function).__qualname__
