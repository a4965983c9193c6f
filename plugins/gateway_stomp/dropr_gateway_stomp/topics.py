"""Topics inside of one gateway process: what is published goes to those who listen now.

Owns who listens to what, and the bounded queue of each. Nothing here is durable. Must not know frames or connections.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Mapping
from typing import TypeAlias

import attrs

from dropr_core.contracts.gateway import Held


@attrs.frozen
class Published:
    """A message on a topic."""

    id: str
    headers: Mapping[str, str]
    """As a message of a queue would have them."""
    content_type: str
    body: bytes = attrs.field(repr=False)
    rank: int
    at: float
    """Seconds since the epoch."""


Ticket: TypeAlias = Held | Published
"""What was delivered: a leased message of a queue, or one of a topic."""


class Listener:
    """One subscription's queue."""

    def __init__(self, most: int, news: asyncio.Event) -> None:
        """``most``: bytes that may wait; ``news`` is set when something comes."""
        self.behind = False
        """More came than it may keep: it must be ended, for something is missing from now on."""
        self._most, self._news, self._bytes = most, news, 0
        self._queue: deque[Published] = deque()

    def give(self, message: Published) -> None:
        """Never waits: one slow listener delays nobody."""
        if self._queue and self._bytes + len(message.body) > self._most:
            self.behind = True
        else:
            self._queue.append(message)
            self._bytes += len(message.body) + _EMPTY
        self._news.set()

    def take(self, most: int) -> list[Published]:
        """Up to so many, the oldest first."""
        taken = [self._queue.popleft() for _ in range(min(most, len(self._queue)))]
        self._bytes -= sum(len(one.body) + _EMPTY for one in taken)
        return taken


_EMPTY = 1000
"""Bytes that a message without a body is counted with."""


class Topics:
    """Of one process."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[Listener]] = {}

    def listen(self, topic: str, most: int, news: asyncio.Event) -> Listener:
        """From now on everything that is published on it; see `Listener` for the arguments."""
        listener = Listener(most, news)
        self._listeners.setdefault(topic, set()).add(listener)
        return listener

    def leave(self, topic: str, listener: Listener) -> None:
        """No more of it. Safe twice."""
        others = self._listeners.get(topic)
        if others is not None:
            others.discard(listener)
            if not others:
                del self._listeners[topic]

    def publish(self, topic: str, message: Published) -> int:
        """To all who listen; returns how many."""
        listeners = self._listeners.get(topic, ())
        for one in listeners:
            one.give(message)
        return len(listeners)


def new_id() -> str:
    """A message id of a topic."""
    return secrets.token_hex(16)
