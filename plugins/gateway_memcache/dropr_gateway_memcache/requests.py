"""What a memcache client asks for, in whichever of the three protocols it said so.

Owns the requests, the grammar of a queue's key (MemcacheQ's name, Kestrel's words behind it), and `Answers`, the words
in which one is answered. Does no I/O and knows nothing of dropr.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal

import attrs

MAX_KEY = 250
"""Bytes, as in memcached."""
MONTH = 30 * 24 * 3600
"""Seconds: a larger time of expiry is a time of the Unix clock, as in memcached."""

_WAIT = re.compile(r"t=([0-9]{1,9})")
_WORDS = ("open", "close", "abort", "peek")


class BadKey(ValueError):
    """A key whose words contradict each other; the text says why, for the client."""


@attrs.frozen
class Item:
    """A message as memcache sees it."""

    body: bytes = attrs.field(repr=False)
    flags: int = 0
    unique: int = 0
    """What `gets` calls the cas unique: here the number of the message."""


@attrs.frozen
class Read:
    """One key of a get: a queue, and what shall be done with it."""

    key: bytes
    """As the client wrote it; it comes back with the value, for clients look for it."""
    queue: str
    wait: float = 0.0
    """Seconds."""
    open: bool = False
    close: bool = False
    abort: bool = False
    peek: bool = False

    @property
    def plain(self) -> bool:
        """Whether it takes at once and for good."""
        return not (self.wait or self.open or self.close or self.abort or self.peek)


def queue_of(key: bytes) -> str:
    """The name of a queue as text. One that is not ASCII is refused where queues are looked up."""
    return key.decode("ascii", "backslashreplace")


def read_of(key: bytes) -> Read:
    """Take Kestrel's words from the end of a key: ``work/t=500/open``. Raises BadKey."""
    queue, wait, words = queue_of(key), 0.0, set()
    while "/" in queue:
        rest, _, word = queue.rpartition("/")
        if word in _WORDS:
            words.add(word)
        elif found := _WAIT.fullmatch(word):
            wait = int(found[1]) / 1000
        else:
            break
        queue = rest
    if not queue:
        raise BadKey("no queue is named before the first /")
    if words & {"abort", "peek"} and len(words) > 1:
        raise BadKey(f"{' and '.join(sorted(words))} cannot go together")
    return Read(key, queue, wait, "open" in words, "close" in words, "abort" in words, "peek" in words)


def expires_in(exptime: int, now: float) -> float | None:
    """Seconds until a message expires, 0 or less for one that has; None for never. ``now``: of the Unix clock."""
    if exptime == 0:
        return None
    if exptime < 0:
        return -1.0
    return exptime - now if exptime > MONTH else float(exptime)


class Answers(ABC):
    """How one request is answered, in the protocol in which it came. Each method gives the bytes to send."""

    @abstractmethod
    def stored(self, number: int) -> bytes:
        """The message is on stable storage."""

    @abstractmethod
    def value(self, key: bytes, item: Item) -> bytes:
        """What a get found."""

    @abstractmethod
    def miss(self, key: bytes) -> bytes:
        """A get found nothing."""

    @abstractmethod
    def end(self) -> bytes:
        """All keys of a get are answered."""

    @abstractmethod
    def deleted(self, *, found: bool) -> bytes:
        """A queue was emptied, or there was none."""

    @abstractmethod
    def stats(self, pairs: Iterable[tuple[str, str]]) -> bytes:
        """Figures."""

    @abstractmethod
    def done(self) -> bytes:
        """Yes, with nothing to say."""

    @abstractmethod
    def refused(self, whose: Literal["client", "server"], text: str) -> bytes:
        """It was not done; ``whose`` fault it is, and what to do."""


class Silent(Answers):
    """Answers nothing: ``noreply``."""

    def stored(self, number: int) -> bytes:  # noqa: ARG002 - the form of the others
        """Nothing."""
        return b""

    def value(self, key: bytes, item: Item) -> bytes:  # noqa: ARG002
        """Nothing."""
        return b""

    def miss(self, key: bytes) -> bytes:  # noqa: ARG002
        """Nothing."""
        return b""

    def end(self) -> bytes:
        """Nothing."""
        return b""

    def deleted(self, *, found: bool) -> bytes:  # noqa: ARG002
        """Nothing."""
        return b""

    def stats(self, pairs: Iterable[tuple[str, str]]) -> bytes:  # noqa: ARG002
        """Nothing."""
        return b""

    def done(self) -> bytes:
        """Nothing."""
        return b""

    def refused(self, whose: Literal["client", "server"], text: str) -> bytes:  # noqa: ARG002
        """Nothing, so that a client that reads no answer does not take it for that of its next command."""
        return b""


@attrs.frozen
class Put:
    """Append a message to a queue."""

    answers: Answers
    queue: str
    body: bytes = attrs.field(repr=False)
    flags: int = 0
    exptime: int = 0


@attrs.frozen
class Take:
    """Read from queues, one message from each."""

    answers: Answers
    reads: tuple[Read, ...]


@attrs.frozen
class Drop:
    """Empty a queue."""

    answers: Answers
    queue: str


@attrs.frozen
class Stats:
    """Figures: ``topic`` is what stands behind the word, or nothing; ``me`` asks for one queue."""

    answers: Answers
    topic: str = ""
    queue: str = ""


@attrs.frozen
class Login:
    """Somebody says who it is."""

    answers: Answers
    user: str
    password: str = attrs.field(repr=False)


@attrs.frozen
class Say:
    """The protocol knows the answer itself; ``hang_up`` after it."""

    answer: bytes
    hang_up: bool = False


Request = Put | Take | Drop | Stats | Login | Say

__all__ = ["MAX_KEY", "MONTH", "Answers", "BadKey", "Drop", "Item", "Login", "Put", "Read", "Request", "Say", "Silent",
           "Stats", "Take", "expires_in", "queue_of", "read_of"]  # fmt: skip
