"""What keeps the large bodies of a node: written once, sent in pieces, taken in piece by piece, swept.

Owns the names of the contract. The one implementation of core keeps them as files of one machine (bodies/); a storage
that machines share keeps them where all of them can read (`Storage.bodies`). Must not know lanes, addresses or the
wire: whether a message still needs its body is asked of whoever knows.

Rules for every method:
* What is said to be durable is on stable storage when the method returns.
* Many threads, processes and machines use the same bodies at once; no body is ever in memory as a whole.
* Nothing that somebody is writing or that a message needs is swept. What a dead writer left goes.
* No room is `QueueFull`. `StoreCorrupt` means this body alone, for good. Every other `StoreError` passes.
"""

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import BinaryIO, Protocol

import attrs

from dropr_core.errors import StoreCorrupt, StoreError
from dropr_core.model.envelope import Reference
from dropr_core.model.names import MessageId

FORGOTTEN = 86400.0
"""Seconds after which what arrived for a message that never came is given up."""


class Readable(Protocol):
    """What a body is read from."""

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; none at the end."""
        ...


Progress = Callable[[int, int | None], None]
"""Called with the bytes done and, where it is known, of how many."""


class Written(ABC):
    """A body on stable storage whose message is not stored yet. Until `release` no sweep takes it."""

    reference: Reference

    @abstractmethod
    def discard(self) -> None:
        """The message was not stored: remove the body. Raises nothing."""

    @abstractmethod
    def release(self) -> None:
        """The message is stored; safe twice. Raises StoreError if the body was lost meanwhile, because the line to
        a store on another machine broke: then the message has no body, and whoever sends must be told.
        """


class Tail(ABC):
    """A piece of a body that is being sent (`contracts.transport.Tail`)."""

    size: int

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes of the piece; raises OSError."""


class Load(ABC):
    """A body that is being sent. Safe to read from many threads; close it when nobody reads any more."""

    reference: Reference
    failure: OSError | StoreError | None = None
    """Why a piece could not be read."""

    @abstractmethod
    def leaves(self, offset: int, size: int) -> bytes:
        """The digests of the leaves of a piece, as they were when the body was written. Raises OSError, StoreError."""

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes:
        """Exactly so many bytes of the body. Raises OSError, StoreError."""

    @abstractmethod
    def piece(self, offset: int, size: int) -> Tail:
        """A piece as the tail of a request."""

    def passed(self, offset: int, size: int) -> None:
        """Its reader will not want these bytes again, unless something breaks: memory need not be kept for them. A hint
        that may be ignored. Raises nothing.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of it, at once or when the last reader has ended; safe twice."""


class Arrival(ABC):
    """One body on its way in. Its pieces may come to several processes and machines in turn."""

    @abstractmethod
    def have(self) -> int:
        """How many bytes are here, without a gap; all of them only if they are complete and durable.

        Raises StoreError (StoreBusy: another process of this machine takes it in).
        """

    @abstractmethod
    def write(self, offset: int, data: bytes | memoryview, leaves: bytes | None = None) -> int:
        """Take a piece; how many bytes are here now. The last one makes the body complete and durable.

        ``offset``: of a leaf. ``leaves``: the digests of the piece's leaves, if they are known. Raises BadBody if
        all of it has another digest (it begins anew then), StoreError.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of it; what is there stays. Safe twice."""


class Arrivals(ABC):
    """The bodies on their way in to one process. Safe from many threads."""

    @abstractmethod
    def of(self, peer: str, identity: MessageId, reference: Reference) -> Arrival:
        """The body of a message that ``peer`` sends or will send. Raises QueueFull if there is no room."""

    @abstractmethod
    def close(self) -> None:
        """Let go of all; safe twice."""


@attrs.frozen
class Leftovers:
    """Bodies in one place that no message refers to."""

    place: str
    unfinished: int
    orphans: int
    size: int
    """Bytes of the orphans."""
    moved: int = 0
    aside: str = ""
    """Where they were moved to."""


class Bodies(ABC):
    """All large bodies of one node. Safe from many threads and processes."""

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def write(
        self, identity: MessageId, source: Readable, *, limit: int | None = None, progress: Progress | None = None,
        size: int | None = None, inbox_of: str | None = None,
    ) -> Written:  # fmt: skip
        """Copy ``source`` to its end, hashing on the way; durable on return.

        ``inbox_of``: it is for this node's own inbox, under this name. Raises TooBig, QueueFull,
        WriteFailed; nothing is left behind then.
        """

    @abstractmethod
    def open_sent(self, identity: MessageId, reference: Reference) -> BinaryIO:
        """The body of a message of the outbox, to be read and sought in; read from its beginning to its end it is
        compared with its digest. Raises StoreCorrupt if it is gone, or at its end if it is damaged.
        """

    @abstractmethod
    def load(self, identity: MessageId, reference: Reference) -> Load:
        """The body of a message of the outbox, to be sent in pieces; raises StoreCorrupt if it is gone."""

    # ── receiving ────────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def arrivals(self) -> Arrivals:
        """What takes bodies in; closed by the caller."""

    @abstractmethod
    def has(self, peer: str, identity: MessageId, reference: Reference) -> bool:
        """Whether the body of a message from ``peer`` is here, complete."""

    @abstractmethod
    def accepted(self, peer: str, identity: MessageId, reference: Reference) -> None:
        """Its message is in the inbox: from now on the body goes when the message goes. Raises nothing: the sweep
        makes up for it.
        """

    @abstractmethod
    def open_received(self, peer: str, identity: MessageId, reference: Reference) -> BinaryIO:
        """As `open_sent`, the body of a message of the inbox."""

    @abstractmethod
    def drop_received(self, peer: str, identity: MessageId, reference: Reference) -> None:
        """The message was settled: its body is not needed any more. Raises nothing: the sweep makes up for it."""

    # ── care ─────────────────────────────────────────────────────────────────────────────────────

    @abstractmethod
    def sweep(self, is_sent: Callable[[MessageId], bool], is_come: Callable[[MessageId], bool], wall: float) -> int:
        """Remove what no message needs: bodies of ended messages, and what a dead process left behind.

        ``is_sent``, ``is_come``: whether outbox and inbox keep the envelope of a message. ``wall``: now. Returns
        how many went. Bodies are few and large: each is looked at.
        """

    @abstractmethod
    def any(self) -> bool:
        """Whether there is a body, or a part of one."""

    # ── a check, while nobody works ──────────────────────────────────────────────────────────────

    @abstractmethod
    def examine(
        self, peer: str | None, identity: MessageId, reference: Reference, *, repair: bool, say: Callable[[str], None]
    ) -> str:
        """Read a body of a message of the inbox (of the outbox: ``peer`` None); what is wrong with it, else nothing.

        With ``repair`` a damaged one goes aside and is never deleted. ``say`` is told how far it is, often.
        """

    @abstractmethod
    def leftovers(
        self, sent: Callable[[MessageId], Reference | None], come: Callable[[MessageId], Reference | None], *,
        aside: bool, say: Callable[[str], None],
    ) -> Iterator[Leftovers | tuple[str, Exception]]:  # fmt: skip
        """What no message refers to, place by place, or why a place could not be looked through.

        ``sent``, ``come``: the body that a message of the outbox or inbox refers to. ``aside``: move orphans where
        no sweep takes them.
        """

    def close(self) -> None:
        """Let go of everything; safe twice."""
        return


def release_all(written: Iterable[Written]) -> None:
    """Release each of them, whatever becomes of the others. Raises StoreError, as `Written.release` does."""
    with ExitStack() as stack:
        for body in written:
            stack.callback(body.release)


def no_fault_of_a_body(error: Exception) -> bool:
    """Whether what kept a body from being read would keep any body from it: no handles, no memory, or the whole store
    cannot be reached.
    """
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError):
        return cause.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
    return isinstance(error, StoreError) and not isinstance(error, StoreCorrupt)


__all__ = [
    "FORGOTTEN", "Arrival", "Arrivals", "Bodies", "Leftovers", "Load", "Progress", "Readable", "Tail", "Written",
    "no_fault_of_a_body", "release_all",
]  # fmt: skip
