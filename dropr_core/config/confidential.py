"""Which values of a mapping are secret, as the class that reads it declares them.

Owns the walk over a declaration beside the values of a file. Must not know plugins, nor read files.
"""

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

import attrs

from dropr_core.config.options import fields_of
from dropr_core.config.yamlfile import Steps


def find_secrets(cls: type, value: object, steps: Steps) -> Iterator[tuple[Steps, str]]:
    """Place and text of each secret in ``value``, which stands at ``steps`` and is read as ``cls``.

    What does not fit the declaration is passed over: whoever reads it says so.
    """
    if not isinstance(value, Mapping):
        return
    for word, (_, kind, note) in fields_of(cls).items():
        below = (*steps, word)
        if note.secret:
            yield from texts_of(value.get(word), below)
        elif not note.own:
            yield from _inside(kind, value.get(word), below)


def _inside(kind: Any, value: object, steps: Steps) -> Iterator[tuple[Steps, str]]:
    """Options within options, in lists and in mappings."""
    if get_origin(kind) in (Union, UnionType):
        for one in get_args(kind):
            yield from _inside(one, value, steps)
    elif attrs.has(kind):
        yield from find_secrets(kind, value, steps)
    elif get_origin(kind) is not None:
        for one in get_args(kind):
            for step, item in _items(value):
                yield from _inside(one, item, (*steps, step))


def texts_of(value: object, steps: Steps) -> Iterator[tuple[Steps, str]]:
    """Place and text of everything in ``value``, at every depth."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):  # a password in digits lacks its quotes
        yield steps, str(value)
    for step, item in _items(value):
        yield from texts_of(item, (*steps, step))


def _items(value: object) -> Iterator[tuple[Any, object]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list | tuple):
        yield from enumerate(value)
