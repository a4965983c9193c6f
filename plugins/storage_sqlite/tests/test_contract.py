"""The storage `sqlite` keeps the contract of storages."""

import pytest

pytest.importorskip("apsw")
from dropr_storage_sqlite import Options, dropr_storage

from dropr_core.testing import StorageCase, StorageContract


class TestSqlite(StorageContract):
    """The suite for the storage `sqlite`."""

    @pytest.fixture
    def storage_case(self):
        return StorageCase(make=lambda context: dropr_storage(Options(), context))
