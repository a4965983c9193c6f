"""What a receiving loop does next: decided here, carried out by the iterators of `Node` and `AsyncNode`.

Owns limits, deadlines and leases that were taken and not used. Does no I/O, reads no clock and knows no consumer:
it is told the time and what was claimed, and says what to do. How to drive it:

    while not isinstance(step := plan.next(now), End):
        carry the step out; after a `Claim` tell `plan.claimed` what it brought

Asking for the next step says that the last one was carried out: after `Give`, that the loop body has ended normally.
Whoever stops before `End`, for whatever reason, gives back what `abandon` names.
"""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeAlias, TypeVar

import msgspec

from dropr_core.errors import UsageError


class Leased(Protocol):
    """What the plan must know of a message: whether the loop body has settled it by itself."""

    @property
    def settled(self) -> bool:
        """Whether nothing is left to be said about it."""


Message = TypeVar("Message", bound=Leased)


# Structs, because some are made for each message.
class Claim(msgspec.Struct, frozen=True, gc=False):
    """Lease up to ``limit`` messages without waiting."""

    limit: int
    prepared: bool
    """First ask to be notified: nothing was there a moment ago, and a wait follows if there still is nothing."""


class Wait(msgspec.Struct, frozen=True, gc=False):
    """Sleep until there may be something to claim, at most ``seconds`` (None: without an end)."""

    seconds: float | None


class Give(msgspec.Struct, Generic[Message], frozen=True):
    """Hand these to the loop body: one, or a batch."""

    messages: list[Message]


class Settle(msgspec.Struct, Generic[Message], frozen=True):
    """Acknowledge what the body has done; give back, not counted, what will not be used."""

    acknowledge: list[Message]
    requeue: list[Message]


class End(msgspec.Struct, frozen=True, gc=False):
    """Nothing more; everything that was leased is settled."""


Step: TypeAlias = Claim | Wait | Give[Message] | Settle[Message] | End


class ReceivePlan(Generic[Message]):
    """One receiving loop. Times are seconds of any clock that only goes forward, the same at every call."""

    def __init__(
        self,
        *,
        size: int,
        batches: bool = False,
        limit: int | None = None,
        wait: float | None = None,
        timeout: float | None = None,
        name: str = "size",
    ) -> None:
        """``size``: lease so many at once; with ``batches`` they are given to the body together, else one by one.
        ``limit``: end after so many messages. ``wait``: end after so many seconds without one. ``timeout``: end after
        so many seconds in all: nothing more is claimed or given then, but for what is ready at the start.
        ``name``: what the caller calls ``size``. Raises UsageError.
        """
        self._size = _count(size, name, least=1)
        self._left = None if limit is None else _count(limit, "limit", least=0)
        self._batches, self._wait, self._timeout = batches, wait, timeout
        self._ends: float | None = None
        self._deadline: float | None = None
        """Of the wait for the next message."""
        self._started = self._gave = self._over = False
        self._looks = 0
        """Since the last message or wait: how often nothing was found."""
        self._held: list[Message] = []
        """Leased and not given yet, the next one last."""
        self._given: list[Message] = []
        """In the hands of the body."""
        self._done: list[Message] = []
        """To be acknowledged by the `Settle` that is under way."""

    def next(self, now: float) -> Step[Message]:
        """What to do now. The first call begins to count ``wait`` and ``timeout``."""
        if not self._started:
            self._started = True
            self._ends = None if self._timeout is None else now + self._timeout
            self._look_anew(now)
        self._done = []
        if self._over:
            self._held.clear()  # a `Settle` before this named them
            return End()
        done = self._done = self._after_body(now) if self._given else []
        # What is ready at the start is given however short the time is.
        self._over = self._left == 0 or (self._gave and self._ends is not None and now >= self._ends)
        unused = self._held[::-1] if self._over else []
        if done or unused:
            return Settle(done, unused)
        if self._over:
            return End()
        if self._held:
            return self._give()
        return self._look(now)

    def _after_body(self, now: float) -> list[Message]:
        given, self._given = self._given, []
        if self._left is not None:
            self._left -= len(given)
        if not self._held:
            self._look_anew(now)
        return [message for message in given if not message.settled]

    def _give(self) -> Give[Message]:
        if self._batches:
            self._given, self._held = self._held[::-1], []
        else:
            self._given = [self._held.pop()]
        self._gave = True
        return Give(self._given)

    def _look_anew(self, now: float) -> None:
        pause = None if self._wait is None else now + self._wait
        self._deadline = min((moment for moment in (self._ends, pause) if moment is not None), default=None)
        self._looks = 0

    def _look(self, now: float) -> Claim | Wait | End:
        left = None if self._deadline is None else max(0.0, self._deadline - now)
        if self._looks and left == 0.0:
            self._over = True
            return End()
        if self._looks == 2:
            self._looks = 0
            return Wait(left)
        return Claim(self._size if self._left is None else min(self._size, self._left), prepared=self._looks == 1)

    def goes_on(self, now: float) -> bool:
        """After a `Give` of one message: whether its end is followed by nothing but an acknowledgement and the next
        message, if there is one. Who has both at hand may carry them out, and tells `followed`, without asking `next`.
        """
        return (
            not self._batches
            and not self._held
            and (self._left is None or self._left > 1)
            and (self._ends is None or now < self._ends)
        )

    def followed(self, messages: list[Message]) -> None:
        """The message at hand was acknowledged, or settled by the body; this one was given next."""
        if self._left is not None:
            self._left -= 1
        self._given = messages

    def claimed(self, messages: Sequence[Message]) -> None:
        """What the last `Claim` brought."""
        self._held = list(messages[::-1])
        self._looks += 1

    def abandon(self) -> list[Message]:
        """Whoever does not go on gives these back; nothing after an end. What a failed `Settle` named is among them."""
        unsettled = [message for message in [*self._done, *self._given] if not message.settled] + self._held[::-1]
        self._done, self._given, self._held, self._over = [], [], [], True
        return unsettled


def _count(value: object, name: str, *, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name} is {value!r}: give a whole number of at least {least}")
    return value
