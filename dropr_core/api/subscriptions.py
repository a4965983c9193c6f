"""Topics: who gets a copy of what is published.

Owns the file ``topics.json`` of the data directory (docs/formats/topics.md), the names of a topic's channels, and what
an application does with topics: publish, subscribe, unsubscribe. How copies are made is in delivery/fan_out.py. Must
not know how a message travels.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import attrs

from dropr_core.api.runtime import Runtime
from dropr_core.api.sender import Sender
from dropr_core.errors import UsageError
from dropr_core.model import topics
from dropr_core.model.limits import shorten
from dropr_core.model.names import check_channel, id_of_key, is_channel
from dropr_core.system.shared_document import Form

NAME = "topics.json"
VERSION = 1
REQUESTS = "dropr/topics"
"""The channel on which other nodes ask for a subscription, or end one."""
ADVICE = (
    "it says who subscribes to which topic; remove it and subscribe again ('dropr subscribe'), on other nodes too: "
    "what is published until then is not copied for them"
)
_OVERFLOW, _OVERFLOW_TO = "dropr/overflow", "dropr/overflow-to"
_NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,64}")
PAGE = 500


@attrs.frozen(order=True)
class Subscription:
    """One queue that gets a copy of each message of a topic."""

    topic: str
    name: str
    peer: str = ""
    """The node whose queue it is; empty: this one."""

    @property
    def channel(self) -> str:
        """The queue, on the node of the subscriber."""
        return channel_of(self.topic, self.name)

    @property
    def overflow(self) -> str:
        """The queue, on this node, of copies for which there was no room."""
        parts = [_OVERFLOW_TO, self.peer] if self.peer else [_OVERFLOW]
        channel = "/".join([*parts, self.topic, self.name])
        return channel if is_channel(channel) else f"{_OVERFLOW}/{id_of_key(self.peer, self.topic, self.name).hex()}"


def is_overflow(channel: str) -> bool:
    """Whether a channel has copies for which a subscription had no room."""
    return channel.startswith((_OVERFLOW + "/", _OVERFLOW_TO + "/"))


def channel_of(topic: str, name: str) -> str:
    """The channel of a subscription. Raises UsageError (BadName)."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"subscription {shorten(name)}: its name is 1 to 64 of the characters A-Z a-z 0-9 . _ - (and not . or ..)"
        )
    channel = check_channel(f"{topic}/{name}")
    if REQUESTS in (topic, channel) or is_overflow(f"{topic}/"):
        raise UsageError(f"{shorten(channel)} is for dropr's own use: give the topic or the subscription another name")
    return channel


class Subscriptions:
    """Those that this node has given, as every process sees them. Safe from many threads."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._file = runtime.documents.document(NAME, Form(_decode, _encode, set[Subscription], ADVICE))

    def all(self) -> list[Subscription]:
        """Every one, in order. Costs a look at a file's date. Raises StoreError."""
        return sorted(self._file.look())

    def of(self, topic: str) -> list[Subscription]:
        """Those of one topic."""
        return [one for one in self.all() if one.topic == topic]

    def topics(self) -> list[str]:
        """The topics of this node: those of its configuration, and those with a subscription."""
        return sorted({*self._runtime.config.topics, *(one.topic for one in self._file.look())})

    def add(self, one: Subscription) -> bool:
        """Durable; whether it is new. Raises StoreError."""
        if one in self._file.look():
            return False
        with self._file.changing() as kept:
            new = one not in kept
            kept.add(one)
        self._runtime.notifier.notify(topics.inbox(REQUESTS))
        return new

    def remove(self, one: Subscription) -> bool:
        """Durable; whether it was there. Raises StoreError."""
        with self._file.changing() as kept:
            was = one in kept
            kept.discard(one)
        self._runtime.notifier.notify(topics.inbox(REQUESTS))
        return was

    def is_sent(self, topic: str) -> bool:
        """Whether a topic is published where its channel leads (`to:`)."""
        channel = self._runtime.config.channels.get(topic)
        return channel is not None and bool(channel.to)

    def join(self, sender: Sender, topic: str, name: str, at: str | None) -> str:
        """What `Node.subscribe` promises; ``sender`` asks another node."""
        channel = channel_of(topic, name)
        if peer := self.publisher(topic, at):
            _ask(sender, peer, request("subscribe", topic, name))
        else:
            self.add(Subscription(topic, name))
        return channel

    def leave(self, sender: Sender, topic: str, name: str, at: str | None) -> int:
        """What `Node.unsubscribe` promises; ``sender`` tells another node."""
        channel = channel_of(topic, name)
        if peer := self.publisher(topic, at):
            _ask(sender, peer, request("unsubscribe", topic, name))
        else:
            mine = Subscription(topic, name)
            self.remove(mine)
            return self.discard(channel) + self.discard(mine.overflow)
        return self.discard(channel)

    def may_join(self, topic: str, peer: str) -> bool:
        """Whether the configuration lets a peer subscribe to a topic."""
        config = self._runtime.config.topics.get(topic)
        return config is not None and any(fnmatchcase(peer, pattern) for pattern in config.join)

    def publisher(self, topic: str, at: str | None) -> str:
        """The peer at which a topic is subscribed to; empty: this node. Raises UsageError (UnknownPeer)."""
        config = self._runtime.config
        if at is not None:
            return "" if at == config.node else config.resolve(at)[0]
        if topic in config.topics:
            return ""
        channel = config.channels.get(topic)
        peers = [peer for target in (channel.to if channel else ()) for peer in config.resolve(target)]
        return peers[0] if len(peers) == 1 else ""

    def discard(self, channel: str) -> int:
        """Acknowledge all that waits in a channel: nobody is there to get it. Returns how many. Raises StoreError."""
        inbox, gone = self._runtime.inbox, 0
        consumer = inbox.register("topics")
        try:
            while claims := inbox.claim([channel], PAGE, consumer):
                gone += sum(inbox.acknowledge(claims))
        finally:
            inbox.retire(consumer)
        return gone


def _ask(sender: Sender, peer: str, wish: bytes) -> None:
    sender.send(wish, {"to": peer, "channel": REQUESTS, "receipt": True}, 0.0)


def request(verb: str, topic: str, name: str) -> bytes:
    """What a node that subscribes elsewhere sends there."""
    return json.dumps({"version": VERSION, "verb": verb, "topic": topic, "name": name}).encode()


def read_request(body: bytes) -> tuple[str, str, str]:
    """Verb (subscribe, unsubscribe), topic and name. Raises ValueError."""
    try:
        found: Mapping[str, Any] = json.loads(body)
        verb, topic, name = (str(found[key]) for key in ("verb", "topic", "name"))
        known = found["version"] == VERSION and verb in {"subscribe", "unsubscribe"}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"no request about a topic: {error}") from None
    if not known:
        raise ValueError(f"version {found['version']!r}, verb {verb!r}: made by a newer dropr")
    channel_of(topic, name)
    return verb, topic, name


def _encode(kept: Iterable[Subscription]) -> object:
    return {"version": VERSION, "subscriptions": [attrs.asdict(one) for one in sorted(kept)]}


def _decode(document: Any) -> set[Subscription]:
    if document["version"] != VERSION:
        raise ValueError(f"version {document['version']!r}")
    found: Sequence[Mapping[str, str]] = document["subscriptions"]
    return {Subscription(str(one["topic"]), str(one["name"]), str(one["peer"])) for one in found}


__all__ = ["REQUESTS", "Subscription", "Subscriptions", "channel_of", "is_overflow", "read_request", "request"]
