"""The serializer ``json``. Must not know what the values mean."""

import math
from collections.abc import Iterable
from typing import Any

import attrs
import msgspec

from dropr_core.contracts.serializer import Serializer
from dropr_core.errors import ProtocolError, UsageError
from dropr_core.hookspecs import hookimpl

MAX_DEPTH = 100
"""Lists within lists. Deeper values would break the recursion of whoever touches them later."""


class Json(Serializer):
    """What JSON can carry: text, numbers, true, false, null, lists, mappings.

    Dates, UUIDs, decimals, enums, tuples, sets, dataclasses and attrs classes can be sent too; they arrive
    as the text, list or mapping that stands for them.
    """

    content_type = "application/json"

    def dumps(self, value: Any) -> bytes:
        """UTF-8 JSON; raises UsageError for what JSON cannot carry, and for NaN and the infinities."""
        try:
            data = msgspec.json.encode(value)
        except RecursionError:
            raise UsageError("cannot send this as JSON: it contains itself, or is nested too deeply") from None
        except (TypeError, ValueError, OverflowError, AttributeError, msgspec.MsgspecError) as error:
            raise UsageError(f"cannot send this as JSON: {error}") from None
        # The codec writes NaN as null. Only a body with a null in it is worth a second look.
        if b"null" in data and _has_nan(value):
            raise UsageError("cannot send this as JSON: it has no NaN and no infinity; use None or a text instead")
        if _too_deep(data, value):
            raise UsageError(f"cannot send this as JSON: nested more than {MAX_DEPTH} deep")
        return data

    def loads(self, data: bytes) -> Any:
        """The value; raises ProtocolError for what is not JSON, or nested more than MAX_DEPTH deep."""
        try:
            value = msgspec.json.decode(data)
        except RecursionError:
            raise ProtocolError(f"the body is JSON nested more than {MAX_DEPTH} deep") from None
        except (msgspec.MsgspecError, ValueError) as error:
            raise ProtocolError(f"the body is not JSON: {error}") from None
        if _too_deep(data, value):
            raise ProtocolError(f"the body is JSON nested more than {MAX_DEPTH} deep")
        return value


def _too_deep(data: bytes, value: Any) -> bool:
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:  # the usual case, at the speed of memchr
        return False
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: Any) -> list[Any]:
    """What can hold something, directly within ``value``."""
    return [child for child in _within(value) if not isinstance(child, str | bytes | int | float | None)]


def _within(value: Any) -> Iterable[Any]:
    """Everything directly within ``value``, as the codec goes through it."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if attrs.has(type(value)) or isinstance(value, msgspec.Struct) or hasattr(value, "__dataclass_fields__"):
        names = getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", None)
        names = names or [field.name for field in attrs.fields(type(value))]
        return [getattr(value, name, None) for name in names]
    return ()


def _has_nan(value: Any) -> bool:
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, float):
            if not math.isfinite(one):
                return True
        else:
            rest.extend(_within(one))
    return False


@hookimpl
def dropr_serializer() -> Serializer:
    """The serializer ``json``."""
    return Json()
