"""Columns of bytes and of numbers as PostgreSQL's binary arrays.

Owns `ByteColumn` and `NumberColumn`: psycopg adapts each element of a list by itself, which for thousands of messages
costs more than all the rest of a call, and for one still a fifth of it. Must not know what they mean.
"""

from struct import Struct, pack
from typing import Any

from psycopg import Connection
from psycopg.adapt import Dumper
from psycopg.pq import Format

BYTEA, BYTEA_ARRAY = 17, 1001
INT8, INT8_ARRAY = 20, 1016
_HEAD, _NONE, _LENGTH = Struct("!iiIii"), Struct("!iiI"), Struct("!i")


class ByteColumn(list[bytes]):
    """A parameter of type ``bytea[]``, without NULLs."""


class ByteColumnDumper(Dumper):
    """Writes one down."""

    format = Format.BINARY
    oid = BYTEA_ARRAY

    def dump(self, obj: list[bytes]) -> bytes:
        """The whole array in one join."""
        if not obj:
            return _NONE.pack(0, 0, BYTEA)
        count, lengths = len(obj), list(map(len, obj))
        head = _HEAD.pack(1, 0, BYTEA, count, 1)
        if lengths.count(lengths[0]) == count:  # as ids are
            length = _LENGTH.pack(lengths[0])
            return head + length + length.join(obj)
        parts = [b""] * (2 * count)
        parts[0::2], parts[1::2] = map(_LENGTH.pack, lengths), obj
        return head + b"".join(parts)


class NumberColumn(list[int]):
    """A parameter of type ``bigint[]``, without NULLs."""


class NumberColumnDumper(Dumper):
    """Writes one down."""

    format = Format.BINARY
    oid = INT8_ARRAY

    def dump(self, obj: list[int]) -> bytes:
        """The whole array at once."""
        count = len(obj)
        if not count:
            return _NONE.pack(0, 0, INT8)
        numbers = [8] * (2 * count)
        numbers[1::2] = obj
        return _HEAD.pack(1, 0, INT8, count, 1) + pack("!" + "iq" * count, *numbers)


def adapt(connection: Connection[Any]) -> None:
    """Let a connection take such columns."""
    connection.adapters.register_dumper(NumberColumn, NumberColumnDumper)
    connection.adapters.register_dumper(ByteColumn, ByteColumnDumper)
