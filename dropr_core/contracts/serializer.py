"""The contract of a serializer: objects to bytes and back. Must not know messages or stores."""

from abc import ABC, abstractmethod
from typing import Any


class Serializer(ABC):
    """Turns one value into a body and back. Stateless, safe from many threads."""

    content_type: str
    """Goes with each message, so that the receiver knows how to read it."""

    @abstractmethod
    def dumps(self, value: Any) -> bytes:
        """The bytes of a value; raises UsageError for one it cannot carry."""

    @abstractmethod
    def loads(self, data: bytes) -> Any:
        """The value; raises ProtocolError for bytes that are not its own. Never runs code from them."""
