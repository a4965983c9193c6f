"""The storage `sqlite` keeps the contract of storages."""

from contextlib import contextmanager

import pytest

pytest.importorskip("apsw")
import apsw
from dropr_storage_sqlite import Options, dropr_storage

from dropr_core.testing import StorageCase, StorageContract
from dropr_core.testing.cost import Steps


@contextmanager
def steps():
    """Counts the steps of SQLite's machine, on every connection that is opened meanwhile."""
    taken = Steps()

    def hook(connection):
        connection.set_progress_handler(taken.count, Steps.EVERY)

    apsw.connection_hooks.append(hook)
    try:
        yield lambda: taken.taken
    finally:
        apsw.connection_hooks.remove(hook)


class TestSqlite(StorageContract):
    """The suite for the storage `sqlite`."""

    @pytest.fixture
    def storage_case(self):
        return StorageCase(make=lambda context: dropr_storage(Options(), context), work=steps)
