"""What every contract test of a storage stands on: the fixtures, and how to open, reopen and kill.

Owns `Bench` and `StorageTests`, the base of the contract's classes. Must not know what is tested.
"""

from pathlib import Path
from typing import Any

import pytest

from dropr_core.clock import Clock, FakeClock
from dropr_core.contracts.storage import Storage
from dropr_core.testing.builders import make_context


class Bench:
    """Opens storages in one directory, and closes them all at the end."""

    def __init__(self, tests: "StorageTests", directory: Path, clock: FakeClock) -> None:
        self._tests, self.directory, self.clock = tests, directory, clock
        self._opened: list[Storage] = []

    def open(self, name: str = "", **context: Any) -> Storage:
        """A storage in a subdirectory; opened twice, both are the same store."""
        directory = self.directory / name if name else self.directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        storage = self._tests.make_storage(directory, self.clock, **context)
        self._opened.append(storage)
        return storage

    def reopen(self, storage: Storage, **context: Any) -> Storage:
        """Close and open again; skips the test where the storage does not outlive it."""
        if "durable" not in storage.abilities:
            pytest.skip("this storage is not durable, and says so")
        storage.close()
        return self.open(**context)

    def kill(self, storage: Storage, consumer: str) -> None:
        """As if the consumer's process had died."""
        self._tests.kill_consumer(storage, consumer)

    def close(self) -> None:
        """Close everything; safe twice."""
        while self._opened:
            self._opened.pop().close()


class StorageTests:
    """Base of the contract's classes: the two methods that an author writes, and the fixtures."""

    def make_storage(self, directory: Path, clock: Clock, **context: Any) -> Storage:
        """Open a storage in a directory. ``context``: fields of `Context`; see `builders.make_context`."""
        raise NotImplementedError("write make_storage(self, directory, clock, **context) in your test class")

    def kill_consumer(self, storage: Storage, consumer: str) -> None:
        """End a consumer as the death of its process would. Optional: without it those tests are skipped."""
        kill = getattr(storage.inbox, "kill", None)
        if kill is None:
            pytest.skip("kill_consumer is not written for this storage")
        kill(consumer)

    @staticmethod
    def context(directory: Path, clock: Clock, **context: Any) -> Any:
        """The `Context` to open a storage with."""
        return make_context(directory, clock, **context)

    @pytest.fixture
    def clock(self) -> FakeClock:
        """A clock that the test moves."""
        return FakeClock()

    @pytest.fixture
    def bench(self, tmp_path: Path, clock: FakeClock) -> Any:
        """Opens and closes storages."""
        bench = Bench(self, tmp_path / "data", clock)
        yield bench
        bench.close()

    @pytest.fixture
    def storage(self, bench: Bench) -> Storage:
        """A fresh storage without limits."""
        return bench.open()


__all__ = ["Bench", "StorageTests"]
