"""The types that channels name in the configuration, imported from the user's code.

Owns the way from ``package.module:Class`` to a `ValueType`. Must not know who holds values against it.
"""

from dropr_core.config.targets import load_target, search
from dropr_core.contracts.value_type import ValueType


def load_type(target: str, who: str) -> ValueType:
    """The type of that name; ``who`` wants it. Raises PluginError."""
    search(None)
    return ValueType(load_target(target, who, "type"), who)
