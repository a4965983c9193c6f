"""Where copies wait for which their subscription has no room, so that its topic goes on for all others.

Owns which subscriptions are behind: those whose overflow queue, a channel of this node, holds anything. From the first
copy that finds no room all that is copied for such a subscription goes into its overflow queue, until that one is empty
again; so its order stays. What waits there is copied on like what is published (`fan_out.py`). Must not know how copies
are made.

Every batch of copies moves one head of the inbox (`copy_log.py`). So who made the last batch knows who is behind, and
who finds another head than its own looks into the store.
"""

from collections.abc import Iterable, Mapping, Sequence

import attrs

from dropr_core.api.runtime import Runtime
from dropr_core.api.subscriptions import Subscription, Subscriptions, is_overflow
from dropr_core.contracts.storage import Job
from dropr_core.errors import QueueFull
from dropr_core.model.message import State
from dropr_core.model.names import Head
from dropr_core.storage_kit.limits import check_limit

WAITING = [state.value for state in (State.READY, State.DELAYED, State.BLOCKED, State.LEASED, State.BURIED)]
"""What is still in a queue, if only as a dead letter: who revives that one finds its subscription behind."""


@attrs.frozen
class Target:
    """Where a copy goes."""

    subscription: Subscription
    late: bool
    """Whether it waits in the overflow queue."""


class Overflow:
    """Of one node; for one thread."""

    def __init__(self, runtime: Runtime, subscriptions: Subscriptions) -> None:
        self._runtime, self._subscriptions = runtime, subscriptions
        self._head: Head | None = None
        self._behind: set[str] = set()
        self._begun: set[str] = set()
        """Of these, what nothing was put into so far."""

    @property
    def channels(self) -> list[str]:
        """The overflow queues that may hold something."""
        return sorted(self._behind)

    def look(self, head: Head | None = None) -> None:
        """Know who is behind, as of the last batch of copies, ``head``; None: look in any case. Raises StoreError."""
        if head is None or head != self._head:
            counts = self._runtime.storage.inbox.counts()
            self._behind = self._begun | {name for name in counts if is_overflow(name) and _waiting(counts[name])}
            self._head = head

    def copied(self, head: Head) -> None:
        """A batch was copied by this one, and moved the head to this."""
        self._head = head
        self._begun.clear()

    def targets(self, channel: str) -> list[Target]:
        """Where a message goes that is published on a topic, or waits in an overflow queue."""
        if is_overflow(channel):
            return [Target(one, late=False) for one in self._subscriptions.all() if one.overflow == channel]
        return [Target(one, one.overflow in self._behind) for one in self._subscriptions.of(channel)]

    def begin(self, topic: str, full: QueueFull) -> list[Subscription]:
        """A copy of what is published found no room: those that caused it are behind from now on. Gives them: none, if
        it was another limit than that of a subscription.
        """
        kind, name = full.queue or ("", "")
        here = [] if is_overflow(topic) else [one.subscription for one in self.targets(topic) if not one.late]
        found = [one for one in here if (kind, name) in {("channel", one.channel), ("peer", one.peer)}]
        self._begun.update(one.overflow for one in found)
        self._behind |= self._begun
        return found

    def check_room(self, topic: str, jobs: Sequence[Job], channel: str) -> None:
        """Raise QueueFull if these would not fit into an overflow queue: it may hold as much as its topic."""
        rules = self._runtime.config.channels.get(topic)
        limit = (rules.max_messages, rules.max_bytes) if rules else (None, None)
        if limit == (None, None):
            return
        counts = self._runtime.storage.inbox.counts().get(channel, {})
        kept = (_waiting(counts), counts.get("bytes", 0))
        more = (len(jobs), sum(len(job.envelope) for job in jobs))
        check_limit(("channel", channel), f"channel {channel}, with the limit of {topic}", limit, kept, more)

    def drained(self, channels: Iterable[str]) -> None:
        """All that was taken from these is copied and acknowledged: who has nothing left is not behind any more."""
        if mine := self._behind.intersection(channels):
            counts = self._runtime.storage.inbox.counts()
            self._behind.difference_update(name for name in mine if not _waiting(counts.get(name, {})))


def _waiting(counts: Mapping[str, int]) -> int:
    return sum(counts.get(state, 0) for state in WAITING)


__all__ = ["Overflow", "Target"]
