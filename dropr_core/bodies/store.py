"""Large bodies as files beside the store, named by their message.

Owns the directory ``bodies/`` of a node (docs/formats/bodies.md): writing what is sent, taking in
what arrives, opening, forgetting. Must not know lanes, peers' addresses or the wire: whether a
message still needs its body is asked of whoever knows.

    bodies/sent/<message id>-<digest>          complete, on stable storage, before its message is; the digests of
                                               its leaves follow (chunk_digest.py)
    bodies/sent/<random>.new                   being written; its writer holds a lock on it
    bodies/come/<peer>/<message id>-<digest>   complete; read-only once its message was accepted
    bodies/come/<peer>/….part                  arriving (partial_body.py)
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from dropr_core.bodies.files import (
    PIECE,
    BodyFile,
    files_in,
    folders_in,
    id_in,
    name_of,
    open_checked,
    trailer_of,
)
from dropr_core.bodies.write_behind import WriteBehind, write_all
from dropr_core.contracts.bodies import FORGOTTEN, Arrivals, Bodies, Leftovers, Progress, Readable, Written
from dropr_core.errors import TooBig
from dropr_core.model.chunk_digest import LeafHash
from dropr_core.model.envelope import Reference
from dropr_core.model.names import MessageId
from dropr_core.system.files import sync_directory
from dropr_core.system.loading import unforked
from dropr_core.system.os_errors import store_error
from dropr_core.system.ownership import make_private_directory, open_private
from dropr_core.system.space import check_free

LOOK_AT_DISK = 64
"""Pieces between two looks at the free space."""


class WrittenFile(Written):
    """A file that is locked until `release`."""

    def __init__(self, path: Path, fd: int, reference: Reference) -> None:
        self.path, self.reference = path, reference
        self._fd = fd

    def discard(self) -> None:
        """The message was not stored: remove the body."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.release()

    def release(self) -> None:
        """The message is stored; safe twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class BodyFiles(Bodies):
    """All large bodies of a node on one machine."""

    def __init__(self, directory: Path, min_free: int | None = None) -> None:
        self.directory = directory
        self._min_free = min_free

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    def write(
        self, identity: MessageId, source: Readable, *, limit: int | None = None, progress: Progress | None = None,
        size: int | None = None, inbox_of: str | None = None,
    ) -> Written:  # fmt: skip
        """Copy ``source`` to its end, hashing on the way; durable on return.

        ``inbox_of``: it is for this node's own inbox, under this name. Raises TooBig, QueueFull,
        WriteFailed; nothing is left behind then.
        """
        directory = self._directory("sent") if inbox_of is None else self._directory("come", inbox_of)
        self.check_room(size or 0)
        temporary, fd = _begin(directory)
        try:
            reference, leaves = self._copy(source, fd, limit, progress, size)
            if inbox_of is None:
                write_all(fd, leaves)
            os.fsync(fd)
            path = directory / name_of(identity, reference)
            temporary.replace(path)
            sync_directory(directory)
        except BaseException as error:
            os.close(fd)
            with contextlib.suppress(OSError):
                temporary.unlink()
            if isinstance(error, OSError):
                raise store_error(error, temporary) from error
            raise
        return WrittenFile(path, fd, reference)

    def _copy(
        self, source: Readable, fd: int, limit: int | None, progress: Progress | None, size: int | None
    ) -> tuple[Reference, bytes]:
        digest, done, pieces = LeafHash(), 0, 0
        with WriteBehind(fd) as behind:
            while piece := bytes(source.read(PIECE)):  # of our own: what is hashed is what will be written
                done += len(piece)
                pieces += 1
                if limit is not None and done > limit:
                    raise TooBig(f"a body of more than {limit} bytes (limits.max_body); raise the limit on both nodes")
                if pieces % LOOK_AT_DISK == 0:
                    self.check_room(0)
                behind.write(piece)
                digest.update(piece)
                if progress is not None:
                    progress(done, size)
            behind.finish()
        return Reference(done, digest.digest()), digest.leaves()

    def open_sent(self, identity: MessageId, reference: Reference) -> BinaryIO:
        """The body of a message of the outbox; raises StoreCorrupt if it is gone."""
        path = self.directory / "sent" / name_of(identity, reference)
        return open_checked(path, identity, reference, trailer_of(reference))

    def load(self, identity: MessageId, reference: Reference) -> BodyFile:
        """The body of a message of the outbox, to be sent in pieces; raises StoreCorrupt if it is gone."""
        with self.open_sent(identity, reference) as file:
            return BodyFile(os.dup(file.fileno()), reference)

    # ── receiving ────────────────────────────────────────────────────────────────────────────────

    def place(self, peer: str, identity: MessageId, reference: Reference) -> Path:
        """Where the body of a message from ``peer`` belongs. Makes the directory."""
        return self._directory("come", peer) / name_of(identity, reference)

    def arrivals(self) -> Arrivals:
        """What takes bodies in; closed by the caller."""
        with unforked:
            from dropr_core.bodies.partial_body import PartialBodies

        return PartialBodies(self.place, self.check_room)

    def has(self, peer: str, identity: MessageId, reference: Reference) -> bool:
        """Whether the body of a message from ``peer`` is here, complete."""
        return (self.directory / "come" / peer.encode().hex() / name_of(identity, reference)).exists()

    def accepted(self, peer: str, identity: MessageId, reference: Reference) -> None:
        """Its message is in the inbox: from now on the body goes when the message goes."""
        with contextlib.suppress(OSError):  # the sweep makes up for it
            self.place(peer, identity, reference).chmod(0o400)

    def open_received(self, peer: str, identity: MessageId, reference: Reference) -> BinaryIO:
        """The body of a message of the inbox; raises StoreCorrupt if it is gone."""
        path = self.directory / "come" / peer.encode().hex() / name_of(identity, reference)
        return open_checked(path, identity, reference)

    def drop_received(self, peer: str, identity: MessageId, reference: Reference) -> None:
        """The message was settled: its body is not needed any more."""
        with contextlib.suppress(OSError):
            (self.directory / "come" / peer.encode().hex() / name_of(identity, reference)).unlink()

    # ── care ─────────────────────────────────────────────────────────────────────────────────────

    def check_room(self, more: int) -> None:
        """Raise QueueFull if ``more`` bytes would leave less free than ``limits.min_free``."""
        check_free(self.directory, more, self._min_free)

    def sweep(self, is_sent: Callable[[MessageId], bool], is_come: Callable[[MessageId], bool], wall: float) -> int:
        """Remove what no message needs: bodies of ended messages, and what a dead process left behind.

        ``is_sent``, ``is_come``: whether outbox and inbox keep the envelope of a message. Returns
        how many files went. Bodies are few and large: each is looked at.
        """
        gone = 0
        for path in files_in(self.directory / "sent"):
            if path.suffix:
                gone += _remove_unless_locked(path, lambda: False)
            else:
                gone += _remove_unless_locked(path, partial(is_sent, id_in(path.name)))
        for directory in folders_in(self.directory / "come"):
            for path in files_in(directory):
                with contextlib.suppress(FileNotFoundError):  # a consumer was faster
                    gone += self._sweep_come(path, is_come, wall)
        return gone

    @staticmethod
    def _sweep_come(path: Path, is_come: Callable[[MessageId], bool], wall: float) -> bool:
        if path.suffix:
            old = wall - path.stat().st_mtime > FORGOTTEN or path.suffix == ".new"
            return old and _remove_unless_locked(path, lambda: False)
        if is_come(id_in(path.name)):
            path.chmod(0o400)
            return False
        old = not path.stat().st_mode & 0o200 or wall - path.stat().st_mtime > FORGOTTEN
        return old and _remove_unless_locked(path, lambda: False)

    def examine(
        self, peer: str | None, identity: MessageId, reference: Reference, *, repair: bool, say: Callable[[str], None]
    ) -> str:
        """What is wrong with the file of a body."""
        with unforked:
            from dropr_core.bodies import checking

        directory = self.directory / "sent" if peer is None else self.directory / "come" / peer.encode().hex()
        trailer = trailer_of(reference) if peer is None else 0
        path = directory / name_of(identity, reference)
        return checking.examine(self.directory, path, reference, trailer, repair=repair, say=say)

    def leftovers(
        self, sent: Callable[[MessageId], Reference | None], come: Callable[[MessageId], Reference | None], *,
        aside: bool, say: Callable[[str], None],
    ) -> Iterator[Leftovers | tuple[str, Exception]]:  # fmt: skip
        """Files that no message refers to."""
        with unforked:
            from dropr_core.bodies import checking

        return checking.leftovers(self.directory, sent, come, aside=aside, say=say)

    def any(self) -> bool:
        """Whether there is a body, or a part of one."""
        folders = [self.directory / "sent", *folders_in(self.directory / "come")]
        return any(True for folder in folders for _ in files_in(folder))

    def _directory(self, *parts: str) -> Path:
        """A directory of bodies, made durably when it is first needed. Names become hexadecimal."""
        path = self.directory
        for part in (None, parts[0], *(name.encode().hex() for name in parts[1:])):
            path = path if part is None else path / part
            try:
                make_private_directory(path, exist_ok=False)
            except FileExistsError:
                continue
            except OSError as error:
                raise store_error(error, path) from error
            sync_directory(path.parent)
        return path


def _begin(directory: Path) -> tuple[Path, int]:
    """A new file that no sweep takes, since it is locked."""
    while True:
        path = directory / f"{os.urandom(8).hex()}.new"
        try:
            fd = open_private(path, os.O_CREAT | os.O_EXCL | os.O_RDWR)
        except OSError as error:
            raise store_error(error, path) from error
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return path, fd
        os.close(fd)  # a sweep was between the two


def _remove_unless_locked(path: Path, needed: Callable[[], bool]) -> bool:
    """Remove a file that nobody holds and nobody needs; in this order, since a writer lets go of it
    only after its message is stored. Returns whether it went.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if needed():
            return False
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
