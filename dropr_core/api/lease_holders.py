"""Who stands behind a message that was handed out: words between `received.py` and the consumers.

Owns two protocols. Must not know what they do.
"""

from typing import Any, Protocol, TypeAlias

from dropr_core.contracts.storage import Settlement

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
