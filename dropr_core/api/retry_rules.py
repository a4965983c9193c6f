"""Which rule of a channel holds for an exception.

Owns the comparison: by name, subclasses too, the nearest class first. Imports nothing: an exception that was raised has
its module loaded, and a name whose module is not loaded can be nobody's. Must not know what a rule does.
"""

import builtins
import sys
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def rule_for(rules: Mapping[str, T], error: BaseException) -> T | None:
    """The rule whose class is the nearest one to that of the exception; None: no rule names it or a parent of it."""
    classes = type(error).__mro__
    nearest, rule = len(classes), None
    for name, one in rules.items():
        named = _class_of(name)
        if named in classes and (at := classes.index(named)) < nearest:
            nearest, rule = at, one
    return rule


def _class_of(name: str) -> type | None:
    module, _, last = name.rpartition(".")
    if not module:
        found = getattr(builtins, last, None)
        return found if isinstance(found, type) else None
    attributes = [last]
    while module:
        if (loaded := sys.modules.get(module)) is not None:
            found = loaded
            for attribute in attributes:
                found = getattr(found, attribute, None)
            return found if isinstance(found, type) else None
        module, _, last = module.rpartition(".")
        attributes.insert(0, last)
    return None


__all__ = ["rule_for"]
