"""What would fail when the processes of a node start, found without starting them.

Owns the walk over every plugin that a configuration names: is it installed, does it take its options, can a handler's
function be imported and a command's program be found, does a transport take its URLs. Opens no store and no connection;
a user's handler is imported, as the worker would.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias
from urllib.parse import urlsplit

from dropr_core.config.node import NodeConfig
from dropr_core.contracts.context import Context
from dropr_core.errors import ConfigError, DroprError
from dropr_core.plugin.host import make_context
from dropr_core.plugin.observers import Observers
from dropr_core.plugin.registry import create, find, read_options, transport_for
from dropr_core.plugin.types import load_type
from dropr_core.system.clock import read_clock

Further: TypeAlias = Callable[[NodeConfig, Context], Iterable[str]]
"""Problems that a room above this one finds."""


def rehearse(config: NodeConfig, *further: Further) -> list[str]:
    """Every problem, each with its place in the file."""
    log = logging.getLogger("dropr.check")
    context = make_context(config, read_clock(config.data), log, Observers(), read_only=True)
    found = list(_problems(config, context))
    for more in further:
        found += more(config, context)
    return list(dict.fromkeys(found))


def _problems(config: NodeConfig, context: Context) -> Iterator[str]:
    yield from _only_options(config, "storage", config.storage.use, config.storage.options, "storage")
    for index, observer in enumerate(config.observers):
        yield from _only_options(config, "observer", observer.use, observer.options, f"observers.{index}")
    for name, channel in config.channels.items():
        for kind, component in (("serializer", channel.serializer), ("handler", channel.handler)):
            if component is not None:
                place = f"channels.{name}.{kind}"
                yield from _made(config, kind, component.use, component.options, place, context)
        if channel.type is not None:
            try:
                load_type(channel.type, f"channels.{name}.type")
            except DroprError as error:
                yield str(error)
    yield from _urls(config, context)


def _only_options(config: NodeConfig, kind: str, name: str, options: object, place: str) -> Iterator[str]:
    """Of what opens something when it is made, only that it is there and takes its options."""
    try:
        read_options(find(kind, name), options, place, config.where)
    except DroprError as error:
        yield from _said(place, error)


def _made(config: NodeConfig, kind: str, name: str, options: object, place: str, context: Context) -> Iterator[str]:
    """Of what opens nothing, that it can be made."""
    try:
        made = create(kind, name, options, context, place, config.where)
    except DroprError as error:
        yield from _said(place, error)
        return
    close = getattr(made, "close", None)
    if close is not None:
        close()


def _urls(config: NodeConfig, context: Context) -> Iterator[str]:
    urls = [(f"peers.{name}.url", peer.url, False) for name, peer in config.peers.items() if peer.url]
    urls += [(f"listen.{index}", url, True) for index, url in enumerate(config.listen)]
    for place, url, listen in urls:
        try:
            name = transport_for(urlsplit(url).scheme, tuple(config.transports))
            options = config.transports.get(name, {})
            transport = create("transport", name, options, context, f"transports.{name}", config.where)
        except DroprError as error:
            yield from _said(place, error)
            continue
        try:
            problem = transport.check(url, listen=listen)
        finally:
            transport.close()
        if problem:
            yield f"{place}: {problem}"


def _said(place: str, error: DroprError) -> list[str]:
    """The texts of an error; one about options knows its place in the file already."""
    return list(error.problems) if isinstance(error, ConfigError) else [f"{place}: {error}"]
