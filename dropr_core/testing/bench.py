"""What every contract test of a storage stands on: the fixtures, and how to open, reopen and kill.

Owns `StorageCase`, `Bench` and `StorageTests`, the base of the contract's classes. Must not know what is tested.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Storage
from dropr_core.system.clock import Clock, FakeClock
from dropr_core.testing.builders import make_context
from dropr_core.testing.contract import Contract, shut
from dropr_core.testing.cost import Counter


@attrs.frozen
class StorageCase:
    """What the tests need to know about a storage."""

    make: Callable[[Context], Storage]
    """Opens the store in ``context.data``; opened twice, both are the same store. The tests close it."""
    kill: Callable[[Storage, str], None] | None = None
    """Ends a consumer as the death of its process would: its lock goes, its leases and its lease sheet stay. Without it
    ``inbox.sheets.abandon`` and ``inbox.consumers.release`` do that."""
    work: Callable[[], AbstractContextManager[Counter]] | None = None
    """Counts what the storage has a library do, which Python does not see: entered before the store is opened, it gives
    a figure that grows with the work. `cost.sqlite3_steps` is one."""
    grows: frozenset[str] = frozenset()
    """Calls whose cost does grow with what waits, as `storage_cost_contract` names them: ``outbox.locate``. Users of
    the storage should find them in its documentation."""


class Bench:
    """Opens storages in one directory, and closes them all at the end."""

    def __init__(
        self, tests: "StorageTests", directory: Path, clock: FakeClock, case: StorageCase | None = None
    ) -> None:
        self._tests, self.directory, self.clock, self._case = tests, directory, clock, case
        self._opened: list[Storage] = []

    def open(self, name: str = "", **context: Any) -> Storage:
        """A storage in a subdirectory; opened twice, both are the same store."""
        directory = self.directory / name if name else self.directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        storage = self.make(directory, self.clock, **context)
        self._opened.append(storage)
        return storage

    def make(self, directory: Path, clock: Clock, **context: Any) -> Storage:
        """A storage that the caller closes."""
        if self._case is not None:
            return self._case.make(make_context(directory, clock, **context))
        return self._tests.make_storage(directory, clock, **context)

    def reopen(self, storage: Storage, **context: Any) -> Storage:
        """Close and open again; skips the test where the storage does not outlive it."""
        if "durable" not in storage.abilities:
            pytest.skip("this storage is not durable, and says so")
        shut(storage, self._tests.patience)
        return self.open(**context)

    def kill(self, storage: Storage, consumer: str) -> None:
        """As if the consumer's process had died."""
        if self._case is not None and self._case.kill is not None:
            self._case.kill(storage, consumer)
        else:
            self._tests.kill_consumer(storage, consumer)

    def can_kill(self, storage: Storage) -> bool:
        """Whether `kill` works with this storage."""
        own = type(self._tests).kill_consumer is not StorageTests.kill_consumer
        return own or (self._case is not None and self._case.kill is not None) or hasattr(storage.inbox, "consumers")

    def close(self) -> None:
        """Close everything, each of them in bounded time; safe twice."""
        with ExitStack() as stack:
            while self._opened:
                stack.callback(shut, self._opened.pop(0), self._tests.patience)


class StorageTests(Contract):
    """Base of the contract's classes: the fixture that an author writes, and those of the tests."""

    @pytest.fixture
    def storage_case(self) -> StorageCase | None:
        """Override this (or, where the test class itself must know more, write `make_storage`)."""
        return None

    def make_storage(self, directory: Path, clock: Clock, **context: Any) -> Storage:
        """Open a storage in a directory. ``context``: fields of `Context`; see `builders.make_context`."""
        raise NotImplementedError("write the fixture storage_case in your test class")

    def kill_consumer(self, storage: Storage, consumer: str) -> None:
        """End a consumer as the death of its process would: its lease sheet stays, if there is one."""
        inbox = storage.inbox
        if inbox.sheets is not None:
            inbox.sheets.abandon(consumer)
        inbox.consumers.release(consumer)

    @staticmethod
    def context(directory: Path, clock: Clock, **context: Any) -> Any:
        """The `Context` to open a storage with."""
        return make_context(directory, clock, **context)

    @pytest.fixture
    def clock(self) -> FakeClock:
        """A clock that the test moves."""
        return FakeClock()

    @pytest.fixture
    def bench(self, tmp_path: Path, clock: FakeClock, storage_case: StorageCase | None) -> Any:
        """Opens and closes storages."""
        bench = Bench(self, tmp_path / "data", clock, storage_case)
        yield bench
        bench.close()

    @pytest.fixture
    def storage(self, bench: Bench) -> Storage:
        """A fresh storage without limits."""
        return bench.open()


__all__ = ["Bench", "StorageCase", "StorageTests"]
