"""Queues that live no longer than who declared them: for `celery inspect`, `control`, `events` and replies.

They are no business of the durable store: a question of an operator that nobody answered is worth nothing a minute
later. Each is a directory below the node's run directory, with a lock that dies with its owner, the bindings, and a
file for each message. All processes of this machine that have the node open see each other's; those of another node do
not. Owns that. Must not know leases or channels of dropr.
"""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dropr_core.errors import Held, StoreError
from dropr_core.system.locks import FileLock, is_held
from dropr_core.system.notifier import Notifier, Subscription
from dropr_core.system.os_errors import store_errors
from dropr_core.system.ownership import make_private_directory, open_private

MOST = 1000
"""Messages in one mailbox; more are dropped, as by a broker whose consumer is too slow."""
_LETTER = "m-"


class Binding(NamedTuple):
    """As Kombu's tables of exchanges have it."""

    routing_key: str
    pattern: str | None
    queue: str


class Mailbox:
    """One queue of this kind; another process may own it."""

    def __init__(self, directory: Path, queue: str) -> None:
        self.queue = queue
        digest = hashlib.blake2b(queue.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        self.path = directory / digest
        self.topic = f"kombu:{digest}"

    @property
    def lives(self) -> bool:
        """Whether its owner does."""
        return is_held(self.path / "lock")

    def __len__(self) -> int:
        return len(self._letters())

    def put(self, data: bytes, notifier: Notifier, priority: int = 9, life: float | None = None) -> bool:
        """Whether the message was taken: not by a queue that is full, or gone by now. ``priority``: 0 first. ``life``:
        seconds after which nobody gets it.
        """
        until = 0 if life is None else time.time_ns() + int(life * 1e9)
        name = f"{_LETTER}{priority}-{time.time_ns():020d}-{os.getpid()}-{next(_COUNT)}-{until}"
        hidden = self.path / f".{name}"
        try:
            if len(self) >= MOST:
                return False
            fd = open_private(hidden, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            hidden.rename(self.path / name)
        except OSError:
            return False
        notifier.notify(self.topic)
        return True

    def take(self, limit: int) -> list[bytes]:
        """The oldest messages, each given to one taker alone."""
        taken = list[bytes]()
        for path in self._letters():
            if len(taken) >= limit:
                break
            mine = path.with_name(f".{path.name}.{os.getpid()}")
            with contextlib.suppress(OSError):
                path.rename(mine)
                until = int(path.name.rpartition("-")[2])
                if not until or until > time.time_ns():
                    taken.append(mine.read_bytes())
                mine.unlink()
        return taken

    def clear(self) -> int:
        """Drop everything; how many that were."""
        return len(self.take(2 * MOST))

    def _letters(self) -> list[Path]:
        try:
            names = sorted(name for name in os.listdir(self.path) if name.startswith(_LETTER))  # noqa: PTH208 - names
        except OSError:
            return []
        return [self.path / name for name in names]


_COUNT = itertools.count()


class Mailboxes:
    """Those of a node on this machine, and which of them this connection owns."""

    def __init__(self, run_directory: Path, notifier: Notifier) -> None:
        self._directory, self._notifier = run_directory / "kombu", notifier
        self._mine: dict[str, FileLock] = {}
        self._bound: dict[str, list[tuple[str, Binding]]] = {}

    def of(self, queue: str) -> Mailbox:
        """The one of a queue, whether it is there or not."""
        return Mailbox(self._directory, queue)

    def has(self, queue: str) -> bool:
        """Whether there is one, and somebody to read it."""
        return queue in self._mine or self.of(queue).lives

    def declare(self, queue: str) -> None:
        """Own the mailbox of a queue, unless another connection does. Raises StoreError."""
        if queue in self._mine:
            return
        box = self.of(queue)
        with store_errors(box.path):
            make_private_directory(self._directory)
            self._sweep()
        for _ in range(100):
            lock = FileLock(box.path / "lock")
            try:
                make_private_directory(box.path)
                lock.acquire(queue[:100])
            except Held:
                return
            except OSError as error:
                raise StoreError(f"no mailbox for queue {queue}: {error.strerror or error}") from error
            if lock.path.exists():  # somebody who tidies up may have looked before we had locked it
                self._mine[queue], self._bound[queue] = lock, []
                return
            lock.release()
        raise StoreError(f"no mailbox for queue {queue} could be had in 100 tries")

    def bind(self, exchange: str, binding: Binding) -> None:
        """Bind a queue of ours to an exchange, for every process of this machine. Raises StoreError."""
        bound = self._bound.get(binding.queue)
        if bound is None or (exchange, binding) in bound:
            return
        bound.append((exchange, binding))
        path = self.of(binding.queue).path
        data = json.dumps([[name, *one] for name, one in bound]).encode()
        with store_errors(path):
            fd = open_private(path / "bindings.new", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            (path / "bindings.new").rename(path / "bindings")

    def bindings(self, exchange: str) -> list[Binding]:
        """All queues bound to an exchange whose owners live."""
        return [
            binding
            for path in self._all()
            if is_held(path / "lock")
            for name, binding in _read(path)
            if name == exchange
        ]

    def subscribe(self, queue: str) -> Subscription:
        """Woken when a message comes. Raises WriteFailed."""
        return self._notifier.subscribe(self.of(queue).topic)

    def put(self, queue: str, data: bytes, priority: int = 9, life: float | None = None) -> bool:
        """As `Mailbox.put`."""
        return self.of(queue).put(data, self._notifier, priority, life)

    def remove(self, queue: str) -> None:
        """Give up a mailbox of ours, with all that is in it; nothing for another's."""
        lock = self._mine.pop(queue, None)
        self._bound.pop(queue, None)
        if lock is not None:
            shutil.rmtree(self.of(queue).path, ignore_errors=True)
            lock.release()

    def close(self) -> None:
        """Give up all of ours; safe twice."""
        for queue in list(self._mine):
            self.remove(queue)

    def _all(self) -> list[Path]:
        try:
            return list(self._directory.iterdir())
        except OSError:
            return []

    def _sweep(self) -> None:
        """Remove those of the dead."""
        for path in self._all():
            lock = path / "lock"
            with contextlib.suppress(OSError):
                if lock.exists() and not is_held(lock):
                    shutil.rmtree(path, ignore_errors=True)


def _read(path: Path) -> Iterator[tuple[str, Binding]]:
    try:
        rows = json.loads((path / "bindings").read_bytes())
        for exchange, routing_key, pattern, queue in rows:
            yield exchange, Binding(routing_key, pattern, queue)
    except (OSError, ValueError):  # just being made, or just removed
        return
