"""The contract of a transport: bring one opaque request to one address and one opaque answer back.

Owns `Transport`, `Connection`, `Listener`, `Answerer`. A transport must not know what a request
means: it never decides what was stored, it only tells "nothing arrived" from "unknown".
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from typing import ClassVar, Protocol, runtime_checkable

import attrs

from dropr_core.errors import Unanswered


@attrs.frozen
class Caller:
    """Who asks, as far as the transport can tell. For logs and for transports that authenticate."""

    address: str
    identity: str | None = None
    """An identity that the transport itself has proven (client certificate, CURVE key), if any."""


class Answerer(Protocol):
    """The host's side of a listener. Safe to call from any thread."""

    head_size: int
    """This many first bytes of a request always suffice for `admit` (fewer if the request is shorter)."""

    def admit(self, head: bytes, caller: Caller) -> int:
        """Judge a request by its beginning, before the rest is read; return its full length in bytes.

        Raises Refused (code ``unknown_peer``, ``bad_signature``, ``too_big``, ``bad_frame``):
        read no more, give the code and text to the caller in the transport's own way, close.
        """
        ...

    def answer(self, request: bytes | memoryview, caller: Caller) -> "Future[bytes]":
        """The answer to a whole request, now or after a long poll (up to about 60 s). Does not block, but that a host
        may answer a short request before it returns, as long as that takes it about a millisecond.

        ``request`` may be any bytes-like object; it must stay as it is until the future is done, and as long as
        anybody holds a view of it.

        Keep the future as long as you hold its answer for a caller who reads slowly: its bytes are counted until the
        future is gone, and answers become smaller where many are under way.

        The future fails with Refused (see `admit`) or another exception (an internal error: tell
        the caller so, without details).
        """
        ...


class Tail(Protocol):
    """The end of a long request, read where it lies while it is sent. Safe to read from any thread, and again."""

    size: int
    """Bytes."""

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes from ``offset`` on; raises OSError."""
        ...


@runtime_checkable
class FileTail(Tail, Protocol):
    """A tail that lies in a file, from where the kernel can send it."""

    def send(self, line: int, offset: int, size: int) -> int:
        """Have the kernel send what it takes of so many bytes into a socket, by its descriptor; how many it took.

        Raises BlockingIOError where it takes nothing now, and OSError, as `sendfile` does; `read` tells then whether
        the file is at fault. 0: the file is shorter.
        """
        ...


class Connection(ABC):
    """A way to one address. Many requests may be under way at once."""

    @abstractmethod
    def ask(self, request: bytes, *, idle: float) -> "Future[bytes]":
        """Send a request and get its answer. Does not block.

        ``idle``: seconds without a byte either way after which it is given up (long polls pass a
        longer one). No limit on the whole. The future fails with Unreachable (certain: the
        peer cannot have got it whole), Unanswered (unknown), or Refused with a code
        (``unauthorized`` for 401/403, ``too_big`` for 413, ``bad_request`` for 400, ``busy`` for
        429/503 …) where the other side of the transport refused the request before dropr saw it.

        Raises nothing: after `close` (of this or of its transport), and in a forked child, the future fails
        with Closed.
        """

    def ask_long(self, beginning: bytes, tail: Tail, *, idle: float) -> "Future[bytes]":
        """`ask` for a request that is ``beginning`` and then what ``tail`` reads.

        A transport that can send in steps overrides this: then no request is in memory as a whole. An OSError
        of the tail fails the future with Unanswered.
        """
        try:
            return self.ask(beginning + tail.read(0, tail.size), idle=idle)
        except OSError as error:
            future: Future[bytes] = Future()
            future.set_exception(Unanswered(f"the end of the request cannot be read: {error}"))
            return future

    @abstractmethod
    def close(self) -> None:
        """Give up what is under way (Unanswered) and release everything; waits for nobody; safe twice."""


class Listener(ABC):
    """An open door."""

    url: str
    """Where it really listens (a port of 0 replaced by the one given)."""

    @abstractmethod
    def close(self, *, drain: float = 0.0) -> None:
        """Take no new requests, let those under way end for up to ``drain`` seconds, give up the rest; safe twice.

        Comes back as soon as nothing is under way.
        """


@attrs.frozen
class Introduction:
    """What another node must know to reach a listener of this one."""

    url: str
    """As the other node writes it into its configuration."""
    certificate: str = ""
    """SHA-256 (hexadecimal) of the certificate that the listener shows; empty where the transport has none."""


@attrs.frozen
class Trust:
    """What this node must add to its configuration to believe a listener's certificate."""

    option: tuple[str, ...]
    """Which option of the transport shall name the file, such as ``("tls", "ca")``."""
    content: str
    """The file: the certificate, as text."""


class Transport(ABC):
    """One technology."""

    schemes: ClassVar[Sequence[str]]
    """URL schemes that pick this transport, such as ``https``."""
    abilities: ClassVar[frozenset[str]] = frozenset()
    """Of: ``encrypted`` (some schemes hide the content), ``knows_caller`` (proves identities)."""
    encrypted_schemes: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def check(self, url: str, *, listen: bool) -> str | None:
        """What is wrong with a URL for this transport, or None. No I/O; raises nothing, whatever the text is."""

    @abstractmethod
    def connect(self, url: str) -> Connection:
        """A connection; does no I/O before the first `Connection.ask`."""

    @abstractmethod
    def listen(self, url: str, answerer: Answerer) -> Listener:
        """Open the door; raises Unreachable saying why it cannot (port taken, no permission)."""

    def introduce(self, url: str) -> Introduction:
        """How another node reaches the listener of this node at ``url``: for `dropr invite`. Reads files at most.

        Raises UsageError where an invitation cannot bring a node in, saying why.
        """
        return Introduction(url)

    def trust(self, introduction: Introduction) -> Trust | None:  # noqa: ARG002
        """What must be added so that connections to ``introduction.url`` believe the certificate of an invitation:
        for `dropr join`. None: nothing, it is believed already. Does network I/O, some seconds at most.

        Raises UsageError if another certificate than the one of the invitation is shown there, or if an option that
        stands already is in the way; TransportError if nobody answers there.
        """
        return None

    @abstractmethod
    def close(self) -> None:
        """Close all connections and listeners; safe twice."""
