"""The documents of a node whose store several machines share: they stand in that store.

Owns how long a document that was read is believed (until somebody says that it changed, some seconds at most), and how
one machine at a time changes it. Must not know what is in one.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar, cast

from dropr_core.contracts.shared import Shared
from dropr_core.errors import StoreBusy, StoreError
from dropr_core.system.clock import Clock
from dropr_core.system.notifier import LOOK_AGAIN
from dropr_core.system.shared_document import Form, Seen, SharedDocument

T = TypeVar("T")

TOPIC = "document/"
"""Before the name of a document, in a wake-up that says that it changed."""

UNHEARD = 1.0
"""Seconds for which a document is believed in a process that listens to no wake-ups."""

PATIENCE = 10.0
"""Seconds to wait for somebody else who changes the same document."""


class StoredDocuments:
    """Those of one store, as this process sees them."""

    def __init__(self, shared: Shared, clock: Clock) -> None:
        self.shared, self._clock = shared, clock
        self.changes = 0
        """Rises with each word that some document changed."""
        self.listening = False
        """Whether this process is told of changes."""

    def document(self, name: str, form: Form[T]) -> SharedDocument[T]:
        """See `Documents`."""
        return StoredDocument(self, name, form)

    def names(self, prefix: str) -> list[str]:
        """See `Documents`."""
        return self.shared.names(prefix)

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """See `Documents`. Raises StoreBusy if somebody else has it for long."""
        ends = time.monotonic() + PATIENCE
        while (turn := self.shared.elect(TOPIC + name)) is None:
            if time.monotonic() > ends:
                raise StoreBusy(
                    f"another machine has been changing {name} in the store for {PATIENCE:.0f} s; try again"
                )
            time.sleep(0.02)
        try:
            yield
        finally:
            turn.release()

    def shift(self) -> float:
        """See `Documents`."""
        return self.shared.now() - self._clock.now()

    def changed(self, name: str) -> None:
        """A document was changed here: say so, here and to the others."""
        self.changes += 1
        self.shared.notify((TOPIC + name,))


class StoredDocument(Generic[T]):
    """One of them. Safe from many threads, processes and machines."""

    def __init__(self, documents: StoredDocuments, name: str, form: Form[T]) -> None:
        self._documents, self._name, self._form = documents, name, form
        self._shared = documents.shared
        self._mutex = threading.Lock()
        self._known: T | None = None
        self._version = -1
        self._seen, self._at = -1, 0.0

    def look(self, *, now: bool = False) -> T:
        """See `SharedDocument`. Asks the store when somebody said that it changed, and now and then. What was known
        serves where the store does not answer.
        """
        changes, at = self._documents.changes, time.monotonic()
        known = self._known
        believed = LOOK_AGAIN if self._documents.listening else UNHEARD
        if known is not None and not now and changes == self._seen and at - self._at < believed:
            return known
        try:
            found = self._shared.load(self._name)
        except StoreError:
            if known is None or now:
                raise
            return known
        version = found.version if found is not None else 0
        if known is None or version != self._version:
            known = self._form.empty() if found is None else self._form.read(found.data, self._where)
        self._known, self._version, self._seen, self._at = known, version, changes, at
        return known

    @contextmanager
    def changing(self) -> Iterator[T]:
        """See `SharedDocument`. Raises StoreBusy if somebody else changes it for long."""
        with self._mutex:
            with self._documents.turn(self._name):
                found = self._shared.load(self._name)
                value = self._form.empty() if found is None else self._form.read(found.data, self._where)
                yield value
                data = self._form.write(value).encode()
                if not self._shared.replace(self._name, data, found.version if found is not None else 0):
                    raise StoreBusy(f"{self._where} was changed by somebody else meanwhile; try again")
            self._documents.changed(self._name)

    def write(self, value: T) -> None:
        """See `SharedDocument`."""
        data = self._form.write(value).encode()
        while True:
            found = self._shared.load(self._name)
            if self._shared.replace(self._name, data, found.version if found is not None else 0):
                self._documents.changed(self._name)
                return

    def see(self) -> Seen[T]:
        """See `SharedDocument`."""
        found = self._shared.load(self._name)
        if found is None:
            return Seen(self._form.empty(), 0)
        return self._form.seen(found.data, found.version, self._where)

    def replace(self, seen: Seen[T], value: T) -> bool:
        """See `SharedDocument`."""
        if not self._shared.replace(self._name, self._form.write(value).encode(), cast("int", seen.version)):
            return False
        self._documents.changed(self._name)
        return True

    def remove(self) -> None:
        """See `SharedDocument`."""
        while (found := self._shared.load(self._name)) is not None:
            if self._shared.replace(self._name, None, found.version):
                self._documents.changed(self._name)

    @property
    def _where(self) -> str:
        return f"document {self._name} of the store"


__all__ = ["TOPIC", "StoredDocument", "StoredDocuments"]
