"""What the machines that open one store have in common besides its messages.

Owns the contract `Shared`: small documents, elections and wake-ups between machines. A storage that several machines
may open offers one (`Storage.shared`); with any other storage the same things stand in files of the data directory,
because there is only one machine. Must not know what the documents say, nor who is elected for what.

Rules for every method: safe from many threads; times out with a `StoreError` rather than waiting for a database that
does not answer; after a fork in the child: `Closed`. The storage closes it with itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Protocol

import attrs

MAX_DOCUMENT = 4 * 1024 * 1024
"""Bytes of the largest document."""


@attrs.frozen
class Document:
    """A small document as it stands in the store."""

    data: bytes = attrs.field(repr=False)
    version: int
    """Above 0, and another one with each change of this name; also after it was removed and made again."""


class Election(Protocol):
    """Won by this process: nobody else holds it as long as this one does."""

    def holds(self) -> bool:
        """Whether it is still ours. Costs no question to the database, is safe from any thread, and False is final.

        It turns False by itself within seconds after the store or the line to it was lost. The storage sees to it that
        another machine is elected only later than that; but a process that stood still in between may find out late, so
        whatever is done under an election must be harmless if somebody else begins with it, too.
        """

    def release(self) -> None:
        """Let another one have it, at once; safe twice, never raises."""


class Listening(Protocol):
    """Somebody listens for wake-ups of other machines."""

    def close(self) -> None:
        """Stop; safe twice. No call of ``heard`` begins after this returned."""


def _nobody() -> None:
    """Nobody needs to be told."""


class Shared(ABC):
    """Documents, elections and wake-ups of one store."""

    @abstractmethod
    def load(self, name: str) -> Document | None:
        """A document as it is now, committed; None: there is none. Raises StoreError."""

    @abstractmethod
    def replace(self, name: str, data: bytes | None, version: int) -> bool:
        """Compare and set: True, and durable, if the document had this version; False, and nothing changed, if not.

        ``version`` 0: there must be none. ``data`` None: remove it (of a version that is not there: False). Raises
        StoreError; TooBig over MAX_DOCUMENT bytes.
        """

    @abstractmethod
    def names(self, prefix: str) -> list[str]:
        """The names of all documents that begin like this, sorted. Raises StoreError."""

    @abstractmethod
    def now(self) -> float:
        """Seconds by the clock of the store: the same for all machines, to about a second, however their own clocks
        go. Costs no question to the store; never raises.
        """

    @abstractmethod
    def elect(self, name: str, lost: Callable[[], None] = _nobody) -> Election | None:
        """Try to be elected; answers at once. None: somebody else holds it, on whatever machine. Raises StoreError.

        ``lost``: called once, from any thread, when it is lost before it is released. It must be quick.
        It ends when it is released, when its process or machine dies, and when the line to the store is lost: then
        within seconds, by itself. While one waits, one asks again every few seconds.
        """

    @abstractmethod
    def notify(self, topics: Collection[str]) -> None:
        """Wake who listens on other machines. Returns at once, and never raises: a wake-up that is lost costs its
        hearer the time until he looks by himself. Many of one topic at once may arrive as one.
        """

    @abstractmethod
    def listen(self, heard: Callable[[str | None], None]) -> Listening:
        """Call ``heard`` with each topic that another process notifies, from a thread of the storage, until closed.

        Own notifications may come back. None: something may have been missed (the line was lost); look at everything.
        ``heard`` must be quick and must not raise. Raises nothing where the store cannot be reached now: it listens as
        soon as that is so, and says None then. While it is quiet it costs nothing.
        """


__all__ = ["MAX_DOCUMENT", "Document", "Election", "Listening", "Shared"]
