"""Parcels of dialects as messages: where they go, and in what form.

Owns the composing: limits, route, id, envelope, a large body written to its file. What `send` and `put` of the public
API do for values, without serializers: bytes stay as they are. Must not know connections, threads or leases.
"""

import contextlib
import io
from collections.abc import Callable
from typing import BinaryIO, NamedTuple, TypeAlias

from dropr_core.api.runtime import Runtime
from dropr_core.api.send_rules import fingerprint
from dropr_core.contracts.bodies import Written
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


Form: TypeAlias = Callable[[bytes], "Local | Outgoing"]
"""Makes messages that differ in id, time and body only."""
FORMS, FORM_BYTES = 1000, 1024
"""Forms that are kept, and bytes of the header of one; what is in them comes from programs outside."""


class Placer:
    """Composes for one node."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, config = runtime, runtime.config
        self._node, self._channels = config.node, config.channels
        self._make_id = IdMaker(runtime.clock.wall)
        self._max_body, self._inline = config.limits.max_body, config.limits.inline_body
        self._routes = {name: self._peers(channel.to) for name, channel in config.channels.items()}
        self._forms: dict[tuple[object, ...], Form] = {}
        self._once: set[int] = set()
        """What was composed once: hashes. Headers that differ each time are worth no form."""

    def _peers(self, targets: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(peer for target in targets for peer in self._runtime.config.resolve(target)))

    def _answering(self, node: str) -> tuple[str, ...]:
        return () if node == self._node else self._peers((node,))

    def is_large(self, parcel: Parcel) -> bool:
        """Whether composing writes a file: then it belongs into a thread."""
        return parcel.large is not None or len(parcel.body) > self._inline

    def compose(self, parcel: Parcel) -> Local | Outgoing:
        """Raises UsageError (BadName, TooBig, UnknownPeer); with a large body QueueFull and WriteFailed."""
        if parcel.key is not None or parcel.dedup is not None or self.is_large(parcel):
            return self._compose(parcel)
        # What one connection puts is made alike as a rule.
        alike = (
            parcel.channel, parcel.rank, parcel.delay, parcel.expires_in, parcel.content_type, parcel.receipt,
            parcel.to, *parcel.headers.items(),
        )  # fmt: skip
        form = self._forms.get(alike)
        if form is None:
            return self._remember(alike, self._compose(parcel))
        if self._max_body is not None and len(parcel.body) > self._max_body:
            raise self._too_big(len(parcel.body))
        return form(parcel.body)

    def _remember(self, alike: tuple[object, ...], made: Local | Outgoing) -> Local | Outgoing:
        """Make a form of what is composed for the second time."""
        mark, data = hash(alike), _envelope(made)
        if mark not in self._once:
            if len(self._once) >= FORMS:
                self._once.clear()
            self._once.add(mark)
        elif len(data) - envelope.body_size(data) <= FORM_BYTES:
            if len(self._forms) >= FORMS:
                self._forms.clear()
            with contextlib.suppress(UsageError):
                self._forms[alike] = self._form(made)
        return made

    def _form(self, made: Local | Outgoing) -> Form:
        """What makes more messages like one that was composed and checked."""
        wall, make_id, new = self._runtime.clock.wall, self._make_id, tuple.__new__
        fill = envelope.EnvelopeTemplate(envelope.header_of(_envelope(made))).fill
        # The constructors of named tuples cost as much as all the rest.
        if isinstance(made, Local):
            way, rest = (made.channel, made.priority), tuple(made.job[2:])

            def local(body: bytes) -> Local:
                now = wall()
                identity = make_id(now)
                return new(Local, (*way, new(Job, (identity, fill(identity, now, body), *rest)), False, None))

            return local
        before, after = tuple(made.message[1:4]), tuple(made.message[5:])

        def outgoing(body: bytes) -> Outgoing:
            now = wall()
            identity = make_id(now)
            return new(Outgoing, (new(NewMessage, (identity, *before, fill(identity, now, body), *after)), None))

        return outgoing

    def _too_big(self, size: int) -> TooBig:
        return TooBig(f"a body of {size} bytes: the limit is {self._max_body} (limits.max_body)")

    def _compose(self, parcel: Parcel) -> Local | Outgoing:
        name, (source, size) = parcel.channel, _source(parcel)
        channel = self._channels.get(name)
        if channel is None:
            check_channel(name)
        if self._max_body is not None and size > self._max_body:
            raise self._too_big(size)
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


def _envelope(made: Local | Outgoing) -> bytes:
    return made.job.envelope if isinstance(made, Local) else made.message.envelope


def _source(parcel: Parcel) -> tuple[BinaryIO, int]:
    """The body of a parcel from its beginning, and its size."""
    if isinstance(parcel.large, SpooledUpload):
        parcel.large.file.seek(0)
        return parcel.large.file, parcel.large.size
    return io.BytesIO(parcel.body), len(parcel.body)


def outgoing_number(message_id: bytes) -> int:
    """The job number of a message of the outbox."""
    return MAX_OUTSIDE | int.from_bytes(message_id[-8:], "big") & (MAX_OUTSIDE - 1)
