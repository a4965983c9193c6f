"""Messages that several processes want to store at the same moment: one of them stores what all of them have posted.

Owns the directory ``<half>.senders``: a file that all of them map, with a place for each process, and a FIFO for each
place, by which its owner is woken. Who gets the lock of that file leads: it stores what stands in the places, and
writes an answer beside each. The others sleep until they are answered, or are woken to lead.

What makes it safe is not in here but in the storage, which stores with the messages, in one whole, the tickets that it
took. So a process whose leader has died, or does not answer in time, looks there before it stores by itself. Three
things are promised for that: a ticket is never given twice; only who leads takes, so nobody else does meanwhile; and
what was withdrawn before a transaction begins is not taken within it.

A place belongs to whoever holds the lock on its byte. Whoever finds no place taken begins the file anew: what stands
there may be from before a power cut, or beside another database. Where it cannot be had, everybody stores for himself.
Must not know what is posted.
"""

import contextlib
import fcntl
import mmap
import os
import select
import time
import zlib
from pathlib import Path
from typing import NamedTuple

from dropr_core.system.locks import lock_bytes, release_in_child, unlock_bytes
from dropr_core.system.ownership import keep_owner, make_private_directory, open_private

PLACES, PAGE = 16, 4096
VERSION = 0x31307374736F7064
"""``dposts01``: whoever changes the file, or what is posted, raises it. Another version's processes use it alone."""
SIZE = PAGE * (PLACES + 1)
"""A page of words, and one for what is posted in each place."""
_CROWD = 1
"""The word in which stands how many took part of late."""
_TICKET, _CHECK, _TIME, _ANSWERED, _ANSWER, _OWNER = range(8, 8 + 6 * PLACES, PLACES)
"""The first of the words of that kind, of which each place has one."""

PATIENCE = 0.2
"""Seconds that an answer is waited for: some syncs of a slow disk. Who leads may be stopped."""
LOOK_AGAIN = 0.05
"""Seconds after which one looks whether nobody leads any more: whoever did may have been killed."""
REST = 1000
"""So many messages are not posted after that, or where there is no place."""
GATHER = 200_000
"""Nanoseconds for which who leads waits for those who were there the last time."""
STALE = 10_000_000_000
"""Nanoseconds after which what was posted belongs to nobody any more."""

LEADS, LATE, BY_ITSELF = -1, -2, 0
"""What may come in place of a result: lead; nobody answered; it is to be stored by itself."""
FAILED = (1 << 44) - 1
"""It may be stored, but is not promised. A result is less than this."""
_TAG = (1 << 20) - 1


class Post(NamedTuple):
    """What stands in a place."""

    place: int
    ticket: int
    payload: bytes | None
    """None: it is torn, or nobody waits for it any more."""


class Posts:
    """One process's view, for one thread at a time."""

    def __init__(self, directory: Path) -> None:
        """Nothing is opened yet."""
        self._directory = directory
        self._fd = self._bell = -1
        self._rest = 0
        self._ticket = 0
        self.place = -1
        """This process's own."""
        self._map: mmap.mmap | None = None
        self._words: memoryview[int]
        self._answered: list[int] = []
        """Places to be woken."""
        self._bells: dict[int, tuple[int, int]] = {}
        """place → (its owner, a descriptor of its FIFO)"""
        release_in_child(self)

    # ── opening and closing ──────────────────────────────────────────────────────────────────────

    def open(self) -> bool:
        """Whether it can be used now; taking a place first if there is none."""
        if self._rest:
            self._rest -= 1
            return False
        if self._map is None:
            try:
                self._open()
            except OSError:
                self.release()
                self._rest = REST
                return False
        return True

    def _open(self) -> None:
        make_private_directory(self._directory)
        path = self._directory / "posts"
        fd = self._fd = open_private(path, os.O_RDWR | os.O_CREAT)
        if lock_bytes(fd, 0, PLACES):
            os.posix_fallocate(fd, 0, SIZE)  # a page that a full disk cannot give would end the process
            os.pwrite(fd, VERSION.to_bytes(8, "little") + bytes(SIZE - 8), 0)
            place = 0
            unlock_bytes(fd, 1, PLACES - 1)
        else:
            place = next((one for one in range(PLACES) if lock_bytes(fd, one)), -1)
        if place < 0 or os.fstat(fd).st_size < SIZE or os.pread(fd, 8, 0) != VERSION.to_bytes(8, "little"):
            raise OSError(f"no place in {path}")
        name = self._directory / str(place)
        with contextlib.suppress(FileNotFoundError):
            name.unlink()
        os.mkfifo(name, 0o600)
        # For reading and writing, so that it never reads as ended, and nobody is ended who writes to it.
        bell = self._bell = os.open(name, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        keep_owner(bell, self._directory)
        # Not by the descriptor of the locks: a mapping keeps its own one open, also in a forked child.
        mapped = open_private(path, os.O_RDWR)
        try:
            found = mmap.mmap(mapped, SIZE)
        finally:
            os.close(mapped)
        self._poll = select.poll()
        self._poll.register(bell, select.POLLIN)
        words = self._words = memoryview(found)[:PAGE].cast("Q")
        words[_TICKET + place] = 0
        words[_OWNER + place] = int.from_bytes(os.urandom(8), "little")
        self._ticket = int.from_bytes(os.urandom(8), "little") >> 2
        self.place, self._map = place, found

    def close(self) -> None:
        """Give the place back; safe twice. `open` takes another one."""
        if self._map is not None:
            with contextlib.suppress(OSError):
                (self._directory / str(self.place)).unlink()
        self.release()

    def release(self) -> None:
        """In a forked child, where all of it is its parent's: forget it."""
        fds = (self._fd, self._bell, *(fd for _, fd in self._bells.values()))
        self._fd = self._bell = self.place = -1
        self._map, self._bells, self._words = None, {}, memoryview(b"").cast("Q")
        for fd in fds:
            if fd >= 0:
                os.close(fd)

    # ── who leads ────────────────────────────────────────────────────────────────────────────────

    def lead(self) -> bool:
        """Whether this process leads from now on, until `hand_over`."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def hand_over(self) -> None:
        """Lead no more; one that has posted meanwhile is woken to lead, and all that were answered are woken."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        # After that: who posts now finds nobody who leads. And first, so that the disk has work while others are woken.
        for place, _ in self._waiting():
            if place != self.place and self._ring(place):
                break
        answered, self._answered = self._answered, []
        for place in answered:
            self._ring(place)

    def gather(self) -> None:
        """Those who were there the last time are given a moment to come back: fewer commits, each of more."""
        words = self._words
        crowd, present = words[_CROWD], self._present()
        if present < crowd:
            gives_up = time.monotonic_ns() + GATHER
            while present < crowd and time.monotonic_ns() < gives_up:
                os.sched_yield()  # they are at work on their next message, perhaps on this very processor
                present = self._present()
        words[_CROWD] = max(present, crowd - 1)

    def _present(self) -> int:
        """How many messages there are to store, this process's own included."""
        return 1 + sum(place != self.place for place, _ in self._waiting())

    def posted(self) -> list[Post]:
        """All that wait. For who leads, within its transaction."""
        out, words, now = [], self._words, time.monotonic_ns()
        for place, ticket in self._waiting():
            check, since = words[_CHECK + place], words[_TIME + place]
            at = PAGE * (place + 1)
            payload = self._mapped[at : at + min(PAGE, check >> 32)]
            sound = check == _check(payload, ticket, since) and abs(now - since) <= STALE
            out.append(Post(place, ticket, payload if sound else None))
        return out

    def answer(self, post: Post, result: int) -> None:
        """Its message is stored under this number and on stable storage; or `BY_ITSELF`, or `FAILED`."""
        words, place, ticket = self._words, post.place, post.ticket
        words[_ANSWER + place] = result << 20 | ticket & _TAG
        words[_ANSWERED + place] = ticket
        if place != self.place:
            self._answered.append(place)

    def _waiting(self) -> list[tuple[int, int]]:
        """(place, ticket) of those that are not answered."""
        words = self._words
        tickets = words[_TICKET : _TICKET + PLACES].tolist()
        answered = words[_ANSWERED : _ANSWERED + PLACES].tolist()
        if tickets == answered:
            return []
        return [
            (place, ticket)
            for place, (ticket, last) in enumerate(zip(tickets, answered, strict=True))
            if ticket and ticket != last
        ]

    def _ring(self, place: int) -> bool:
        """Wake the owner of a place; whether somebody could be woken."""
        owner = self._words[_OWNER + place]
        known, fd = self._bells.get(place, (0, -1))
        try:
            if known != owner:
                if fd >= 0:
                    del self._bells[place]
                    os.close(fd)
                # For reading, too: where nobody reads any more, writing would be an error, or a signal.
                how = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
                fd = os.open(self._directory / str(place), how)
                self._bells[place] = owner, fd
            os.write(fd, b"!")
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    # ── who waits ────────────────────────────────────────────────────────────────────────────────

    def post(self, payload: bytes) -> int:
        """Put something into this process's place, for whoever leads; its ticket. 0 if there is no room for it."""
        if len(payload) > PAGE:
            return 0
        self._ticket = ticket = self._ticket + 1
        words, place, now = self._words, self.place, time.monotonic_ns()
        at = PAGE * (place + 1)
        self._mapped[at : at + len(payload)] = payload
        words[_TIME + place], words[_CHECK + place] = now, _check(payload, ticket, now)
        words[_TICKET + place] = ticket
        return ticket

    def wait(self, ticket: int) -> int:
        """The answer to what was posted, or `LEADS` or `LATE`."""
        gives_up = time.monotonic() + PATIENCE
        while True:
            leads = self.lead()  # also at once: whoever led may have looked before it was posted
            answer = self._answer(ticket)
            if answer is not None:
                if leads:
                    self.hand_over()
                return answer
            if leads:
                return LEADS
            left = gives_up - time.monotonic()
            if left <= 0:
                self._rest = REST
                return LATE
            if self._poll.poll(min(left, LOOK_AGAIN) * 1000 + 1):
                with contextlib.suppress(BlockingIOError):
                    os.read(self._bell, PAGE)
                answer = self._answer(ticket)
                if answer is not None:
                    return answer

    def _answer(self, ticket: int) -> int | None:
        words, place = self._words, self.place
        if words[_ANSWERED + place] != ticket:
            return None
        # Written first, and seen first where somebody has been woken. One that was late may have written over it.
        found = words[_ANSWER + place]
        return found >> 20 if found & _TAG == ticket & _TAG else None

    def withdraw(self) -> None:
        """Nobody is to take what was posted any more; whoever is about to may do it yet."""
        self._words[_TICKET + self.place] = 0

    @property
    def _mapped(self) -> mmap.mmap:
        assert self._map is not None
        return self._map


def _check(payload: bytes, ticket: int, since: int) -> int:
    return len(payload) << 32 | zlib.crc32(payload, (ticket ^ since) & 0xFFFFFFFF)
