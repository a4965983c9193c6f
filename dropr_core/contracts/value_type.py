"""A type that values must have: on a channel (`channels: {orders: {type: …}}`), or as the argument of a handler.

Owns how a value is held against a type and made one of it, for each library that a user's types may come from, and the
words in which a mistake names its field. Must not know channels, messages or serializers.

| the type is | checked and made by |
|---|---|
| a dataclass, an attrs class, a msgspec Struct, a TypedDict, `list[int]` and the like | msgspec |
| a model or dataclass of pydantic | pydantic, which is installed then |
"""

import re
from typing import Any

import attrs
import msgspec

from dropr_core.errors import PluginError, ProtocolError, UsageError
from dropr_core.model.limits import clip
from dropr_core.system.loading import unforked

_PLACE = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)


class _Wrong(Exception):
    """A value does not fit; the text names the field. Never leaves this file."""


class ValueType:
    """One type."""

    def __init__(self, kind: Any, who: str) -> None:
        """``who`` names it in mistakes. Raises PluginError for what is no type that values can be held against."""
        self.name = getattr(kind, "__qualname__", None) or str(kind)
        self._kind = kind
        self._pydantic: Any = None
        try:
            if hasattr(kind, "__pydantic_validator__") or hasattr(kind, "__pydantic_complete__"):
                with unforked:
                    from pydantic import TypeAdapter

                self._pydantic = TypeAdapter(kind)
                return
            info = msgspec.inspect.type_info(kind)
        except Exception as error:  # names in annotations that mean nothing, and whatever else the user's class does
            raise PluginError(f"{who}: {self.name} cannot be used as a type: {type(error).__name__}: {error}") from None
        if isinstance(info, msgspec.inspect.CustomType):
            raise PluginError(
                f"{who}: {self.name} is no type that a value can be held against; use a dataclass, an attrs class, a "
                "msgspec Struct, a pydantic model, or a type such as list[int]"
            )

    def plain(self, value: Any) -> Any:
        """What a serializer takes, of a value of this type or of one that can become one (a mapping, say).

        Raises UsageError naming the field that is wrong.
        """
        try:
            return self._to_plain(self._made(self._to_plain(value)))
        except _Wrong as error:
            raise UsageError(f"this is no {self.name}: {error}") from None

    def make(self, plain: Any) -> Any:
        """The typed value of what a serializer gave. Raises ProtocolError naming the field that is wrong."""
        try:
            return self._made(plain)
        except _Wrong as error:
            raise ProtocolError(f"this is no {self.name}: {error}") from None

    def _to_plain(self, value: Any) -> Any:
        try:
            if self._pydantic is not None and hasattr(value, "__pydantic_serializer__"):
                return value.__pydantic_serializer__.to_python(value, mode="json")
            return msgspec.to_builtins(value)
        except RecursionError:
            raise _Wrong("it contains itself, or is nested too deeply") from None
        except Exception as error:
            raise _Wrong(f"{type(error).__name__}: {clip(str(error))}") from None

    def _made(self, plain: Any) -> Any:
        if self._pydantic is not None:
            return self._by_pydantic(plain)
        try:
            made = msgspec.convert(plain, self._kind)
            # msgspec fills attrs classes without their __init__: their converters run only in it.
            return attrs.evolve(made) if _converts(self._kind) else made
        except msgspec.ValidationError as error:
            raise _Wrong(_named(str(error))) from None
        except RecursionError:
            raise _Wrong("it is nested too deeply") from None
        except Exception as error:  # validators and converters are the user's
            raise _Wrong(f"{type(error).__name__}: {clip(str(error))}") from None

    def _by_pydantic(self, plain: Any) -> Any:
        with unforked:
            from pydantic import ValidationError

        try:
            return self._pydantic.validate_python(plain)
        except ValidationError as error:
            wrong = [
                f"{'.'.join(map(str, one['loc']))}: {one['msg']}" if one["loc"] else one["msg"]
                for one in error.errors(include_url=False, include_context=False, include_input=False)[:5]
            ]
            raise _Wrong("; ".join(wrong)) from None
        except Exception as error:
            raise _Wrong(f"{type(error).__name__}: {clip(str(error))}") from None


def _converts(kind: Any) -> bool:
    return isinstance(kind, type) and attrs.has(kind) and any(field.converter for field in attrs.fields(kind))


def _named(text: str) -> str:
    """The field first: ``lines[0].sku: expected `int`, got `str` ``."""
    found = _PLACE.fullmatch(text)
    if found is None or not found[2]:
        return text[:1].lower() + text[1:]
    return f"{found[2]}: {found[1][:1].lower()}{found[1][1:]}"
