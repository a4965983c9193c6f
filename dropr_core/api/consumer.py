"""Taking messages out of the inbox: leases, acknowledgements, the iterator.

Owns `Consumer` (claims for some channels, woken by the notifier) and the iterators over it. What becomes
of one message is in received.py. Must not know peers, transports or handlers.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Literal

from dropr_core.api.received import Received, acknowledge, settle
from dropr_core.api.runtime import Runtime
from dropr_core.contracts.storage import Ack, Bury
from dropr_core.errors import BadEnvelope, LeaseLost, UsageError
from dropr_core.model import envelope, topics
from dropr_core.model.names import check_channel, format_id
from dropr_core.system.notifier import LOOK_AGAIN

REAP_EVERY = 0.5
"""Seconds between looks at other consumers' leases, only while such leases exist."""

SWEEP_EVERY = 0.25
"""Seconds at least between two sweeps for expired messages."""


class Consumer:
    """Claims messages of some channels. One thread uses it; its leases end with its process."""

    def __init__(
        self,
        runtime: Runtime,
        channels: Sequence[str],
        *,
        on_error: Literal["raise", "continue"] = "raise",
        label: str = "",
    ) -> None:
        """Listens and registers at once. Raises UsageError, Closed, StoreError."""
        if not channels:
            raise UsageError("name at least one channel to receive from")
        for channel in channels:
            check_channel(channel)
        runtime.check()
        self._runtime = runtime
        self.channels = tuple(channels)
        self._swallow = on_error == "continue"
        self._subscription = runtime.notifier.subscribe(*(topics.inbox(channel) for channel in self.channels))
        try:
            self._consumer = runtime.storage.inbox.register(label)
        except BaseException:
            self._subscription.close()
            raise
        self._next_reap = 0.0
        self._next_sweep = 0.0
        self._closed = False

    def fileno(self) -> int:
        """Readable when there may be something new; for select and event loops."""
        return self._subscription.fileno()

    def claim(self, limit: int = 1) -> list[Received]:
        """Lease what is ready now, without waiting. Damaged messages are buried and reported."""
        self._care()
        runtime, out = self._runtime, list[Received]()
        claims = runtime.storage.inbox.claim(self.channels, limit, self._consumer)
        if runtime.storage.inbox.checked and not runtime.observed and all([claim.envelope for claim in claims]):  # noqa: C419 -- faster
            return list(map(Received, repeat(runtime), claims, repeat(self._swallow)))
        for claim in claims:
            try:
                envelope.check(claim.envelope)
            except BadEnvelope as error:
                self._runtime.event("corrupt", {"id": format_id(claim.id), "error": str(error)})
                self._runtime.log.error("message %s is damaged at rest and buried: %s", format_id(claim.id), error)
                settle(self._runtime, [Bury(claim, f"damaged at rest: {error}")])
                continue
            out.append(Received(runtime, claim, self._swallow))
            if self._runtime.observed:
                details = {"id": claim.id, "channel": claim.channel, "attempt": claim.attempt}
                self._runtime.event("message_claimed", details)
        return out

    def acknowledge(self, batch: Sequence[Received]) -> None:
        """Acknowledge many in one commit. Raises LeaseLost if any was no longer ours (the others are done)."""
        keep = {channel: self._runtime.rules(channel).retention for channel in self.channels}
        if len(set(keep.values())) == 1:
            done = acknowledge(self._runtime, [received.claim for received in batch], keep[self.channels[0]])
        else:
            acks = [Ack(received.claim, None, "", keep[received.claim.channel]) for received in batch]
            done = settle(self._runtime, acks)
        for received in batch:
            received.settled = True
        if all(done):
            return
        lost = [received.id for received, good in zip(batch, done, strict=True) if not good]
        raise LeaseLost(f"{len(lost)} of {len(batch)} leases had ended, the first on message {lost[0]}")

    def prepare(self) -> None:
        """Say that we are about to wait; look for messages once more after it, before waiting."""
        self._subscription.prepare()

    def wait(self, timeout: float | None) -> None:
        """Sleep until there may be something to claim, at most ``timeout`` seconds."""
        self._subscription.wait(self.patience(timeout))

    def patience(self, timeout: float | None) -> float:
        """How long to wait at most: until a delayed message is due or other consumers must be looked at."""
        now = self._runtime.clock.now()
        limits = [LOOK_AGAIN] if timeout is None else [timeout, LOOK_AGAIN]  # a killed sender notifies nobody
        due = self._runtime.storage.inbox.next_due(self.channels)
        if due is not None:
            limits.append(due - now)
        if self._next_reap != float("inf"):
            limits.append(self._next_reap - now)
        return max(0.0, min(limits))

    def take(self, limit: int, deadline: float | None) -> list[Received]:
        """Up to ``limit`` messages; waits for the first until ``deadline`` (time.monotonic seconds)."""
        while True:
            if found := self.claim(limit):
                return found
            self.prepare()
            if found := self.claim(limit):
                return found
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return []
            self.wait(left)

    def _care(self) -> None:
        """Free what dead consumers held, and end what expired. Costs nothing while nothing is leased."""
        now = self._runtime.clock.now()
        if now >= self._next_reap or self._next_reap == float("inf"):
            freed, others = self._runtime.storage.inbox.reap(self._runtime.attempts)
            for channel in freed:
                self._runtime.notifier.notify(topics.inbox(channel))
            self._next_reap = now + REAP_EVERY if others else float("inf")
        if now >= self._next_sweep:
            self._runtime.storage.inbox.sweep()
            self._next_sweep = now + SWEEP_EVERY

    def close(self) -> None:
        """Give up all leases, their attempts not counted; safe twice."""
        if self._closed:
            return
        self._closed = True
        self._subscription.close()
        self._runtime.storage.inbox.retire(self._consumer)
        for channel in self.channels:
            self._runtime.notifier.notify(topics.inbox(channel))


def iterate(
    consumer: Consumer, *, limit: int | None, wait: float | None, timeout: float | None, prefetch: int
) -> Iterator[Received]:
    """The iterator behind `Node.receive`: leaving the loop body acknowledges, abandoning it releases."""
    ends = None if timeout is None else time.monotonic() + timeout
    left = limit
    try:
        while left is None or left > 0:
            pause = None if wait is None else time.monotonic() + wait
            deadline = min((moment for moment in (ends, pause) if moment is not None), default=None)
            batch = consumer.take(prefetch if left is None else min(prefetch, left), deadline)
            if not batch:
                return
            for index, received in enumerate(batch):
                finished = False
                try:
                    yield received
                    finished = True
                finally:
                    if not finished:
                        for unused in batch[index:]:
                            unused.requeue()
                if not received.settled:
                    received.ack()
                left = None if left is None else left - 1
                if ends is not None and time.monotonic() >= ends:
                    for unused in batch[index + 1 :]:
                        unused.requeue()
                    return
    finally:
        consumer.close()


def iterate_batches(
    consumer: Consumer, *, size: int, limit: int | None, wait: float | None, timeout: float | None
) -> Iterator[list[Received]]:
    """The iterator behind `Node.receive_batches`: leaving the body acknowledges the rest in one commit."""
    ends = None if timeout is None else time.monotonic() + timeout
    left = limit
    try:
        while left is None or left > 0:
            pause = None if wait is None else time.monotonic() + wait
            deadline = min((moment for moment in (ends, pause) if moment is not None), default=None)
            batch = consumer.take(size if left is None else min(size, left), deadline)
            if not batch:
                return
            finished = False
            try:
                yield batch
                finished = True
            finally:
                if not finished:
                    for unused in batch:
                        unused.requeue()
            consumer.acknowledge([received for received in batch if not received.settled])
            left = None if left is None else left - len(batch)
    finally:
        consumer.close()
