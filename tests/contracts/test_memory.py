"""The storage `memory` keeps the contract, and may serve as the model of the others."""

import pytest

from dropr_core.builtin.memory import MemoryStorage
from dropr_core.testing import StorageCase, StorageContract


class TestMemory(StorageContract):
    """The suite for the storage `memory`."""

    @pytest.fixture
    def storage_case(self):
        return StorageCase(MemoryStorage)
