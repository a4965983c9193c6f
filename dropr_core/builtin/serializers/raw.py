"""The serializer ``bytes``: bytes as they are. Must not know what they mean."""

from typing import Any

from dropr_core.contracts.serializer import Serializer
from dropr_core.errors import UsageError
from dropr_core.hookspecs import hookimpl


class Raw(Serializer):
    """Bytes in, the same bytes out."""

    content_type = "application/octet-stream"

    def dumps(self, value: Any) -> bytes:
        """The bytes of a bytes-like value; raises UsageError for anything else."""
        if isinstance(value, bytes):
            return value
        if isinstance(value, bytearray | memoryview):
            return bytes(value)
        raise UsageError(f"cannot send a {type(value).__name__} as bytes; encode it, or use serializer: json or text")

    def loads(self, data: bytes) -> bytes:
        """The bytes."""
        return bytes(data)


@hookimpl
def dropr_serializer() -> Serializer:
    """The serializer ``bytes``."""
    return Raw()
