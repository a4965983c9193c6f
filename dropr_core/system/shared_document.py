"""A small JSON document that every process of a node looks at often and changes seldom.

Owns what such a document offers, and those that are files of the data directory: how they are read again only when they
have changed, and changed by one process at a time. Must not know what is in it, nor how machines share one
(api/stored_documents.py).
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import attrs

from dropr_core.errors import StoreCorrupt
from dropr_core.system.files import replace_text, sync_directory
from dropr_core.system.os_errors import store_errors
from dropr_core.system.ownership import make_private_directory, open_private

T = TypeVar("T")


@attrs.frozen
class Form(Generic[T]):
    """How a document is written."""

    decode: Callable[[Any], T]
    """Raises ValueError, KeyError, TypeError or AttributeError for what it cannot read."""
    encode: Callable[[T], object]
    empty: Callable[[], T]
    """What a missing document means."""
    advice: str
    """What to do about one that cannot be read."""

    def read(self, data: str | bytes, where: object) -> T:
        """Raises StoreCorrupt."""
        try:
            return self.decode(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreCorrupt(f"{where} cannot be read ({error}): {self.advice}") from None

    def seen(self, data: bytes | None, version: object, where: object) -> "Seen[T]":
        """The same of what was found; nothing: it is missing."""
        try:
            return Seen(self.empty() if data is None else self.read(data, where), version)
        except StoreCorrupt as trouble:
            return Seen(self.empty(), version, trouble)

    def write(self, value: T) -> str:
        """As it stands there."""
        return json.dumps(self.encode(value)) + "\n"


@attrs.frozen
class Seen(Generic[T]):
    """What a document said at a moment."""

    value: T
    version: object
    """Another one with each change; compared by `SharedDocument.replace` alone."""
    trouble: StoreCorrupt | None = None
    """Why it cannot be read; the value is that of a missing one then."""


class SharedDocument(Protocol[T]):
    """One such document. Safe from many threads and processes."""

    def look(self, *, now: bool = False) -> T:
        """What it says; nobody may change that, and it is the same object until something changed. Cheap; ``now``: not
        what it said a moment ago, whatever that costs. Raises StoreError.
        """
        ...

    def changing(self) -> AbstractContextManager[T]:
        """What it says now, to be changed in the block; durable after it. Raises StoreError."""
        ...

    def write(self, value: T) -> None:
        """Put this in its place, whatever stands there; durable. For who has a turn of its own. Raises StoreError."""
        ...

    def see(self) -> Seen[T]:
        """What it says now, for `replace`, also if it cannot be read. Raises StoreError."""
        ...

    def replace(self, seen: Seen[T], value: T) -> bool:
        """Put this in its place, durably, if it was not changed since it was seen. False: it was, and nothing is
        changed; or it is unknown whether this very call changed it. Raises StoreError.
        """
        ...

    def remove(self) -> None:
        """Forget it; durable. Raises StoreError."""
        ...


class Documents(Protocol):
    """Where the documents of a node stand: files of its data directory, or its store if machines share that."""

    def document(self, name: str, form: Form[T]) -> SharedDocument[T]:
        """The one of a name such as ``paused.json`` or ``schedules/6869.json``."""
        ...

    def names(self, prefix: str) -> list[str]:
        """Of those that are there, the names that begin like this; it ends with ``/``. Raises StoreError."""
        ...

    def turn(self, name: str) -> AbstractContextManager[None]:
        """Nobody else has this turn meanwhile, in whatever process. For the time of a few small writes. Raises
        StoreError.
        """
        ...

    def shift(self) -> float:
        """Seconds to add to node time for the time that such documents speak of: machines have different node times."""
        ...


class FileDocuments:
    """Those of one data directory."""

    def __init__(self, data: Path) -> None:
        self._data = data

    def document(self, name: str, form: Form[T]) -> SharedDocument[T]:
        """See `Documents`."""
        return FileDocument(self._data / name, form, nested="/" in name)

    def names(self, prefix: str) -> list[str]:
        """See `Documents`."""
        with store_errors(self._data / prefix):
            return sorted(prefix + path.name for path in (self._data / prefix).glob("*.json"))

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """See `Documents`."""
        path = self._data / name
        with store_errors(path), _locked(path, nested="/" in name):
            yield

    def shift(self) -> float:
        """See `Documents`."""
        return 0.0


class FileDocument(Generic[T]):
    """One that is a file."""

    def __init__(self, path: Path, form: Form[T], *, nested: bool = False) -> None:
        """``nested``: its directory is made when it is needed."""
        self._path, self._form, self._nested = path, form, nested
        self._path_text = str(path)
        self._mutex = threading.Lock()
        self._known: tuple[tuple[int, int, int] | None, T] = None, form.empty()

    def look(self, *, now: bool = False) -> T:  # noqa: ARG002 - it is always as it is now
        """See `SharedDocument`. Costs a look at the file's date."""
        try:
            found = os.stat(self._path_text)  # noqa: PTH116 - with each message, and a Path costs more than the call
        except FileNotFoundError:
            if self._known[0] is not None:
                self._known = None, self._form.empty()
            return self._known[1]
        except OSError:
            return self._known[1]  # as it was
        seen = found.st_mtime_ns, found.st_ino, found.st_size
        if seen != self._known[0]:
            self._known = seen, self._read()
        return self._known[1]

    @contextmanager
    def changing(self) -> Iterator[T]:
        """See `SharedDocument`."""
        with self._mutex, store_errors(self._path), _locked(self._path.with_suffix(".lock"), nested=self._nested):
            value = self._read()
            yield value
            replace_text(self._path, self._form.write(value), durable=True)

    def write(self, value: T) -> None:
        """See `SharedDocument`."""
        with store_errors(self._path):
            if self._nested:
                make_private_directory(self._path.parent)
            replace_text(self._path, self._form.write(value), durable=True)

    def see(self) -> Seen[T]:
        """See `SharedDocument`."""
        data = self._data()
        return self._form.seen(data, data, self._path)

    def replace(self, seen: Seen[T], value: T) -> bool:
        """See `SharedDocument`."""
        with self._mutex, store_errors(self._path), _locked(self._path.with_suffix(".lock"), nested=self._nested):
            if self._data() != seen.version:
                return False
            replace_text(self._path, self._form.write(value), durable=True)
            return True

    def remove(self) -> None:
        """See `SharedDocument`. The lock's file stays: another process may hold it."""
        with store_errors(self._path):
            try:
                self._path.unlink()
            except FileNotFoundError:
                return
            sync_directory(self._path.parent)

    def _read(self) -> T:
        data = self._data()
        return self._form.empty() if data is None else self._form.read(data, self._path)

    def _data(self) -> bytes | None:
        with store_errors(self._path):
            try:
                return self._path.read_bytes()
            except FileNotFoundError:
                return None


@contextmanager
def _locked(path: Path, *, nested: bool) -> Iterator[None]:
    if nested:
        make_private_directory(path.parent)
    lock = open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # held for the time of one small write
        yield
    finally:
        os.close(lock)


__all__ = ["Documents", "FileDocument", "FileDocuments", "Form", "Seen", "SharedDocument"]
