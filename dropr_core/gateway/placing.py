"""Parcels of dialects as messages: where they go, and in what form.

Owns the composing: limits, route, id, envelope, a large body written to its file. What `send` and `put` of the public
API do for values, without serializers: bytes stay as they are. Must not know connections, threads or leases.
"""

import io
from typing import BinaryIO, NamedTuple

from dropr_core.api.composer import fingerprint
from dropr_core.api.runtime import Runtime
from dropr_core.bodies.store import Written
from dropr_core.contracts.gateway import Parcel
from dropr_core.contracts.storage import Job, NewMessage
from dropr_core.errors import TooBig, UsageError
from dropr_core.gateway.uploads import SpooledUpload
from dropr_core.model import envelope
from dropr_core.model.message import Message, check_message
from dropr_core.model.names import (
    DEFAULT_PRIORITY,
    IdMaker,
    MessageId,
    check_channel,
    check_rank,
    id_of_key,
    lane_priority,
    priority_of_rank,
)

MAX_OUTSIDE = 1 << 62
"""Numbers from here on name messages of the outbox; those of an inbox stay far below."""


class Local(NamedTuple):
    """A message for this node's own inbox."""

    channel: str
    priority: int
    job: Job
    unique: bool
    """Whether it may be here already."""
    written: Written | None


class Outgoing(NamedTuple):
    """A message for peers."""

    message: NewMessage
    written: Written | None


class Placer:
    """Composes for one node."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, config = runtime, runtime.config
        self._node, self._channels = config.node, config.channels
        self._make_id = IdMaker(runtime.clock.wall)
        self._max_body, self._inline = config.limits.max_body, config.limits.inline_body
        self._routes = {name: self._peers(channel.to) for name, channel in config.channels.items()}

    def _peers(self, targets: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(peer for target in targets for peer in self._runtime.config.resolve(target)))

    def _answering(self, node: str) -> tuple[str, ...]:
        return () if node == self._node else self._peers((node,))

    def is_large(self, parcel: Parcel) -> bool:
        """Whether composing writes a file: then it belongs into a thread."""
        return parcel.large is not None or len(parcel.body) > self._inline

    def compose(self, parcel: Parcel) -> Local | Outgoing:
        """Raises UsageError (BadName, TooBig, UnknownPeer); with a large body QueueFull and WriteFailed."""
        name, (source, size) = parcel.channel, _source(parcel)
        channel = self._channels.get(name)
        if channel is None:
            check_channel(name)
        if self._max_body is not None and size > self._max_body:
            raise TooBig(f"a body of {size} bytes: the limit is {self._max_body} (limits.max_body)")
        delay, life = parcel.delay, parcel.expires_in
        if channel is not None:
            delay = channel.delay if delay is None else delay
            life = channel.expires_in if life is None else life
        if life is not None and (delay or 0.0) >= life:
            raise UsageError(f"it expires after {life:g} s, before its delay of {delay:g} s ends: nobody would get it")
        peers = self._routes.get(name, ()) if parcel.to is None else self._answering(parcel.to)
        receipt = parcel.receipt or (channel is not None and channel.receipt and bool(peers))
        priority = DEFAULT_PRIORITY if channel is None else channel.priority
        message = Message(
            id=self._identity(parcel),
            sender=self._node,
            channel=name,
            priority=priority if parcel.rank is None else priority_of_rank(check_rank(parcel.rank)),
            content_type=parcel.content_type,
            headers=dict(parcel.headers),
            key=parcel.key,
            receipt=receipt,
            created_at=self._runtime.clock.wall(),
            delay=delay or None,
            expires_in=life,
            rank=parcel.rank,
        )
        check_message(message)
        written = self._write(message, source, size, local=not peers) if size > self._inline else None
        body = source.read() if written is None else b""
        data = envelope.encode(message, body if written is None else written.reference)
        return self._outgoing(message, body, data, peers, parcel, written) if peers else Local(
            name, message.priority,
            Job(message.message_id, data, 0, parcel.key, receipt, message.delay, life, rank=parcel.rank),
            parcel.dedup is not None, written,
        )  # fmt: skip

    def _identity(self, parcel: Parcel) -> MessageId:
        if parcel.dedup is None:
            return self._make_id()
        if not parcel.dedup:
            raise UsageError("dedup: an empty text would make all such messages the same one")
        return id_of_key(self._node, parcel.channel, parcel.dedup)

    def _write(self, message: Message, source: BinaryIO, size: int, *, local: bool) -> Written:
        return self._runtime.bodies.write(message.message_id, source, size=size, inbox_of=self._node if local else None)

    def _outgoing(
        self, message: Message, body: bytes, data: bytes, peers: tuple[str, ...], parcel: Parcel,
        written: Written | None,
    ) -> Outgoing:  # fmt: skip
        mark = None
        if parcel.dedup is not None:
            mark = fingerprint(message, body if written is None else written.reference.digest, peers)
        new = NewMessage(
            message.message_id, message.channel, lane_priority(message.priority, large=written is not None), peers,
            data, message.receipt, message.expires_in, bool(message.delay), mark,
        )  # fmt: skip
        return Outgoing(new, written)


def _source(parcel: Parcel) -> tuple[BinaryIO, int]:
    """The body of a parcel from its beginning, and its size."""
    if isinstance(parcel.large, SpooledUpload):
        parcel.large.file.seek(0)
        return parcel.large.file, parcel.large.size
    return io.BytesIO(parcel.body), len(parcel.body)


def outgoing_number(message_id: bytes) -> int:
    """The job number of a message of the outbox."""
    return MAX_OUTSIDE | int.from_bytes(message_id[-8:], "big") & (MAX_OUTSIDE - 1)
