"""What machines share, in memory: for tests of what uses it, where several "machines" live in one process.

Owns `World`, the store that they share, and `SharedMemory`, one machine's way to it, whose line can be cut. Must not
know any storage.
"""

import threading
import time
from collections.abc import Callable, Collection

from dropr_core.contracts.shared import MAX_DOCUMENT, Document, Listening, Shared
from dropr_core.errors import Closed, StoreBusy, TooBig


class World:
    """One store, as far as it is shared."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self.lock = threading.RLock()
        self.documents: dict[str, Document] = {}
        self.holders: dict[str, _Election] = {}
        self.hearers: list[_Hearer] = []
        self.counter = 0

    def machine(self) -> "SharedMemory":
        """One more machine."""
        return SharedMemory(self)


def _nobody() -> None:
    """Nobody needs to be told."""


class SharedMemory(Shared):
    """One machine's way to the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._up, self._closed = True, False

    def load(self, name: str) -> Document | None:
        """See `Shared`."""
        with self._reached():
            return self._world.documents.get(name)

    def replace(self, name: str, data: bytes | None, version: int) -> bool:
        """See `Shared`."""
        if data is not None and len(data) > MAX_DOCUMENT:
            raise TooBig(f"document {name}: {len(data)} bytes; the limit is {MAX_DOCUMENT}")
        with self._reached():
            there = self._world.documents.get(name)
            if (there.version if there else 0) != version or (data is None and there is None):
                return False
            self._world.counter += 1
            if data is None:
                del self._world.documents[name]
            else:
                self._world.documents[name] = Document(data, self._world.counter)
            return True

    def names(self, prefix: str) -> list[str]:
        """See `Shared`."""
        with self._reached():
            return sorted(name for name in self._world.documents if name.startswith(prefix))

    def now(self) -> float:
        """See `Shared`."""
        return self._world.now()

    def elect(self, name: str, lost: Callable[[], None] = _nobody) -> "_Election | None":
        """See `Shared`."""
        with self._reached():
            if name in self._world.holders:
                return None
            election = self._world.holders[name] = _Election(self, name, lost)
            return election

    def notify(self, topics: Collection[str]) -> None:
        """See `Shared`."""
        if not self._up or self._closed:
            return
        with self._world.lock:
            hearers = [hearer for hearer in self._world.hearers if hearer.owner.up]
        for hearer in hearers:
            for topic in dict.fromkeys(topics):
                hearer.heard(topic)

    def listen(self, heard: Callable[[str | None], None]) -> Listening:
        """See `Shared`."""
        with self._world.lock:
            self._check()
            hearer = _Hearer(self, heard)
            self._world.hearers.append(hearer)
            return hearer

    @property
    def up(self) -> bool:
        """Whether the line to the store is whole."""
        return self._up

    @property
    def world(self) -> World:
        """What it is a way to."""
        return self._world

    def cut(self) -> None:
        """The line breaks: what was elected is lost, every call fails."""
        with self._world.lock:
            self._up = False
            self._lose()

    def mend(self) -> None:
        """The line is whole again: who listens looks at everything."""
        with self._world.lock:
            self._up = True
            mine = [hearer for hearer in self._world.hearers if hearer.owner is self]
        for hearer in mine:
            hearer.heard(None)

    def close(self) -> None:
        """As when its storage is closed; safe twice."""
        with self._world.lock:
            self._closed = True
            self._lose()
            self._world.hearers = [hearer for hearer in self._world.hearers if hearer.owner is not self]

    def _lose(self) -> None:
        for election in list(self._world.holders.values()):
            if election.owner is self:
                election.release()
                if not self._closed:
                    election.lost()

    def _check(self) -> None:
        if self._closed:
            raise Closed("this store was closed")

    def _reached(self) -> threading.RLock:
        self._check()
        if not self._up:
            raise StoreBusy("the store does not answer: the line was cut")
        return self._world.lock


class _Election:
    def __init__(self, owner: SharedMemory, name: str, lost: Callable[[], None]) -> None:
        self.owner, self._name, self.lost = owner, name, lost

    def holds(self) -> bool:
        return self.owner.world.holders.get(self._name) is self

    def release(self) -> None:
        with self.owner.world.lock:
            if self.holds():
                del self.owner.world.holders[self._name]


class _Hearer:
    def __init__(self, owner: SharedMemory, heard: Callable[[str | None], None]) -> None:
        self.owner, self.heard = owner, heard

    def close(self) -> None:
        with self.owner.world.lock:
            if self in self.owner.world.hearers:
                self.owner.world.hearers.remove(self)


__all__ = ["SharedMemory", "World"]
