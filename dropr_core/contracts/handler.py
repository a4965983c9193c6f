"""The contract of a handler: called with a message by the worker. Must not know leases or stores."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import attrs

from dropr_core.message import Message
from dropr_core.names import format_id


@attrs.frozen
class Work:
    """A message as a handler sees it."""

    message: Message
    body: bytes
    value: Any
    """The body through the channel's serializer."""
    attempt: int
    possible_duplicate: bool
    age: float
    """Seconds since it entered this node's queue."""

    @property
    def id(self) -> str:
        """The id as text."""
        return format_id(self.message.id)

    @property
    def headers(self) -> Mapping[str, str]:
        """The sender's headers."""
        return self.message.headers


class Handler(ABC):
    """Does the work for one message. Called from several threads if the worker has several."""

    @abstractmethod
    def handle(self, work: Work) -> Any:
        """Do it. The returned value (None, bytes, text or what JSON can carry) goes home with the receipt.

        Raise Retry to have it again later, Reject to bury it; any other exception is a failure
        and backs off.
        """

    def close(self) -> None:
        """Release everything; safe twice."""
