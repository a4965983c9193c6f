"""ReplayGuard of the answering side: who said hello, and which of its requests were seen before.

Owns replay protection. A request is good once per session, and a session lives no longer than this
object: what was recorded yesterday is refused today (docs/what-survives-what.md, fault 89).
Must not know verbs or stores.
"""

import os
import threading
from collections import OrderedDict

import attrs

from dropr_core.errors import Refused
from dropr_core.protocol.frames import ReplayWindow

PER_PEER = 16
"""ReplayGuard kept for each peer: a daemon uses one; restarts and short commands use others."""


@attrs.define
class _Session:
    window: ReplayWindow = attrs.field(factory=ReplayWindow)


class ReplayGuard:
    """All sessions of one endpoint. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Two shelves: a replayed hello makes new sessions, and must not push out those in use.
        self._fresh: dict[str, OrderedDict[bytes, _Session]] = {}
        self._used: dict[str, OrderedDict[bytes, _Session]] = {}

    def open(self, peer: str) -> bytes:
        """A new session's token."""
        token = os.urandom(16)
        with self._lock:
            _shelve(self._fresh.setdefault(peer, OrderedDict()), token, _Session())
        return token

    def use(self, peer: str, token: bytes, counter: int) -> None:
        """Accept one request of a session, or raise Refused (``new_session`` or ``replayed``)."""
        with self._lock:
            used = self._used.setdefault(peer, OrderedDict())
            session = used.get(token)
            if session is None:
                session = self._fresh.get(peer, OrderedDict()).pop(token, None)
                if session is None:
                    raise Refused("new_session", "this session is not known here (any more): say hello again")
            _shelve(used, token, session)
            if not session.window.take(counter):
                raise Refused("replayed", "this request was seen before")


def _shelve(shelf: "OrderedDict[bytes, _Session]", token: bytes, session: _Session) -> None:
    shelf[token] = session
    shelf.move_to_end(token)
    while len(shelf) > PER_PEER:
        shelf.popitem(last=False)
