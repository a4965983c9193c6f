"""Wake-ups between processes, without polling.

Owns `Notifier` (notify a topic, subscribe to topics) and `Subscription` (one listener). A notification carries nothing
and promises nothing but "look again": what there is to see stands in the store. Must not know what a topic stands for;
model/topics.py has those in use.

How to wait, and the only right order:

    with notifier.subscribe("outbox") as subscription:
        while True:
            subscription.prepare()
            if work := look_into_the_queue():
                do(work)
            else:
                subscription.wait(timeout)

How to notify: commit first, then ``notifier.notify("outbox")``. Nobody waiting: no system call, 0.1 µs.

Each topic is a directory with the file ``flag`` (one byte: somebody may be about to sleep) and one
FIFO for each subscription. Why no wake-up is lost:
  * A subscription opens its FIFO, then links it into the topics, then sets the flag, then looks into the queue.
  * A sender commits, then reads the flag, clears it, and only then notifies the FIFOs that it knows, lists them all,
    and notifies the others (`Way`).
  * The subscription's look missed the item → the commit came after the look → the sender read a set flag and
    notifies; or another sender had cleared it after the subscription set it, and that one lists the FIFOs after
    that, and thus finds the subscription's.
  * Cleared after the notifications instead, the flag of a subscription that was woken and prepared itself anew would be
    lost.
A sender that is killed between its commit and its last notification wakes nobody. Therefore `Subscription.wait`
sends its caller to look again after LOOK_AGAIN seconds at most; who waits on `Subscription.fileno` by other
means should do the same.
"""

import contextlib
import hashlib
import mmap
import os
import select
import time
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from dropr_core.errors import Closed, WriteFailed
from dropr_core.system.notifier_flags import HIDDEN, MAX_FLAGS, MAX_WAYS, Flag, Flags, Way, open_flag
from dropr_core.system.ownership import keep_owner

LOOK_AGAIN = 5.0
"""Seconds after which a waiting subscription looks again although nobody notified."""

_STALE = 60.0
"""Seconds after which something unfinished belongs to a process that died while making it."""


class Notifier:
    """Notifies and subscribes in one directory, which belongs to one store.

    Safe to use from many threads, many processes and after a fork.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._flags: dict[str, mmap.mmap] = {}
        self._ways: dict[str, Way] = {}
        self._raised = Flags()

    def notify(self, topic: str) -> None:
        """Wake every subscription on ``topic``. Never blocks and never raises: what was committed is committed."""
        flag = self._flags.get(topic)
        if flag is None:
            flag = self._map(topic)
            if flag is None:
                return
        if flag[0]:
            self._notify(topic)

    def is_awaited(self, topic: str) -> bool:
        """Whether somebody may be about to sleep until `notify`, as far as is known without asking: True may be wrong a
        moment later, and so may False. Costs no system call.
        """
        flag = self._flags.get(topic)
        return flag is not None and flag[0] != 0

    def subscribe(self, *topics: str) -> "Subscription":
        """A new subscription on ``topics``; raises WriteFailed if none can be made here."""
        return Subscription([self._topic(topic) for topic in dict.fromkeys(topics)], self._raised)

    def close(self) -> None:
        """Forget the mapped flags and the ways; safe twice, and a later notification opens them again."""
        self._flags, self._ways = {}, {}

    def _topic(self, topic: str) -> Path:
        # A digest, because no name ever becomes a path as it stands.
        return self.directory / hashlib.blake2b(topic.encode(), digest_size=16).hexdigest()

    def _map(self, topic: str) -> mmap.mmap | None:
        """The topic's flag, to look at without a system call."""
        try:
            fd = open_flag(self._topic(topic))
        except OSError:  # the directory vanished or is full: whoever listens here looks again by itself
            return None
        try:
            # Read only: storing through a mapping could end in SIGBUS where a full disk needs room to change a byte.
            flag = mmap.mmap(fd, 1, mmap.MAP_SHARED, mmap.PROT_READ)
        except (OSError, ValueError):
            return None
        finally:
            os.close(fd)
        if len(self._flags) >= MAX_FLAGS:
            # Dropped, not closed: another thread may be reading one of them.
            self._flags = {}
        self._flags[topic] = flag
        return flag

    def _notify(self, topic: str) -> None:
        try:
            way = self._ways.get(topic)
            if way is None:
                way = Way(self._topic(topic))
                if len(self._ways) >= MAX_WAYS:
                    self._ways = {}
                self._ways[topic] = way
            there = way.notify()
        except OSError:
            there = False
        if not there:  # another directory may stand there soon, or does already
            self._flags.pop(topic, None)
            self._ways.pop(topic, None)


class Subscription:
    """One listener on some topics. For one thread; `wake` may be called by any."""

    def __init__(self, topics: Sequence[Path], flags: Flags) -> None:
        """Made by `Notifier.listen`."""
        self._fd: int | None = None
        self._flags: list[Flag] = []
        self._names: list[Path] = []
        self._armed = False
        try:
            self._open(topics, flags)
        except OSError as error:
            self.close()
            where = topics[0].parent if topics else "."
            raise WriteFailed(f"cannot listen for wake-ups in {where}: {error.strerror or error}") from error
        _inherited.add(self)

    def _open(self, topics: Sequence[Path], flags: Flags) -> None:
        for topic in topics:
            self._flags.append(flags.open(topic))
            _sweep(topic)
        own = f"{os.getpid()}-{os.urandom(6).hex()}"
        # Hidden until it is open: a sender takes a FIFO that nobody has open for that of a dead subscription.
        hidden = topics[0] / (HIDDEN + own)
        os.mkfifo(hidden, 0o600)
        try:
            # For reading and writing, so that it never reads as ended when the last ringer closes it.
            self._fd = os.open(hidden, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            keep_owner(self._fd, topics[0])
            for topic in topics:
                os.link(hidden, topic / own)
                self._names.append(topic / own)
        finally:
            hidden.unlink()

    def fileno(self) -> int:
        """Readable when notified; for select, epoll and event loops (then `drain`, `prepare`, look)."""
        if self._fd is None:
            raise Closed("this subscription is closed, or was made before a fork")
        return self._fd

    def prepare(self) -> None:
        """Forget former notifications and ask to be notified from now on. Look into the queue after this, then wait."""
        self.drain()
        self._raise_flags()

    def _raise_flags(self) -> None:
        self._armed = True
        for flag in self._flags:
            if not flag.is_raised:
                # Where a full disk refuses even one byte, LOOK_AGAIN remains.
                with contextlib.suppress(OSError):
                    flag.set()

    def wait(self, timeout: float | None = None, extra_fds: Iterable[int] = ()) -> bool:
        """Sleep until there is reason to look: True; or until ``timeout`` seconds passed: False.

        Reasons are a notification since `prepare`, something to read from one of ``extra_fds``, or LOOK_AGAIN
        seconds without either.
        """
        fd = self.fileno()
        if not self._armed:
            self._raise_flags()  # keeps a notification that came since: nothing is drained
        poll = select.poll()
        for one in (fd, *extra_fds):
            poll.register(one, select.POLLIN)
        patience = LOOK_AGAIN if timeout is None else min(max(0.0, timeout), LOOK_AGAIN)
        ends = time.monotonic() + patience
        ready = poll.poll(patience * 1000)
        while not ready and (left := ends - time.monotonic()) > 0:  # poll may return a little early
            ready = poll.poll(left * 1000 + 1)
        self._armed = False
        if ready:
            self.drain()
        return bool(ready) or timeout is None or timeout > LOOK_AGAIN

    def drain(self) -> None:
        """Forget former notifications."""
        fd = self.fileno()
        try:
            while len(os.read(fd, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def wake(self) -> None:
        """Wake this subscription alone, from any thread or signal handler of its process; nothing if it is closed."""
        fd = self._fd
        if fd is not None:
            with contextlib.suppress(OSError):
                os.write(fd, b"!")

    def close(self) -> None:
        """Stop listening and remove the FIFO; safe twice."""
        _inherited.discard(self)
        names, self._names = self._names, []
        for name in names:
            with contextlib.suppress(OSError):
                name.unlink()
        self._release()

    def _release(self) -> None:
        self._flags = []
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _sweep(topic: Path) -> None:
    """Remove what processes left that died while they made it."""
    for path in topic.iterdir():
        if path.name.startswith(HIDDEN):
            with contextlib.suppress(OSError):
                if time.time() - path.lstat().st_mtime > _STALE:
                    path.unlink()


# Subscriptions of the parent that a forked child must let go of: it would keep the FIFO of a dead parent notifying.
# The set is weak: a subscription that nobody holds is not in it.
_inherited: "weakref.WeakSet[Subscription]" = weakref.WeakSet()


def _release_in_child() -> None:
    for subscription in list(_inherited):
        subscription._names = []  # noqa: SLF001 - they belong to the parent
        subscription.close()


os.register_at_fork(after_in_child=_release_in_child)
