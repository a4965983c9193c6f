"""The storage `fs` keeps the contract of storages."""

import pytest
from dropr_storage_fs import Options, dropr_storage

from dropr_core.testing import StorageCase, StorageContract


class TestFs(StorageContract):
    """The suite for the storage `fs`."""

    @pytest.fixture
    def storage_case(self):
        return StorageCase(make=lambda context: dropr_storage(Options(), context))
