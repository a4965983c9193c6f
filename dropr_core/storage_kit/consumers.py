"""Who consumes on this machine, and who of them still lives.

Owns the lock file of each consumer (``consumers/<id>``): the kernel gives the lock up at the moment the process ends,
and that is all there is to know of its life. What it did until then stands in the same file, its lease sheet
(lease_sheet.py). It is `Inbox.consumers` and `Inbox.sheets` of every storage on a disk. Must not know messages.
"""

import contextlib
import fcntl
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from dropr_core.contracts.lease_sheets import LeaseSheet, Left
from dropr_core.errors import Closed, Held, StoreError
from dropr_core.storage_kit.guard import Guard
from dropr_core.storage_kit.lease_sheet import MappedSheet, read_sheet
from dropr_core.system.clock import boot_id
from dropr_core.system.locks import FileLock, is_held
from dropr_core.system.os_errors import store_error, store_errors
from dropr_core.system.ownership import make_private_directory


class LockedConsumers:
    """The consumers of one process, and a look at those of the others."""

    def __init__(self, directory: Path, guard: Guard) -> None:
        self._directory, self._guard = directory, guard
        self._mutex = threading.Lock()
        self._locks: dict[str, FileLock] = {}
        self._sheets: dict[str, MappedSheet] = {}
        with store_errors(directory):
            self._boot = boot_id()
        self._tidied = False

    def register(self, label: str) -> str:
        """A new id, its lock held. Raises Closed, StoreReadOnly, StoreError."""
        self._guard.enter(write=True)
        label = re.sub(r"[^A-Za-z0-9._-]", "_", label)[:40]
        try:
            make_private_directory(self._directory)
            for _ in range(100):
                name = f"{label or 'consumer'}-{os.getpid()}-{os.urandom(4).hex()}"
                lock = FileLock(self._directory / name)
                try:
                    lock.acquire(label)
                except Held:  # somebody tidies up and looked at the file before we had locked it
                    continue
                if (self._directory / name).exists():
                    with self._mutex:
                        self._locks[name] = lock
                    return name
                lock.release()
        except OSError as error:
            raise store_error(error, self._directory) from error
        raise StoreError(f"{self._directory}: no lock could be had in 100 tries")

    def owns(self, consumer: str) -> bool:
        """Whether it was registered here and not yet released."""
        return consumer in self._locks

    def check(self, consumer: str) -> None:
        """Raise Closed if it is none of this process, or was retired."""
        if consumer not in self._locks:
            raise Closed(f"consumer {consumer} was retired or belongs to another process; register a new one")

    def release(self, consumer: str) -> None:
        """Give its lock up and remove the file; safe twice. To be called when its leases have ended."""
        self._let_go(consumer, keep=False)

    def abandon(self, consumer: str) -> None:
        """Give its lock up as its process would by dying: what stands on its sheet stays; safe twice."""
        self._let_go(consumer, keep=True)

    def _let_go(self, consumer: str, *, keep: bool) -> None:
        with self._mutex:
            lock, sheet = self._locks.pop(consumer, None), self._sheets.pop(consumer, None)
        if sheet is not None:
            sheet.release()
        if lock is not None:
            if sheet is None or not keep:
                with contextlib.suppress(OSError):
                    lock.path.unlink()
            lock.release()

    def names(self) -> list[str]:
        """Those of this process."""
        return list(self._locks)

    def lives(self, consumer: str) -> bool:
        """Whether the consumer's process lives (and has not retired it). Raises StoreError."""
        try:
            return is_held(self._directory / consumer)
        except OSError as error:
            raise store_error(error, self._directory / consumer) from error

    def dead(self, consumers: Iterable[str]) -> set[str]:
        """Those whose process does not live any more."""
        return {name for name in consumers if not self.lives(name)}

    # ── lease sheets ─────────────────────────────────────────────────────────────────────────────

    def sheet(self, consumer: str) -> LeaseSheet | None:
        """That of a consumer of this process; None if the disk has no room for it. Raises Closed."""
        self.check(consumer)
        with self._mutex:
            if consumer not in self._sheets:
                try:
                    made = MappedSheet(self._directory / consumer, self._boot)
                except OSError:
                    return None
                self._sheets[consumer] = made
            return self._sheets[consumer]

    def left_by(self, consumer: str) -> Left:
        """What stands on the sheet of a consumer; nothing if it cannot be read, or was written before this boot."""
        return read_sheet(self._directory / consumer, self._boot)

    def left_by_all(self, consumers: Iterable[str]) -> dict[str, Left]:
        """The same of many."""
        return {name: self.left_by(name) for name in consumers}

    # ── what the dead leave behind ───────────────────────────────────────────────────────────────

    def tidy_once(self, holders: Callable[[], Collection[str]]) -> None:
        """`tidy`, the first time in this process: a reaper may have been killed before it came to that."""
        if not self._tidied:
            self.tidy(holders)

    def tidy(self, holders: Callable[[], Collection[str]]) -> None:
        """Remove the files of the dead who hold no lease any more. ``holders``: the consumers that hold some; asked
        after we have seen who is dead: whoever dies later may leave leases, and a sheet that says what they are.

        Each file is removed under its own lock, so that no newcomer, who checks for its file after locking it, can hold
        a lock on a removed file.
        """
        self._tidied = True
        try:
            dead = [path for path in self._directory.iterdir() if not is_held(path)]
        except OSError:
            return
        kept = set(holders()) if dead else set()
        for path in dead:
            if path.name not in kept:
                with contextlib.suppress(OSError):
                    _remove(path)


def _remove(path: Path) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(fd)
