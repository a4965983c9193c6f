"""Taking messages out of the inbox for a whole process, in its turns at the store.

Owns the process's one consumer, the care for the queue that comes with taking (dead consumers, expiry), and what is
done with messages that cannot be handed out. Must not know connections or the event loop.
"""

import contextlib
import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

from dropr_core.api.consumer import REAP_EVERY, SWEEP_EVERY
from dropr_core.api.received import settle
from dropr_core.api.runtime import Runtime
from dropr_core.api.twins import without_twins
from dropr_core.contracts.storage import Bury, Claim, Release
from dropr_core.errors import BadEnvelope, Closed, DroprError, WriteFailed
from dropr_core.model import envelope, topics
from dropr_core.model.facts import facts_of
from dropr_core.model.names import format_id, is_of_run
from dropr_core.system.log_fields import about
from dropr_core.system.notifier import LOOK_AGAIN, Subscription

MAX_SUBSCRIPTIONS = 1000
"""Channels that are listened to at most; who waits on more of them looks again now and then."""
TOO_LARGE_REST = 60.0


class Wanted:
    """What a group of waiting connections wants. More of them may join until the turn at the store begins."""

    __slots__ = ("channels", "large", "limit", "waits")

    def __init__(self, channels: tuple[str, ...], limit: int = 0, *, waits: bool = False, large: bool = False) -> None:
        """``waits``: somebody goes on waiting if there is not enough. ``large``: they take large bodies as files, so
        those are not read.
        """
        self.channels, self.limit, self.waits, self.large = channels, limit, waits, large


class Taken(NamedTuple):
    """What there was."""

    claims: list[tuple[Claim, bytes | None]]
    """With the body, where it is a file of its own."""
    patience: float
    """Seconds after which to look again though nobody notified."""
    subscriptions: list[tuple[str, Subscription]]
    """New ones, to be watched by the event loop."""


class Claimer:
    """For one turn at a time."""

    def __init__(self, runtime: Runtime, max_body: int, log: logging.Logger) -> None:
        """``max_body``: larger bodies are not loaded, their messages stay for consumers of another kind."""
        self._runtime, self._max_body, self._log = runtime, max_body, log
        self._inbox = runtime.storage.inbox
        self._consumer = ""
        self._subscriptions: dict[str, Subscription] = {}
        self._next_reap = self._next_sweep = -math.inf
        self._others = False
        self.holding = 0
        """Leases of this process, as the event loop knows it: while there are any, `reap` cannot tell others'."""

    @property
    def consumer(self) -> str:
        """Registered when it is first needed. Raises StoreError."""
        if not self._consumer:
            self._consumer = self._inbox.register("gateway")
        return self._consumer

    def take(self, wanted: Wanted) -> Taken:
        """Lease what is ready; where that is not enough and somebody waits, ask to be notified and look again."""
        claims = self._claim(wanted.channels, wanted.limit, large=wanted.large)
        if len(claims) >= wanted.limit or not wanted.waits:
            return Taken(claims, 0.0, [])
        new = self._listen(wanted.channels)
        claims += self._claim(wanted.channels, wanted.limit - len(claims), large=wanted.large)
        return Taken(claims, self._patience(wanted.channels), new)

    def _claim(self, channels: Sequence[str], limit: int, *, large: bool) -> list[tuple[Claim, bytes | None]]:
        looked = self._care()
        while True:
            open_ones = self._runtime.pauses.unpaused(channels)
            claims = self._limited(open_ones, limit) if open_ones else []
            if not claims and not looked and self._others:
                looked = True
                if self._reap(self._runtime.clock.now()):
                    continue
            good = [ready for claim in claims if (ready := self.ready(claim, large=large)) is not None]
            if good or not claims:
                return good

    def _limited(self, channels: Sequence[str], limit: int) -> list[Claim]:
        if self._runtime.limits is None:
            return self._lease(channels, limit)
        return self._runtime.limits.claim(self._lease, channels, limit, self.consumer, ahead=False)

    def _lease(self, channels: Sequence[str], limit: int) -> list[Claim]:
        return self._inbox.claim(channels, limit, self.consumer)

    def ready(self, claim: Claim, *, large: bool = False) -> tuple[Claim, bytes | None] | None:
        """A message that can be handed out, with its body if that is large; else it has been dealt with."""
        runtime, name = self._runtime, format_id(claim.id)
        try:
            if not (self._inbox.checked and claim.envelope):
                envelope.check(claim.envelope)
        except BadEnvelope as error:
            runtime.event("corrupt", {"id": name, "error": str(error)})
            runtime.log.error("message %s is damaged at rest and buried: %s", name, error,
                              extra=about(message=name, channel=claim.channel))  # fmt: skip
            settle(runtime, [Bury(claim, f"damaged at rest: {error}")])
            return None
        if is_of_run(claim.id) and not without_twins(runtime, [claim]):
            return None
        reference = envelope.reference_of(claim.envelope)
        if runtime.observed:
            told = {
                "id": claim.id,
                "channel": claim.channel,
                "attempt": claim.attempt,
                "facts": facts_of(claim.envelope),
            }
            runtime.event("message_claimed", told)
        if reference is None or large:
            return claim, None
        if reference.size > self._max_body:
            self._log.warning(
                "message %s on %s has a body of %d bytes, which no gateway of this node hands out (max_bytes: %d in "
                "all); receive it with Python, or raise max_bytes", name, claim.channel, reference.size, self._max_body,
                extra=about(message=name, channel=claim.channel),
            )  # fmt: skip
            settle(runtime, [Release(claim, TOO_LARGE_REST, counted=False)])
            return None
        try:
            with runtime.bodies.open_received(claim.sender, claim.id, reference) as file:
                return claim, file.read()
        except (DroprError, OSError) as error:
            self._log.error("the body of message %s cannot be read: %s", name, error,
                            extra=about(message=name, channel=claim.channel))  # fmt: skip
            settle(runtime, [Release(claim, runtime.rules(claim.channel).backoff.fixed(claim.attempt), str(error))])
            return None

    def listen(self, channels: Sequence[str]) -> tuple[list[tuple[str, Subscription]], float]:
        """Ask to be notified of news, as `take` does, and say when to look again without."""
        self._care()
        return self._listen(channels), self._patience(channels, limited=False)

    def refused_for(self, channel: str) -> float | None:
        """Seconds until the limits of a channel may let somebody have what they have just refused. Asks no store."""
        if self._runtime.limits is None:
            return None
        moment = self._runtime.limits.look_again((channel,), self._consumer)[1]
        return None if moment is None else moment - self._runtime.clock.now()

    def _listen(self, channels: Sequence[str]) -> list[tuple[str, Subscription]]:
        new = []
        for channel in channels:
            found = self._subscriptions.get(channel)
            if found is None and len(self._subscriptions) < MAX_SUBSCRIPTIONS:
                with contextlib.suppress(WriteFailed, OSError):  # a full disk: we look again now and then
                    found = self._runtime.notifier.subscribe(topics.inbox(channel))
                    self._subscriptions[channel] = found
                    new.append((channel, found))
            if found is not None:
                found.prepare()
        return new

    def _patience(self, channels: Sequence[str], *, limited: bool = True) -> float:
        now = self._runtime.clock.now()
        limits = [LOOK_AGAIN]
        pauses, free = self._runtime.pauses, None
        open_ones = pauses.unpaused(channels)
        if limited and self._runtime.limits is not None:
            open_ones, free = self._runtime.limits.look_again(open_ones, self._consumer)
        due = self._inbox.next_due(open_ones)
        limits += [moment - now for moment in (due, free, pauses.next_end(channels)) if moment is not None]
        if self._others and not self.holding:
            limits.append(self._next_reap - now)
        return max(0.001, min(limits))

    def _care(self) -> bool:
        now = self._runtime.clock.now()
        due = now >= self._next_reap
        if due:
            self._reap(now)
        if now >= self._next_sweep:
            self._inbox.sweep()
            self._next_sweep = now + SWEEP_EVERY
        return due

    def reap(self) -> None:
        """End the leases of consumers that died."""
        self._reap(self._runtime.clock.now())

    def _reap(self, now: float) -> bool:
        freed, self._others = self._inbox.reap(self._runtime.attempts)
        for channel in freed:
            self._runtime.notifier.notify(topics.inbox(channel))
        self._next_reap = now + REAP_EVERY
        return bool(freed)

    def close(self) -> None:
        """Stop listening; all leases end, not counted. Raises StoreError."""
        for subscription in self._subscriptions.values():
            subscription.close()
        if self._consumer:
            with contextlib.suppress(Closed):
                self._inbox.retire(self._consumer)
            if self._runtime.limits is not None:
                self._runtime.limits.retired(self._consumer)
