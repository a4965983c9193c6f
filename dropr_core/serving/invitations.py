"""The invitations of a node: one small document for each (``invitations/<id in hex>.json``).

Owns what is kept of a token (its id, its join key, for whom, until when, by whom it was used) and the lock under which
that changes. Must not know the network, nor the configuration.
"""

import contextlib
import time
from contextlib import AbstractContextManager
from functools import partial
from pathlib import PurePath
from typing import Any

import attrs

from dropr_core.errors import ConfigError, StoreError
from dropr_core.protocol.invitation import Invitation, join_key
from dropr_core.system.shared_document import Documents, Form, SharedDocument

FOLDER = "invitations"
REMEMBERED = 86400.0
"""Seconds for which one that ended is still known, so that whoever comes late is told what happened."""
ADVICE = "remove it, and invite again"
MOST = 1000
"""Invitations that may stand open at once."""


@attrs.frozen
class Record:
    """What is kept of one."""

    id: bytes
    name: str
    """Who is invited."""
    key: bytes = attrs.field(repr=False)
    """The join key: a digest of the token's secret, from which the token cannot be made again."""
    expires: float
    """Wall time, seconds since the epoch."""
    may_write: tuple[str, ...] | None = None
    """What the new peer may write to; None: everything."""
    nonce: bytes = attrs.field(default=b"", repr=False)
    """That of the node which used it; empty: it is still open."""

    def state(self, now: float) -> str:
        """``open``, ``used`` or ``expired``."""
        return "used" if self.nonce else "expired" if now >= self.expires else "open"


class Invitations:
    """Those of one node. Safe for many threads, processes and machines."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def add(self, invitation: Invitation, lifetime: float, may_write: tuple[str, ...] | None) -> Record:
        """Keep a new one for ``lifetime`` seconds. Raises StoreError, ConfigError if there are too many."""
        record = Record(invitation.id, invitation.name, join_key(invitation.secret), time.time() + lifetime, may_write)
        with self.locked():
            self._forget_old()
            if len(self._ids()) >= MOST:
                raise ConfigError([f"{MOST} invitations are open already; `dropr invite --revoke NAME` ends one"])
            self.keep(record)
        return record

    def keep(self, record: Record) -> None:
        """Write one down, durably. Raises StoreError."""
        self._document(record.id).write(record)

    def find(self, identity: bytes) -> Record | None:
        """The one of this id, if it is known: still open, or ended not long ago."""
        try:
            record = self._document(identity).look()
        except StoreError:
            return None
        return record if record is not None and time.time() < record.expires + REMEMBERED else None

    def all(self) -> list[Record]:
        """All that are known, the one that ends first first. Raises StoreError."""
        found = [record for identity in self._ids() if (record := self.find(identity))]
        return sorted(found, key=lambda record: (record.expires, record.id))

    def revoke(self, name: str) -> int:
        """Forget the open ones for ``name``; how many. Raises StoreError."""
        if not self._ids():
            return 0
        with self.locked():
            mine = [record for record in self.all() if record.name == name and not record.nonce]
            for record in mine:
                self._document(record.id).remove()
        return len(mine)

    def locked(self) -> AbstractContextManager[None]:
        """Nobody else changes one meanwhile. Held for the time of a few small writes. Raises StoreError."""
        return self._documents.turn(f"{FOLDER}/lock")

    def _forget_old(self) -> None:
        for identity in self._ids():
            if self.find(identity) is None:
                with contextlib.suppress(StoreError):
                    self._document(identity).remove()

    def _ids(self) -> list[bytes]:
        found = []
        for name in self._documents.names(f"{FOLDER}/"):
            with contextlib.suppress(ValueError):
                found.append(bytes.fromhex(PurePath(name).stem))
        return found

    def _document(self, identity: bytes) -> SharedDocument[Record | None]:
        form: Form[Record | None] = Form(partial(_decode, identity), _encode, lambda: None, ADVICE)
        return self._documents.document(f"{FOLDER}/{identity.hex()}.json", form)


def _encode(record: Record | None) -> object:
    assert record is not None
    return {
        "name": record.name,
        "key": record.key.hex(),
        "expires": record.expires,
        "may_write": None if record.may_write is None else list(record.may_write),
        "nonce": record.nonce.hex(),
    }


def _decode(identity: bytes, kept: Any) -> Record:
    may_write = kept["may_write"]
    return Record(
        identity, str(kept["name"]), bytes.fromhex(kept["key"]), float(kept["expires"]),
        None if may_write is None else tuple(may_write), bytes.fromhex(kept["nonce"]),
    )  # fmt: skip
