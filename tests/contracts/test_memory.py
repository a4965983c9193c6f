"""The storage `memory` keeps the contract, and may serve as the model of the others."""

import pytest

from dropr_core.builtin.memory import MemoryStorage
from dropr_core.testing import StorageCase, StorageContract
from dropr_core.testing.bench import StorageTests


class TestMemory(StorageContract):
    """The suite for the storage `memory`."""

    @pytest.fixture
    def storage_case(self):
        return StorageCase(MemoryStorage)


def test_no_part_of_the_contract_has_a_fixture_of_the_whole():
    """A part that makes ``storage`` in its own way, or skips there, would do so for every test of the contract."""
    known = set(vars(StorageTests))
    for part in set(StorageContract.__mro__) - set(StorageTests.__mro__):
        assert not (taken := set(vars(part)) & known - set(vars(object)) - {"__module__", "__doc__"}), (part, taken)
