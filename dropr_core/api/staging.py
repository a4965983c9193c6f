"""Channels with ``durability: interval``: `send` returns when the message survives this process, not yet a power cut.

Owns the staging log of this process, the thread that takes it into the outbox within a few milliseconds, and taking in
what other processes left when they were killed. The outbox notes in the same commit how far a log is taken in, so
nothing enters it twice; and because the outbox holds only what is on stable storage, a lane never contains what a power
cut could undo. Must not know how a message is composed or carried.
"""

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from dropr_core.api.staging_log import (
    MAX_RECORD,
    StagingLog,
    is_of_other_version,
    records,
    remove_for_good,
    taken_of,
)
from dropr_core.contracts.records import NewMessage
from dropr_core.contracts.storage import Outbox
from dropr_core.errors import Held, StoreError
from dropr_core.system.flusher import Flusher
from dropr_core.system.os_errors import store_error

INTERVAL = 0.005
"""Seconds that a message waits for company before it is taken in."""
TRY_AGAIN = 1.0
"""Seconds between two tries to make a log where there is no room for one."""
PORTION = 1000
"""Messages that are taken in with one commit at most."""

_Fields = tuple[bytes, str, int, tuple[str, ...], bytes, bool]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Fields).decode


class Staging:
    """What one process has staged. Safe to use from many threads; not across a fork."""

    def __init__(self, outbox: Outbox, directory: Path, notify: Callable[[], None], log: logging.Logger) -> None:
        """``directory``: where the logs stand. ``notify``: called when something new stands in the outbox."""
        self._outbox, self._directory, self._notify, self._log_to = outbox, directory, notify, log
        self._writing, self._moving = threading.Lock(), threading.Lock()
        self._log: StagingLog | None = None
        self._waiting: list[tuple[NewMessage, int]] = []
        """What is written and not taken in: each with the position after its record."""
        self._noted = 0
        """Up to where the outbox says that our log is taken in."""
        self._next_try = 0.0
        """When to try again to make a log; 0 unless it failed."""
        self._flusher = Flusher(INTERVAL, self.drain, log, "dropr-staging")
        self._pid = os.getpid()

    @property
    def pending(self) -> bool:
        """Whether something is staged that the outbox does not have yet."""
        return bool(self._waiting)

    def put(self, message: NewMessage) -> bool:
        """Stage a message; False if it has to go straight into the outbox (it is too large, or no log can be made).

        With a full log it waits for a commit. Raises StoreError, QueueFull: nothing of it is staged then.
        """
        record = _encode(message[:6])
        if len(record) > MAX_RECORD:
            return False
        while True:
            with self._writing:
                log = self._log or self._open()
                if log is None:
                    return False
                if log.append(record):
                    self._waiting.append((message, log.written))
                    break
            self.drain()
        self._flusher.mark()
        return True

    def _open(self) -> StagingLog | None:
        now = time.monotonic()
        if now < self._next_try:
            return None
        try:
            self._log = StagingLog(self._directory)
        except (OSError, Held) as error:
            if not self._next_try:
                self._log_to.warning(
                    "no staging log can be made in %s (%s): until there is room, messages go straight into the outbox, "
                    "each with a flush of its own", self._directory, error,
                )  # fmt: skip
            self._next_try = now + TRY_AGAIN
        else:
            self._next_try = 0.0
        return self._log

    def drain(self) -> None:
        """Take in all that is staged; it is on stable storage when this returns. Raises StoreError, QueueFull."""
        with self._moving:
            self._flusher.clean()
            while True:
                log = self._log
                with self._writing:
                    portion = self._waiting[:PORTION]
                if log is None or not portion:
                    return
                messages, upto = [message for message, _ in portion], portion[-1][1]
                try:
                    if not self._outbox.append_staged(messages, log.name, self._noted, upto):
                        # The commit before was made, though we were told that it failed; or the store is another one.
                        self._noted = self._outbox.staged().get(log.name, 0)
                        upto = self._noted
                    else:
                        self._noted = upto
                except StoreError:
                    with contextlib.suppress(OSError):
                        log.flush()  # it may take long until the outbox takes it
                    raise
                with self._writing:
                    gone = sum(position <= upto for _, position in portion)
                    if gone:
                        log.take(upto)
                        del self._waiting[:gone]
                self._notify()

    def close(self) -> None:
        """Take in what is staged and remove the log; in a forked child nothing happens. Safe twice.

        What the outbox does not take stays in the log for the next process of this node that opens the store.
        """
        if os.getpid() != self._pid:
            return
        self._flusher.close()
        with self._writing:
            log = self._log
        if log is None:
            return
        try:
            self.drain()
            log.remove()
            self._outbox.unstage([log.name])
        except (StoreError, OSError) as error:
            if self._waiting:
                self._log_to.error(
                    "%d messages stay in %s, which the next process of this node takes in: %s",
                    len(self._waiting), log.path, error,
                )  # fmt: skip
        finally:
            log.close()
            self._log = None

    # ── what the dead left ───────────────────────────────────────────────────────────────────────

    def take_over(self) -> int:
        """Take in what killed processes had staged. Returns how many messages. Costs a look into a directory.

        Raises StoreError, QueueFull; what is not taken in stays.
        """
        try:
            paths = sorted(self._directory.iterdir())
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise store_error(error, self._directory) from error
        taken = sum(self._take_over(path) for path in paths)
        # Killed between the removal of a log and of the note about it.
        if notes := set(self._outbox.staged()):
            gone = [name for name in notes if not (self._directory / name).exists()]
            if gone:
                self._outbox.unstage(gone)
        return taken

    def _take_over(self, path: Path) -> int:
        try:
            fd = _lock_of_the_dead(path)
            if fd is None:
                return 0
            try:
                with open(fd, "rb", closefd=False) as file:
                    return self._take_in(path, file.read())
            finally:
                os.close(fd)
        except OSError as error:
            raise store_error(error, path) from error

    def _take_in(self, path: Path, data: bytes) -> int:
        start = taken_of(data)
        if start is None and is_of_other_version(data):
            self._log_to.warning(
                "%s is a staging log of another version of dropr and is left alone; start that version once, and it "
                "takes the messages in", path,
            )  # fmt: skip
            return 0
        noted = self._outbox.staged().get(path.name, 0)
        found: list[tuple[NewMessage, int]] = []
        if start is not None:  # else its process was killed while it made the file
            found = [(NewMessage(*_decode(body)), upto) for body, upto in records(data, max(start, noted))]
        for first in range(0, len(found), PORTION):
            portion = found[first : first + PORTION]
            upto = portion[-1][1]
            if not self._outbox.append_staged([message for message, _ in portion], path.name, noted, upto):
                raise StoreError(
                    f"{path}: the outbox notes another position than {noted}; it is left for the next look"
                )
            noted = upto
            self._notify()
        remove_for_good(path)
        self._outbox.unstage([path.name])
        if found:
            self._log_to.info("took in %d messages that a killed process had staged in %s", len(found), path.name)
        return len(found)


def _lock_of_the_dead(path: Path) -> int | None:
    """A descriptor of a log whose process is dead, locked by us; None if it lives, or somebody else was faster."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.exists():
            return fd
    except BlockingIOError:
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None
