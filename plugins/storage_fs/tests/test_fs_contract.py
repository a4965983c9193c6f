"""The storage `fs` keeps the contract of storages."""

import pytest
from dropr_storage_fs import Options, dropr_storage

from dropr_core.testing import StorageCase, StorageContract

GROWS = frozenset({"outbox.sweep", "inbox.sweep", "inbox.reap"})
"""They go through all messages that have a state of their own (docs/formats/fs.md)."""


class TestFs(StorageContract):
    """The suite for the storage `fs`."""

    @pytest.fixture
    def storage_case(self):
        return StorageCase(make=lambda context: dropr_storage(Options(), context), grows=GROWS)
