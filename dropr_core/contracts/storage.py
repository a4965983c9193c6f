"""The contract of a storage: a durable outbox (a log per lane) and a durable inbox (a work queue).

Owns both halves as one store, and every name of the contract; the halves stand in `outbox.py` and `inbox.py`, each in
two tiers: some two dozen methods that a storage must write, and what follows from them. A storage knows lanes,
channels and opaque envelopes; it must not know addresses, keys, transports or what a body means.

Rules for every method:
* What is said to be durable is on stable storage when the method returns; everything else survives
  the death of any process at once and a power cut within the flush interval.
* All or nothing: an exception (always a `StoreError`) means that nothing was changed.
* Many threads and many processes use one store at once. After a fork in the child: `Closed`.
* The cost of a call does not grow with the backlog, unless the method says so. What applications and daemons call
  all the time of the second tier (`acknowledge`, `next_due`, `reap`, both `sweep`) is worth an override where
  backlogs are long.
* Times are node time (`Context.clock.now()`), in seconds.
"""

from abc import ABC
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from dropr_core.contracts.inbox import Inbox
from dropr_core.contracts.lease_sheets import Consumers
from dropr_core.contracts.outbox import Outbox
from dropr_core.contracts.records import (
    Accepted,
    Ack,
    AppendResult,
    Arrival,
    Batch,
    Bury,
    Claim,
    Delivery,
    DeliveryMove,
    Entry,
    Finding,
    Job,
    JobInfo,
    JobMove,
    LaneStats,
    NewMessage,
    PeerState,
    Put,
    Rejection,
    Release,
    Selection,
    Settlement,
    Standing,
)
from dropr_core.model.names import START

if TYPE_CHECKING:
    from dropr_core.contracts.bodies import Bodies
    from dropr_core.contracts.shared import Shared


class Storage(ABC):
    """Both halves of one node's durable queue."""

    abilities: ClassVar[frozenset[str]] = frozenset()
    """Of: ``durable`` (survives the process), ``processes`` (several at once), ``ordering_key``."""

    outbox: Outbox
    inbox: Inbox
    bodies: "Bodies | None" = None
    """The large bodies of the node, where machines share them. None: they are files of the data directory."""
    shared: "Shared | None" = None
    """What machines that open this store have in common; None: one machine opens it, and files of its data directory
    serve instead.
    """

    def check(self, *, repair: bool) -> Iterator[Finding]:  # noqa: ARG002
        """Look for what is damaged or contradicts itself in this store's own files; optional.

        Called only on a store that was opened with ``Context.checking`` (its halves are not used then, and may
        be anything but None). Without ``repair`` not a byte changes, and other processes may work meanwhile.
        With it the finding comes after its repair; raises Held, before anything was changed, if another process
        has the store open. What cannot be read is moved aside and never deleted. Memory is bounded, long work
        tells of itself through ``Context.log.info``.

        What every storage has in common (each message readable, each large body there) is checked by the
        host afterwards, with the methods above, on the store as it is then.
        """
        return iter(())

    def close(self) -> None:
        """Close both halves; safe twice."""
        try:
            self.inbox.close()
        finally:
            self.outbox.close()


__all__ = [
    "START",
    "Accepted",
    "Ack",
    "AppendResult",
    "Arrival",
    "Batch",
    "Bury",
    "Claim",
    "Consumers",
    "Delivery",
    "DeliveryMove",
    "Entry",
    "Finding",
    "Inbox",
    "Job",
    "JobInfo",
    "JobMove",
    "LaneStats",
    "NewMessage",
    "Outbox",
    "PeerState",
    "Put",
    "Rejection",
    "Release",
    "Selection",
    "Settlement",
    "Standing",
    "Storage",
]  # fmt: skip
