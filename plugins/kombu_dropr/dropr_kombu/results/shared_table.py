"""The same table where several machines have one node: in the small documents that its storage offers.

Owns how an entry and a chord stand in a document. A result has 4 MiB at most here (`contracts/shared.py`). Must not
know Celery.
"""

import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from dropr_core.contracts.shared import Shared
from dropr_core.errors import StoreBusy
from dropr_kombu.results.table import Entry

_ENTRIES, _CHORDS = "celery-results/entry/", "celery-results/chord/"
_TRIES = 1000
"""How often a change is tried while other machines change the same document."""


class _Until(msgspec.Struct):
    until: float | None = None


class _Kept(msgspec.Struct):
    value: bytes
    final: bool = False
    until: float | None = None


class _Chord(msgspec.Struct):
    size: int | None = None
    parts: dict[str, bytes] = {}
    until: float | None = None


class SharedTable:
    """As `Table`, for all machines of the node."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._writes = 0

    def get(self, keys: Sequence[str]) -> dict[str, bytes]:
        """What is kept under these keys. Raises StoreError."""
        found = dict[str, bytes]()
        for key in keys:
            document = self._shared.load(_ENTRIES + key)
            kept = msgspec.msgpack.decode(document.data, type=_Kept) if document is not None else None
            if kept is not None and not _over(kept.until):
                found[key] = kept.value
        return found

    def put(self, entries: Iterable[Entry]) -> None:
        """Keep these, durably; what is final stays as it is. Raises StoreError, TooBig."""
        for entry in entries:
            self._keep(entry)
            self._writes += 1
            if self._writes % 1000 == 0:
                self.clean()

    def _keep(self, entry: Entry) -> None:
        data = msgspec.msgpack.encode(_Kept(entry.value, entry.final, entry.until))

        def change(before: bytes | None) -> bytes | None:
            final = before is not None and msgspec.msgpack.decode(before, type=_Kept).final
            return before if final else data

        self._change(_ENTRIES + entry.key, change)

    def delete(self, key: str) -> None:
        """Forget one. Raises StoreError."""
        self._change(_ENTRIES + key, lambda _: None)

    def expect(self, chord: str, size: int, until: float | None) -> None:
        """How many parts a chord has. Raises StoreError."""

        def change(before: bytes | None) -> bytes:
            found = _chord_of(before)
            found.size, found.until = size, until
            return msgspec.msgpack.encode(found)

        self._change(_CHORDS + chord, change)

    def add_part(self, chord: str, part: str, value: bytes, until: float | None) -> list[bytes] | None:
        """One more part of a chord; all of them in order, to one caller alone, when none is missing any more. Raises
        StoreError, TooBig.
        """
        whole: list[bytes] | None = None

        def change(before: bytes | None) -> bytes | None:
            nonlocal whole
            found = _chord_of(before)
            found.parts[part], found.until = value, until
            complete = found.size is not None and len(found.parts) >= found.size
            whole = [found.parts[name] for name in sorted(found.parts)] if complete else None
            return None if complete else msgspec.msgpack.encode(found)

        self._change(_CHORDS + chord, change)
        return whole

    def clean(self) -> None:
        """Forget what is past its time. Raises StoreError."""
        for name in (*self._shared.names(_ENTRIES), *self._shared.names(_CHORDS)):
            document = self._shared.load(name)
            if document is not None and _over(msgspec.msgpack.decode(document.data, type=_Until).until):
                self._shared.replace(name, None, document.version)

    def close(self) -> None:
        """Nothing is held."""

    def _change(self, name: str, change: Callable[[bytes | None], bytes | None]) -> None:
        for _ in range(_TRIES):
            document = self._shared.load(name)
            before = document.data if document is not None else None
            data = change(before)
            if data == before or self._shared.replace(name, data, document.version if document is not None else 0):
                return
        raise StoreBusy(f"{name}: other machines change it all the time")


def _over(until: float | None) -> bool:
    return until is not None and until <= time.time()


def _chord_of(data: bytes | None) -> _Chord:
    return _Chord() if data is None else msgspec.msgpack.decode(data, type=_Chord)
