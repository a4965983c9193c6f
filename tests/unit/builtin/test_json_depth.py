"""What JSON cannot carry to the other side is refused where it is sent."""

from dataclasses import dataclass
from typing import Any

import attrs
import msgspec
import pytest

from dropr_core.builtin.serializers.json import MAX_DEPTH, Json
from dropr_core.errors import ProtocolError, UsageError


@dataclass
class Data:
    """A dataclass that holds something."""

    inner: Any


@attrs.frozen
class Attrs:
    """The same of attrs."""

    inner: Any


class Struct(msgspec.Struct):
    """The same of the codec."""

    inner: Any


def nested(wrap, depth):
    """A value within so many others."""
    value: Any = [1]
    for _ in range(depth - 1):
        value = wrap(value)
    return value


WRAPS = [lambda value: [value], lambda value: {"a": value}, lambda value: (value,), Data, Attrs, Struct]


@pytest.mark.parametrize("wrap", WRAPS, ids=["list", "dict", "tuple", "dataclass", "attrs", "struct"])
def test_a_value_that_the_receiver_would_refuse_is_refused_here(wrap):
    """The limit of depth is the same on both sides, whatever the levels are made of."""
    one = Json()
    data = one.dumps(nested(wrap, MAX_DEPTH))
    assert one.loads(data)
    for depth in (MAX_DEPTH + 1, 5000):
        with pytest.raises(UsageError, match=r"nested|contains itself"):
            one.dumps(nested(wrap, depth))


def test_deep_bytes_are_refused_when_they_are_read():
    """Who sends them without this serializer is answered in words as well."""
    for depth in (MAX_DEPTH + 1, 5000, 100_000):
        with pytest.raises(ProtocolError, match="nested"):
            Json().loads(b"[" * depth + b"]" * depth)
