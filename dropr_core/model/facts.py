"""What is told of a message to those who only watch: who it is and where it goes, never what is in it.

Owns `MessageFacts`, and the way to them from envelopes, read only when somebody looks. Must not know who watches.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from dropr_core.errors import BadEnvelope
from dropr_core.model.envelope import header_of
from dropr_core.model.names import MessageId

PROPAGATED = frozenset({"traceparent", "tracestate", "baggage"})
"""Headers that who watches may add to a message while it is sent: those of W3C Trace Context and Baggage."""
MAX_PROPAGATED = 4096
"""Characters of them together, names included."""


class MessageFacts(NamedTuple):
    """One message, as observers see it."""

    id: MessageId
    sender: str
    """The node that sent it."""
    channel: str
    headers: Mapping[str, str]
    created_at: float
    """Seconds since the epoch, by the clock of its sender."""
    size: int
    """Bytes of its envelope; a large body is not in it."""


def facts_of(envelope: bytes) -> MessageFacts:
    """Of an envelope whose bytes are trusted already. Raises BadEnvelope."""
    message = header_of(envelope)
    return MessageFacts(
        MessageId(message.id), message.sender, message.channel, message.headers, message.created_at, len(envelope)
    )


class FactsOf:
    """Those of many envelopes, made when they are looked at; may be looked at again. One that cannot be read is left
    out.
    """

    def __init__(self, envelopes: Sequence[bytes]) -> None:
        self._envelopes = envelopes

    def __iter__(self) -> Iterator[MessageFacts]:
        for envelope in self._envelopes:
            try:
                yield facts_of(envelope)
            except BadEnvelope:
                continue
