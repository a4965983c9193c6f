"""What was begun in this process, and of which the store perhaps knows nothing.

Owns the memory of such messages, in two steps: whether the store knows of one must be asked when it can be asked; what
it does not know of is lost, and counts when it comes again. A claim is on stable storage a moment after it was made:
when a database's server crashes within it, the lease is gone though its consumer lives, and the message waits as if it
had never been begun. Bounded; it ends with the process. Must not know how the store is asked, nor how anything is
settled (twins.py does both).

Beside it, who stands behind a message that was handed out: words between `received.py` and the consumers.
"""

import logging
import threading
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol, TypeAlias

from dropr_core.contracts.inbox_records import Ack, Claim, Release, Settlement
from dropr_core.errors import StoreError
from dropr_core.model.names import MessageId

MOST = 100_000
"""Messages that are remembered; the oldest are forgotten first."""

_Key = tuple[int, MessageId]

Received: TypeAlias = Any
"""That of received.py, which stands above."""


class Keeper(Protocol):
    """Who keeps a message's lease, and settles it with others."""

    def settle_one(self, received: Received, change: Settlement) -> bool:
        """Apply a change, or note it so that the death of this process does not undo it; False if the lease had ended.
        Raises StoreError.
        """
        ...


class Taker(Protocol):
    """Who claimed a message, and gives up its lease in the end."""

    closed: bool
    """Whether it has ended its leases by itself."""

    def refused(self, received: Received) -> None:
        """The store has refused to settle what became of it: to be settled when this one closes, at the latest."""
        ...

    def close(self) -> None:
        """Settle what was refused, if the store takes it now, and give up all leases. Raises StoreError."""
        ...


def counts(change: Settlement) -> bool:
    """Whether what became of a message is an attempt."""
    return not isinstance(change, Release) or change.counted


class Begun(NamedTuple):
    """A message that was handed out, and could not be settled."""

    claim: Claim
    ack: Ack | None
    """What was meant for it: it was handled, and nobody was told otherwise."""

    @property
    def key(self) -> _Key:
        """Which message it is."""
        return self.claim.number, self.claim.id


class Unsettled:
    """Of one process. Safe to use from many threads."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._mutex = threading.Lock()
        self._begun: dict[_Key, Begun] = {}
        self._lost: dict[_Key, Begun] = {}
        self.holders: set[Taker] = set()
        """Consumers that may have some."""

    def __bool__(self) -> bool:
        return bool(self._begun or self._lost)

    def begun(self, claim: Claim, ack: Ack | None = None) -> None:
        """It was handed out, and could not be settled."""
        one = Begun(claim, ack)
        with self._mutex:
            self._add(self._begun, one)

    def asked_for(self) -> list[Begun]:
        """Those of which it is not known whether the store knows of them."""
        with self._mutex:
            return list(self._begun.values())

    def answered(self, asked: Collection[Begun], lost: Collection[Begun]) -> None:
        """Of what was asked for these are lost; the others stand in the store as they should."""
        with self._mutex:
            for one in asked:
                if self._begun.get(one.key) is one:  # else it was begun once more in the meantime
                    del self._begun[one.key]
            for one in lost:
                self._add(self._lost, one)

    def uncounted(self, claim: Claim) -> Begun | None:
        """What is lost of a message that is claimed now, if that attempt is no later one. Else it is forgotten."""
        lost = self._lost.get((claim.number, claim.id))
        if lost is not None and claim.attempt > lost.claim.attempt:
            self.settled(claim)
            return None
        return lost

    def counted(self, claim: Claim, *, ended: bool) -> None:
        """An attempt of what was lost counts now. Later ones may be lost with it: they count one by one."""
        lost = self._lost.get((claim.number, claim.id))
        if ended or lost is None or claim.attempt >= lost.claim.attempt:
            self.settled(claim)

    def settled(self, claim: Claim) -> None:
        """The store has it as it should."""
        with self._mutex:
            self._begun.pop((claim.number, claim.id), None)
            self._lost.pop((claim.number, claim.id), None)

    def close(self, log: logging.Logger) -> None:
        """The store is about to close, and would give back what these hold as if it had not been begun."""
        for holder in list(self.holders):
            try:
                holder.close()
            except StoreError as error:
                log.warning("what was begun is given back later: %s", error)

    def _add(self, to: dict[_Key, Begun], one: Begun) -> None:
        to.pop(one.key, None)
        to[one.key] = one
        if len(to) > self._most:
            del to[next(iter(to))]


__all__ = ["Begun", "Unsettled", "counts"]
