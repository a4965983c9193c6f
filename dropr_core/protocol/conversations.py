"""The tokens by which a peer goes on with a conversation that it began with hello, at whichever server of the node.

Owns what a token says, how long it is good, and the fences against replays (decisions/0057): a token is signed with a
secret of the node, so no server has to remember that it gave one; what must be known of a conversation besides stands
in `Begun`. Must not know verbs, stores or where the secret is kept.

    1        8          8             16
    ┌──────┬──────────┬─────────────┬───────────────┐
    │ kind │ ends, ms │ random      │ HMAC-SHA256   │   the HMAC also covers both names and both store ids
    └──────┴──────────┴─────────────┴───────────────┘
"""

import hmac
import os
import struct
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

import attrs

from dropr_core.errors import Refused, StoreError
from dropr_core.protocol.digests import hmac_sha256
from dropr_core.protocol.frames import ReplayWindow

LIFE = 3600.0
"""Seconds for which a token is good; then the peer says hello again."""

AHEAD = 60.0
"""Seconds that the clocks of two servers may differ."""

PER_PEER = 16
"""Windows kept for each peer: a daemon uses one; restarts and short commands use others."""

_KIND = 1
_FIELDS = struct.Struct(">BQ8s")
_MAC = 16
UNKNOWN = "this conversation is not known here (any more): say hello again"


@attrs.frozen
class Conversation:
    """What a peer began with one hello. A later one of the same peer has a greater ``ends``."""

    ends: int
    """Milliseconds, by the clock of the node's servers."""
    identity: bytes


@attrs.frozen
class _Verified:
    """A token that is good, by what it was found to be."""

    token: bytes
    secret: bytes = attrs.field(repr=False)
    inbox: bytes
    outbox: bytes
    says: Conversation


class Begun(Protocol):
    """Which conversation of each peer has begun to fetch: known to all servers of the node. Safe from many threads."""

    def newest(self, peer: str) -> Conversation | None:
        """The newest one; None: none yet. Raises StoreError."""
        ...

    def note(self, peer: str, conversation: Conversation) -> None:
        """It has, unless a later one has. Raises StoreError."""
        ...


class BegunInMemory:
    """For an endpoint that is the only server of its node, and whose peers may begin anew after its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[str, Conversation] = {}

    def newest(self, peer: str) -> Conversation | None:
        """See `Begun`."""
        return self._newest.get(peer)

    def note(self, peer: str, conversation: Conversation) -> None:
        """See `Begun`."""
        with self._lock:
            known = self._newest.get(peer)
            if known is None or known.ends < conversation.ends:
                self._newest[peer] = conversation


@attrs.frozen
class NodeSecret:
    """What tokens are signed with, and by which clock they end: the same for all servers of a node."""

    read: Callable[[], bytes] = attrs.field(repr=False)
    """The secret, as it is now or was a few seconds ago. Raises StoreError."""
    now: Callable[[], float]
    """Seconds."""

    @classmethod
    def of_this_process(cls, now: Callable[[], float]) -> "NodeSecret":
        """A new one that no other process knows, for an endpoint that is the only server of its node."""
        secret = os.urandom(32)
        return cls(lambda: secret, now)


class Conversations:
    """Tokens of one endpoint. Safe from many threads."""

    def __init__(
        self, node: str, secret: NodeSecret, inbox: Callable[[], bytes], outbox: Callable[[], bytes], begun: Begun
    ) -> None:
        """``inbox``, ``outbox``: the ids of both halves of the store; when one of them changes, no token is good any
        more.
        """
        self._node, self._secret, self._begun = node, secret, begun
        self._inbox, self._outbox = inbox, outbox
        self._lock = threading.Lock()
        # Two shelves: replays of requests of old conversations must not push out those in use.
        self._fresh: dict[str, OrderedDict[bytes, ReplayWindow]] = {}
        self._used: dict[str, OrderedDict[bytes, ReplayWindow]] = {}
        self._last = 0
        self._good: dict[str, _Verified] = {}
        """Of each peer the token that was verified last."""
        self._fetching: dict[str, Conversation] = {}
        """Of each peer the conversation that is known here to have begun to fetch: nobody looks it up again."""

    def open(self, peer: str) -> bytes:
        """A new token for a peer that said hello. Raises StoreError."""
        with self._lock:
            self._last = ends = max(self._last + 1, int((self._secret.now() + LIFE) * 1000))
        fields = _FIELDS.pack(_KIND, ends, os.urandom(8))
        return fields + self._sign(fields, peer, self._secret.read(), self._inbox() + self._outbox())

    def use(self, peer: str, token: bytes, counter: int, *, pushes: bool = False) -> Conversation:
        """Accept one request of a conversation. ``pushes``: it has nothing to do with the outbox, and is good for as
        long as the inbox is the same. Raises Refused (``new_session``, ``replayed``), StoreError.
        """
        conversation = self._read(peer, token, pushes=pushes)
        with self._lock:
            used = self._used.setdefault(peer, OrderedDict())
            fresh = self._fresh.setdefault(peer, OrderedDict())
            window = used.get(token)
            if window is not None:
                used.move_to_end(token)
            elif (window := fresh.pop(token, None)) is not None:
                _shelve(used, token, window)  # asked twice: it is in use
            else:
                window = ReplayWindow()
                _shelve(fresh, token, window)
            if not window.take(counter):
                raise Refused("replayed", "this request was seen before")
        return conversation

    def begins_to_fetch(self, peer: str, conversation: Conversation) -> bool:
        """Whether this is, for all servers of the node, a conversation that has not fetched yet, and no older one than
        the one that did: what the peer has may be less than before. Raises StoreError.
        """
        known = self._fetching.get(peer)
        if known is None or known.ends < conversation.ends:
            known = self._begun.newest(peer)
            if known is not None:
                self._fetching[peer] = known
        return known is None or known.ends < conversation.ends

    def note_fetching(self, peer: str, conversation: Conversation) -> None:
        """It has fetched now. A store that cannot note it leaves that to the memory of this server."""
        self._fetching[peer] = conversation
        try:
            self._begun.note(peer, conversation)
        except StoreError:  # full, say: the peer shall get its mail all the same
            return

    def _read(self, peer: str, token: bytes, *, pushes: bool) -> Conversation:
        secret, inbox, last = self._secret.read(), self._inbox(), self._good.get(peer)
        if (
            last is None or (last.token, last.secret, last.inbox) != (token, secret, inbox)
            or (not pushes and last.outbox != self._outbox())
        ):  # fmt: skip
            last = self._good[peer] = self._verified(peer, token, secret, inbox)
        if 0 < last.says.ends / 1000 - self._secret.now() <= LIFE + AHEAD:
            return last.says
        raise Refused("new_session", UNKNOWN)

    def _verified(self, peer: str, token: bytes, secret: bytes, inbox: bytes) -> "_Verified":
        if len(token) == _FIELDS.size + _MAC and token[0] == _KIND:
            fields, mac, outbox = token[: _FIELDS.size], token[_FIELDS.size :], self._outbox()
            if hmac.compare_digest(self._sign(fields, peer, secret, inbox + outbox), mac):
                _kind, ends, identity = _FIELDS.unpack(fields)
                return _Verified(token, secret, inbox, outbox, Conversation(ends, identity))
        raise Refused("new_session", UNKNOWN)

    def _sign(self, fields: bytes, peer: str, secret: bytes, stores: bytes) -> bytes:
        names = b"\0".join((self._node.encode(), peer.encode()))
        return hmac_sha256(secret, b"dropr-conversation\0" + fields + stores + names)[:_MAC]


def _shelve(shelf: "OrderedDict[bytes, ReplayWindow]", token: bytes, window: ReplayWindow) -> None:
    shelf[token] = window
    while len(shelf) > PER_PEER:
        shelf.popitem(last=False)


__all__ = ["LIFE", "Begun", "BegunInMemory", "Conversation", "Conversations", "NodeSecret"]
