"""A storage of which only the first tier is used: everything else is what the contract says by default.

Owns the two wrappers, by which the suite compares what a storage overrides with what follows from the rest of it.
Must not know any storage by name.
"""

from collections.abc import Callable
from typing import Any

from dropr_core.contracts.storage import Inbox, Outbox, Storage


def _passed_on(name: str) -> Callable[..., Any]:
    def call(self: Any, *args: Any, **options: Any) -> Any:
        return getattr(self.inner, name)(*args, **options)

    call.__name__ = name
    return call


OUTBOX = frozenset({
    "append", "lanes", "take", "settle", "locate", "rewind", "renumber", "receipts", "peers", "hold", "scan", "move",
    "envelope", "close",
})  # fmt: skip
INBOX = frozenset({
    "heads", "accept", "put", "claim", "claim_number", "settle", "outcomes", "scan", "move", "envelope", "close",
})  # fmt: skip
KEPT = frozenset({"totals", "flush"})
"""Of the second tier, what no default can know."""


class _Half:
    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.context = inner.context
        if hasattr(inner, "consumers"):
            self.consumers = inner.consumers
            self.sheets = inner.sheets
            self.flush_interval = inner.flush_interval

    @property
    def store_id(self) -> Any:
        return self.inner.store_id


EssentialOutbox = type("EssentialOutbox", (_Half, Outbox), {name: _passed_on(name) for name in OUTBOX | {"totals"}})
EssentialInbox = type("EssentialInbox", (_Half, Inbox), {name: _passed_on(name) for name in INBOX | KEPT})


class Essentials(Storage):
    """Another storage, seen through its first tier."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self.outbox: Any = EssentialOutbox(inner.outbox)
        self.inbox: Any = EssentialInbox(inner.inbox)

    @property
    def abilities(self) -> frozenset[str]:  # type: ignore[override]
        """Those of the storage."""
        return self.inner.abilities

    def close(self) -> None:
        """Close the storage."""
        self.inner.close()


__all__ = ["INBOX", "OUTBOX", "Essentials"]
