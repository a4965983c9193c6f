"""A small JSON file that every process of a node looks at often and changes seldom.

Owns how it is read again only when it has changed, and changed by one process at a time. Must not know what is in it.
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from dropr_core.errors import StoreCorrupt
from dropr_core.system.files import replace_text
from dropr_core.system.os_errors import store_errors
from dropr_core.system.ownership import open_private

T = TypeVar("T")


class SharedDocument(Generic[T]):
    """One such file. Safe from many threads and processes."""

    def __init__(
        self, path: Path, decode: Callable[[Any], T], encode: Callable[[T], object], empty: Callable[[], T], advice: str
    ) -> None:
        """``empty``: what a missing file means. ``decode`` raises ValueError, KeyError, TypeError or AttributeError for
        what it cannot read; ``advice``: what to do then.
        """
        self._path, self._decode, self._encode, self._empty, self._advice = path, decode, encode, empty, advice
        self._mutex = threading.Lock()
        self._known: tuple[tuple[int, int, int] | None, T] = None, empty()

    def look(self) -> T:
        """What it says; nobody may change that. Costs a look at the file's date. Raises StoreError."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            if self._known[0] is not None:
                self._known = None, self._empty()
            return self._known[1]
        except OSError:
            return self._known[1]  # as it was
        seen = found.st_mtime_ns, found.st_ino, found.st_size
        if seen != self._known[0]:
            self._known = seen, self._read()
        return self._known[1]

    @contextmanager
    def changing(self) -> Iterator[T]:
        """What it says now, to be changed in the block; on stable storage after it. Raises StoreError."""
        with self._mutex, store_errors(self._path):
            lock = open_private(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)  # held for the time of one small write
                value = self._read()
                yield value
                replace_text(self._path, json.dumps(self._encode(value)) + "\n", durable=True)
            finally:
                os.close(lock)

    def _read(self) -> T:
        with store_errors(self._path):
            try:
                text = self._path.read_text(encoding="utf-8")
            except FileNotFoundError:
                return self._empty()
        try:
            return self._decode(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreCorrupt(f"{self._path} cannot be read ({error}): {self._advice}") from None


__all__ = ["SharedDocument"]
