"""What a channel says about single kinds of exceptions: `retry:`.

Owns how such rules are written, and what of them can be checked without importing anything. Which rule holds for an
exception is decided in api/retry_rules.py.
"""

import builtins
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs

from dropr_core.config.options import BAD, Reader, duration, option, suggest
from dropr_core.config.yamlfile import Steps

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@attrs.frozen(kw_only=True)
class RetryRule:
    """What becomes of a message whose handler raised one kind of exception."""

    bury: bool = option(default=False, doc="At once among the dead letters: trying again cannot help.")
    attempts: int | None = option(None, least=1, doc="How many leases it gets.", unset="the channel's")
    backoff_min: float | None = duration(None, doc="Rest after the first attempt; doubles.", unset="the channel's")
    backoff_max: float | None = duration(None, doc="The longest rest.", unset="the channel's")


def read_retry(reader: Reader, value: Any, steps: Steps) -> Any:
    """Name of an exception → RetryRule; ``bury`` alone is the rule with that."""
    if not isinstance(value, Mapping):
        return reader.mistake(steps, f"expected exceptions by name, found {reader.show(value, steps)}")
    made = dict[str, RetryRule]()
    for name, rule in value.items():
        below = (*steps, name)
        if problem := _what_is_wrong(name):
            reader.mistake(below, problem)
            continue
        if rule == "bury":
            made[name] = RetryRule(bury=True)
        elif not isinstance(rule, Mapping):
            shown = reader.show(rule, below)
            reader.mistake(
                below, f"expected bury, or a mapping such as {{attempts: 20, backoff_max: 1h}}, found {shown}"
            )
        elif (read := reader.read(RetryRule, rule, below)) is not None:
            made[name] = read
    return BAD if len(made) < len(value) else MappingProxyType(made)


def _what_is_wrong(name: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return "is no name of an exception; write it like ValueError or requests.ConnectionError"
    if "." not in name:
        known = [key for key, one in vars(builtins).items() if isinstance(one, type) and issubclass(one, Exception)]
        if name not in known:
            hint = suggest(name, known)
            return f"no exception of Python itself has this name{hint}; others are written with their module"
    return ""


RETRY_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": {
        "oneOf": [
            {"const": "bury"},
            {
                "type": "object",
                "properties": {
                    "bury": {"type": "boolean"}, "attempts": {"type": "integer", "minimum": 1},
                    "backoff_min": {"type": "string"}, "backoff_max": {"type": "string"},
                },
                "additionalProperties": False,
            },
        ]
    },
}  # fmt: skip

__all__ = ["RETRY_SCHEMA", "RetryRule", "read_retry"]
