"""What a desk only reads, and what it does to messages that nobody holds. For the threads of the hub.

Owns how the questions of dialects are asked of a storage. Must not know connections or the event loop.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from dropr_core.api.runtime import Runtime
from dropr_core.contracts.gateway import Counts, Seen
from dropr_core.contracts.storage import Ack, Claim, Inbox, JobInfo, JobMove, Selection
from dropr_core.errors import StoreCorrupt
from dropr_core.gateway.held import rank_of
from dropr_core.gateway.placing import MAX_OUTSIDE
from dropr_core.model import envelope, topics
from dropr_core.model.message import State
from dropr_core.model.names import MessageId, format_id

WAITING = frozenset({State.READY, State.DELAYED, State.BLOCKED, State.LEASED})
LIVE = frozenset({State.READY, State.DELAYED, State.BLOCKED, State.LEASED, State.BURIED})


class Looking:
    """Reads of one node."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self._inbox, self._outbox = runtime, runtime.storage.inbox, runtime.storage.outbox

    def find(self, number: int, *, large: bool = False) -> Seen | None:
        """A message by its number. ``large``: a body that is a file is not read."""
        return self.seen(find(self._inbox, number), large=large)

    def find_id(self, identity: MessageId, *, large: bool = False) -> Seen | None:
        """A message by its id."""
        return self.seen(self._inbox.status(identity), large=large)

    def peek(self, channel: str, state: State, *, large: bool = False) -> Seen | None:
        """The next one in a state."""
        return self.seen(self._inbox.peek(channel, state), large=large)

    def browse(self, channel: str, after: int, limit: int) -> list[Seen]:
        """A page of what lives in a channel, but for the buried, by number."""
        while page := self._inbox.scan(Selection(states=WAITING, channel=channel), after, limit):
            found = [seen for info in page if (seen := self.seen(info, large=True)) is not None]
            if found:  # else all of the page have gone meanwhile
                return found
            after = page[-1].number
        return []

    def seen(self, info: JobInfo | None, *, large: bool = False) -> Seen | None:
        """A message as a dialect sees it; None too if it has gone meanwhile."""
        if info is None or info.state not in LIVE:
            return None
        data = self._inbox.envelope(info.id)
        if data is None:
            return None
        message = envelope.header_of(data)
        reference = envelope.reference_of(data)
        if reference is None or large:
            body = envelope.body_of(data) if reference is None else b""
        else:
            try:
                with self._runtime.bodies.open_received(info.sender, info.id, reference) as file:
                    body = file.read()
            except (StoreCorrupt, OSError):
                return None
        return Seen(
            id=format_id(info.id), number=info.number, channel=info.channel, state=info.state, body=body,
            headers=message.headers, content_type=message.content_type, rank=rank_of(info.rank, info.priority),
            attempts=info.attempts, age=info.age, due_in=info.due_in, ends_in=None, sender=info.sender,
            reason=info.reason, size=envelope.body_size(data),
        )  # fmt: skip

    def counts(self) -> dict[str, Counts]:
        """Every channel of the configuration, and those that hold messages."""
        inbox, oldest, urgent = self._inbox.counts(), self._inbox.oldest(), self._inbox.urgent()
        outgoing: dict[str, int] = {}
        for (_, channel), states in self._outbox.counts().items():
            outgoing[channel] = outgoing.get(channel, 0) + states.get("queued", 0)
        now, pauses = self._runtime.clock.now(), self._runtime.pauses.now()
        rests = {name: math.inf if one.until is None else one.until - now for name, one in pauses.items()}
        names = dict.fromkeys([*self._runtime.config.channels, *sorted({*inbox, *outgoing, *rests})])
        return {
            name: _counts(
                inbox.get(name, {}), oldest.get(name, 0.0), outgoing.get(name, 0), rests.get(name), urgent.get(name, 0)
            )
            for name in names
        }


class Meddling:
    """Changes of messages that no connection holds. For the store thread."""

    def __init__(self, runtime: Runtime, consumer: Callable[[], str]) -> None:
        self._runtime, self._inbox, self._consumer = runtime, runtime.storage.inbox, consumer

    def claim_number(self, number: int) -> Claim | None:
        """Lease one given message that waits or is buried."""
        return self._inbox.claim_number(number, self._consumer()) if is_ours(number) else None

    def reserve_number(self, number: int) -> Claim | None:
        """The same for somebody who works on it: None too while the limits of its channel let nobody have it."""
        limits = self._runtime.limits
        if limits is None:
            return self.claim_number(number)
        info = find(self._inbox, number)
        if info is None:
            return None

        def take(channels: Sequence[str], _: int) -> list[Claim]:
            claim = self.claim_number(number) if channels else None
            return [] if claim is None else [claim]

        return next(iter(limits.claim(take, [info.channel], 1, self._consumer(), ahead=False)), None)

    def leased(self, number: int) -> bool:
        """Whether somebody has it."""
        info = find(self._inbox, number)
        return info is not None and info.state is State.LEASED

    def delete(self, number: int) -> bool:
        """Remove one that nobody has leased."""
        info = find(self._inbox, number)
        if info is None or info.state not in LIVE - {State.LEASED}:
            return False
        if info.state is State.BLOCKED and not self._move(info, State.BURIED):
            return False
        if info.state in {State.BURIED, State.BLOCKED}:
            info = find(self._inbox, number)
            return info is not None and self._move(info, None)
        claim = self.claim_number(number)
        return claim is not None and self.drop(claim)

    def drop(self, claim: Claim) -> bool:
        """Acknowledge a claim that was only made for it."""
        done = self._inbox.settle([Ack(claim)])[0]
        if done and (large := envelope.reference_of(claim.envelope)):
            self._runtime.bodies.drop_received(claim.sender, claim.id, large)
        return done

    def kick(self, channel: str, bound: int) -> int:
        """Make up to so many buried ones ready; delayed ones if none is buried."""
        for state in (State.BURIED, State.DELAYED):
            found = self._inbox.scan(Selection(states=frozenset({state}), channel=channel), 0, max(0, bound))
            if found:
                moved = sum(self._inbox.move([JobMove(one, State.READY) for one in found]))
                self._runtime.notifier.notify(topics.inbox(channel))
                return moved
        return 0

    def kick_number(self, number: int) -> bool:
        """The same with one."""
        info = find(self._inbox, number)
        return info is not None and info.state in {State.BURIED, State.DELAYED} and self._move(info, State.READY)

    def purge(self, channel: str) -> int:
        """Remove what nobody has leased."""
        gone = self._inbox.wipe(Selection(states=frozenset({State.BURIED}), channel=channel))
        while claims := self._inbox.claim([channel], 1000, self._consumer()):
            gone += sum(self.drop(claim) for claim in claims)
        for state in (State.DELAYED, State.BLOCKED):
            for one in list(self._inbox.all(Selection(states=frozenset({state}), channel=channel))):
                gone += self.delete(one.number)
        return gone

    def _move(self, info: JobInfo, to: State | None) -> bool:
        moved = self._inbox.move([JobMove(info, to)])[0]
        if moved and to is State.READY:
            self._runtime.notifier.notify(topics.inbox(info.channel))
        return moved


def is_ours(number: int) -> bool:
    """Whether an inbox may have given that number."""
    return 0 < number < MAX_OUTSIDE


def find(inbox: Inbox, number: int) -> JobInfo | None:
    """The message with a number."""
    return inbox.find(number) if is_ours(number) else None


def _counts(states: Mapping[str, int], oldest: float, outgoing: int, paused: float | None, urgent: int) -> Counts:
    names = ("ready", "delayed", "blocked", "leased", "buried", "processed", "bytes")
    known = {name: states.get(name, 0) for name in names}
    oldest = oldest if math.isfinite(oldest) else 0.0
    return Counts(outgoing=outgoing, paused=paused, urgent=urgent, oldest=oldest, **known)
