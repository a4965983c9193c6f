"""Taking messages out of the inbox: leases, acknowledgements, the iterator.

Owns `Consumer` (claims for some channels, woken by the notifier) and the loop that carries out a plan with it. What is
done when is decided in receive_plan.py, what becomes of one message in received.py. Must not know peers, transports or
handlers.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Generator, Sequence
from itertools import repeat
from typing import Literal, TypeAlias

from dropr_core.api.receive_plan import Claim, End, Give, ReceivePlan, Settle
from dropr_core.api.received import Received, acknowledge, settle
from dropr_core.api.runtime import Runtime
from dropr_core.api.send_options import Duration, as_seconds
from dropr_core.api.twins import find_uncounted, without_effects, without_twins, without_uncounted
from dropr_core.contracts.storage import Ack, Bury
from dropr_core.contracts.storage import Claim as Leased
from dropr_core.errors import BadEnvelope, Closed, LeaseLost, StoreError, UsageError
from dropr_core.model import envelope, topics
from dropr_core.model.facts import facts_of
from dropr_core.model.names import RUN_BYTE, check_stored_channel, format_id, keep_of
from dropr_core.system.log_fields import about
from dropr_core.system.notifier import LOOK_AGAIN

OnError: TypeAlias = Literal["raise", "continue"]
"""What `with message:` does with an exception once the message was given back: raise it, or go on."""

REAP_EVERY = 0.5
"""Seconds between looks at other consumers' leases; who waits gets up for it only while such leases exist."""

SWEEP_EVERY = 0.25
"""Seconds at least between two sweeps for expired messages."""


def check_channels(channels: Sequence[str]) -> None:
    """Raise UsageError unless these can be received from."""
    if not channels:
        raise UsageError("name at least one channel to receive from")
    for channel in channels:
        check_stored_channel(channel)


class Consumer:
    """Claims messages of some channels. One thread uses it; its leases end with its process."""

    def __init__(
        self,
        runtime: Runtime,
        channels: Sequence[str],
        *,
        on_error: OnError = "raise",
        label: str = "",
        ahead: bool = False,
    ) -> None:
        """Listens and registers at once. ``ahead``: of what is claimed together the first is handed out now, the rest
        later. Raises UsageError, Closed, StoreError.
        """
        check_channels(channels)
        runtime.check()
        self._runtime = runtime
        self.channels = tuple(channels)
        self._swallow, self._ahead = on_error == "continue", ahead
        self._subscription = runtime.notifier.subscribe(*(topics.inbox(channel) for channel in self.channels))
        try:
            self._consumer = runtime.storage.inbox.register(label)
        except BaseException:
            self._subscription.close()
            raise
        self._next_reap, self._others = 0.0, False
        self._next_sweep = 0.0
        self.closed = False
        """Whether its leases have ended, by its own doing or that of the store."""
        self._refused: set[Received] = set()
        """What the store has refused to settle, and perhaps still does."""

    def fileno(self) -> int:
        """Readable when there may be something new; for select and event loops."""
        return self._subscription.fileno()

    def claim(self, limit: int = 1, *, without: Collection[str] = ()) -> list[Received]:
        """Lease what is ready now, without waiting, but for what is in some of its channels. Damaged messages are
        buried and reported; nothing comes back only if nothing sound is there.
        """
        looked = self._care()
        runtime, inbox = self._runtime, self._runtime.storage.inbox
        wanted = [channel for channel in self.channels if channel not in without] if without else self.channels
        if self._refused:
            self._refused.difference_update([one for one in list(self._refused) if one.settled])
        if runtime.unsettled:
            find_uncounted(runtime)
        while True:
            channels = runtime.pauses.unpaused(wanted)
            if runtime.limits is None or not channels:
                claims = inbox.claim_at_once(channels, limit, self._consumer) if channels else []
            else:
                claims = runtime.limits.claim(self._lease, channels, limit, self._consumer, ahead=self._ahead)
            if runtime.unsettled and claims:
                claims = without_uncounted(runtime, claims)
                if not claims:
                    continue
            if RUN_BYTE in [claim.id[6] for claim in claims]:  # no call for each message
                claims = without_twins(runtime, claims)
                if not claims:
                    continue
            if runtime.config.outboxes and any(claim.attempt > 1 or claim.possible_duplicate for claim in claims):
                claims = without_effects(runtime, claims)
                if not claims:
                    continue
            if not claims and not looked and not self._others:
                # Only now: who was woken for a message has it in hand before others are looked at.
                looked = True
                if self._reap(runtime.clock.now()):
                    continue
            envelopes = [claim.envelope for claim in claims]
            if not runtime.observed and (all(envelopes) if inbox.checked else envelope.are_sound(envelopes)):
                return list(map(Received, repeat(runtime), claims, repeat(self._swallow), repeat(self)))
            sound = [Received(runtime, claim, self._swallow, self) for claim in claims if self._is_sound(claim)]
            if sound or not claims:
                return sound

    def _lease(self, channels: Sequence[str], limit: int) -> list[Leased]:
        return self._runtime.storage.inbox.claim_at_once(channels, limit, self._consumer)

    def _is_sound(self, claim: Leased) -> bool:
        runtime = self._runtime
        try:
            envelope.check(claim.envelope)
        except BadEnvelope as error:
            runtime.event("corrupt", {"id": format_id(claim.id), "error": str(error)})
            runtime.log.error("message %s is damaged at rest and buried: %s", format_id(claim.id), error,
                              extra=about(message=claim.id, channel=claim.channel))  # fmt: skip
            settle(runtime, [Bury(claim, f"damaged at rest: {error}")])
            return False
        if runtime.observed:
            told = {
                "id": claim.id,
                "channel": claim.channel,
                "attempt": claim.attempt,
                "facts": facts_of(claim.envelope),
            }
            runtime.event("message_claimed", told)
        return True

    def look(self, step: Claim) -> list[Received]:
        """Carry out a `Claim` of a plan."""
        if step.prepared:
            self.prepare()
        return self.claim(step.limit)

    def settle(self, step: Settle[Received]) -> None:
        """Carry out a `Settle` of a plan. Raises LeaseLost, StoreError."""
        if len(step.acknowledge) == 1:
            step.acknowledge[0].ack()
        elif step.acknowledge:
            self.acknowledge(step.acknowledge)
        for unused in step.requeue:
            unused.requeue()

    def pass_on(self, given: Sequence[Received]) -> list[Received]:  # noqa: ARG002
        """Acknowledge the one message that was given, and take the next that is held ahead; nothing if there is none.
        Never asks the store. Here nothing is held ahead.
        """
        return []

    def settle_now(self) -> None:
        """Settle whatever was only noted so far: nothing here. Raises LeaseLost, StoreError."""

    def end(self, unused: Sequence[Received]) -> None:
        """Give back what a plan has abandoned, and close."""
        try:
            with contextlib.suppress(Closed):  # the store was closed first: its leases have ended with it
                for received in unused:
                    received.requeue()
        finally:
            self.close()

    def acknowledge(self, batch: Sequence[Received]) -> None:
        """Acknowledge many in one commit. Raises LeaseLost if any was no longer ours (the others are done),
        StoreError.
        """
        keep = {channel: self._runtime.rules(channel).retention for channel in self.channels}
        if [received for received in batch if received.pending]:  # of each message: no frame for a generator
            for received in batch:
                received.ack()
            return
        try:
            if len(set(keep.values())) == 1 and RUN_BYTE not in [one.claim.id[6] for one in batch]:
                done = acknowledge(self._runtime, [received.claim for received in batch], keep[self.channels[0]])
            else:
                acks = [
                    Ack(received.claim, None, "", keep_of(received.claim.id, keep[received.claim.channel]))
                    for received in batch
                ]
                done = settle(self._runtime, acks)
        except StoreError as error:
            for received in batch:
                received.note_refused(received.make_ack(), error)
            raise
        for received in batch:
            received.settled = True
        for received, good in zip(batch, done, strict=True) if self._refused or not all(done) else ():
            if good:
                self._runtime.unsettled.settled(received.claim)
            elif not self.closed:
                self._runtime.unsettled.begun(received.claim)
        if all(done):
            return
        lost = [received.id for received, good in zip(batch, done, strict=True) if not good]
        raise LeaseLost(f"{len(lost)} of {len(batch)} leases had ended, the first on message {lost[0]}")

    def refused(self, received: Received) -> None:
        """`Taker`: the store has refused to settle it. What it takes after all is forgotten here by the next claim."""
        self._refused.add(received)
        self._runtime.unsettled.holders.add(self)

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
        pauses, free = self._runtime.pauses, None
        channels = pauses.unpaused(self.channels)
        if self._runtime.limits is not None:
            channels, free = self._runtime.limits.look_again(channels, self._consumer)
        due = self._runtime.storage.inbox.next_due(channels)
        limits += [moment - now for moment in (due, free, pauses.next_end(self.channels)) if moment is not None]
        if self._others:
            limits.append(self._next_reap - now)
        return max(0.0, min(limits))

    def _care(self) -> bool:
        """Now and then free what dead consumers held, and end what expired; whether the former was done."""
        now = self._runtime.clock.now()
        due = now >= self._next_reap
        if due:
            self._reap(now)
        if now >= self._next_sweep:
            self._runtime.storage.inbox.sweep()
            self._next_sweep = now + SWEEP_EVERY
        return due

    def _reap(self, now: float) -> bool:
        """Free what dead consumers held; whether there was anything."""
        freed, self._others = self._runtime.storage.inbox.reap(self._runtime.attempts)
        for channel in freed:
            self._runtime.notifier.notify(topics.inbox(channel))
        self._next_reap = now + REAP_EVERY
        return bool(freed)

    def close(self) -> None:
        """Give up all leases, their attempts not counted, but for those whose settlement the store had refused; safe
        twice. Where it refuses that again, it is as if its process had died. Raises StoreError.
        """
        if self.closed:
            return
        self.closed = True
        self._subscription.close()
        try:
            with contextlib.suppress(Closed):
                self._leave()
        finally:
            self._refused.clear()
            self._runtime.unsettled.holders.discard(self)
            if self._runtime.limits is not None:
                self._runtime.limits.retired(self._consumer)
            for channel in self.channels:
                self._runtime.notifier.notify(topics.inbox(channel))

    def _leave(self) -> None:
        inbox = self._runtime.storage.inbox
        try:
            for received in [one for one in self._refused if not one.settled]:
                received.keeper = None  # what is noted on its line is nothing: it is begun, and ends here
                received.requeue()
        except Closed:
            raise
        except BaseException as error:
            # What was begun must count, and would not if it were retired a moment later: whoever reaps counts it.
            (inbox.consumers.release if inbox.sheets is None else inbox.sheets.abandon)(self._consumer)
            if not isinstance(error, StoreError):
                raise
            # Who works was told when it was refused first.
            self._runtime.log.warning("what was begun is given back later, its attempt counted: %s", error)
        else:
            inbox.retire(self._consumer)


def make_plan(
    size: int,
    limit: int | None,
    wait: Duration | None,
    timeout: Duration | None,
    *,
    batches: bool = False,
) -> ReceivePlan[Received]:
    """The plan for the arguments of a receiving loop, with ``batches`` or one message at a time. Raises UsageError."""
    return ReceivePlan(
        size=size,
        batches=batches,
        limit=limit,
        wait=as_seconds(wait, "wait"),
        timeout=as_seconds(timeout, "timeout"),
        name="size" if batches else "prefetch",
    )


def receive(
    connect: Callable[[], Consumer], plan: ReceivePlan[Received], clock: Callable[[], float] = time.monotonic
) -> Generator[list[Received], None, None]:
    """Carry out a plan with a consumer of its own; yields what goes to the loop body.

    The twin of `async_receive.receive`. Raises LeaseLost, StoreError.
    """
    consumer = connect()
    try:
        while not isinstance(step := plan.next(clock()), End):
            if isinstance(step, Give):
                given = step.messages
                yield given
                while plan.goes_on(clock()) and (given := consumer.pass_on(given)):
                    plan.followed(given)
                    yield given
            elif isinstance(step, Settle):
                consumer.settle(step)
            elif isinstance(step, Claim):
                plan.claimed(consumer.look(step))
            else:
                consumer.wait(step.seconds)
        consumer.settle_now()
    finally:
        consumer.end(plan.abandon())


def receive_each(connect: Callable[[], Consumer], plan: ReceivePlan[Received]) -> Generator[Received, None, None]:
    """`receive` of a plan that gives one message at a time."""
    with contextlib.closing(receive(connect, plan)) as given:
        for (received,) in given:
            yield received
