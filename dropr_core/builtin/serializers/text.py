"""The serializer ``text``: UTF-8. Must not know what the text means."""

from typing import Any

from dropr_core.contracts.serializer import Serializer
from dropr_core.errors import ProtocolError, UsageError
from dropr_core.hookspecs import hookimpl


class Text(Serializer):
    """Text in, the same text out."""

    content_type = "text/plain; charset=utf-8"

    def dumps(self, value: Any) -> bytes:
        """UTF-8 of a text; raises UsageError for anything else, and for half a surrogate pair."""
        if not isinstance(value, str):
            raise UsageError(f"cannot send a {type(value).__name__} as text; use str(), or serializer: json")
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"the text has no UTF-8 form: {error.reason} at position {error.start}") from None

    def loads(self, data: bytes) -> str:
        """The text; raises ProtocolError for bytes that are not UTF-8."""
        try:
            return bytes(data).decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"the body is not UTF-8 text: {error.reason} at byte {error.start}") from None


@hookimpl
def dropr_serializer() -> Serializer:
    """The serializer ``text``."""
    return Text()
