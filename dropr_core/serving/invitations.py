"""The invitations of a node: one small file for each, in its data directory.

Owns what is kept of a token (its id, its join key, for whom, until when, by whom it was used) and the lock under which
that changes. Must not know the network, nor the configuration.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from dropr_core.errors import ConfigError
from dropr_core.protocol.invitation import Invitation, join_key
from dropr_core.system.files import replace_text, sync_directory
from dropr_core.system.ownership import make_private_directory, open_private

FOLDER = "invitations"
REMEMBERED = 86400.0
"""Seconds for which one that ended is still known, so that whoever comes late is told what happened."""
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
    """Those in one data directory. Safe for many threads and processes."""

    def __init__(self, data: Path) -> None:
        self.directory = data / FOLDER

    def add(self, invitation: Invitation, lifetime: float, may_write: tuple[str, ...] | None) -> Record:
        """Keep a new one for ``lifetime`` seconds. Raises OSError, ConfigError if there are too many."""
        record = Record(invitation.id, invitation.name, join_key(invitation.secret), time.time() + lifetime, may_write)
        with self.locked():
            self._forget_old()
            if len(list(self.directory.glob("*.json"))) >= MOST:
                raise ConfigError([f"{MOST} invitations are open already; `dropr invite --revoke NAME` ends one"])
            self.keep(record)
        return record

    def keep(self, record: Record) -> None:
        """Write one down, durably. Raises OSError."""
        document = {
            "name": record.name,
            "key": record.key.hex(),
            "expires": record.expires,
            "may_write": None if record.may_write is None else list(record.may_write),
            "nonce": record.nonce.hex(),
        }
        replace_text(self._path(record.id), json.dumps(document), durable=True)

    def find(self, identity: bytes) -> Record | None:
        """The one of this id, if it is known: still open, or ended not long ago."""
        try:
            record = _read(identity, self._path(identity))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if time.time() < record.expires + REMEMBERED else None

    def all(self) -> list[Record]:
        """All that are known, the one that ends first first."""
        found = []
        for path in self.directory.glob("*.json"):
            with contextlib.suppress(ValueError):
                if record := self.find(bytes.fromhex(path.stem)):
                    found.append(record)
        return sorted(found, key=lambda record: (record.expires, record.id))

    def revoke(self, name: str) -> int:
        """Forget the open ones for ``name``; how many. Raises OSError."""
        if not self.directory.is_dir():
            return 0
        with self.locked():
            mine = [record for record in self.all() if record.name == name and not record.nonce]
            for record in mine:
                self._path(record.id).unlink(missing_ok=True)
            if mine:
                sync_directory(self.directory)
        return len(mine)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else changes one meanwhile. Held for the time of a few small writes. Raises OSError."""
        make_private_directory(self.directory)
        fd = open_private(self.directory / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _forget_old(self) -> None:
        for path in self.directory.glob("*.json"):
            with contextlib.suppress(OSError, ValueError):
                if self.find(bytes.fromhex(path.stem)) is None:
                    path.unlink()

    def _path(self, identity: bytes) -> Path:
        return self.directory / f"{identity.hex()}.json"


def _read(identity: bytes, path: Path) -> Record:
    kept = json.loads(path.read_text(encoding="utf-8"))
    may_write = kept["may_write"]
    return Record(
        identity, str(kept["name"]), bytes.fromhex(kept["key"]), float(kept["expires"]),
        None if may_write is None else tuple(may_write), bytes.fromhex(kept["nonce"]),
    )  # fmt: skip
