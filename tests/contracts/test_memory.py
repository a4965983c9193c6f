"""The storage `memory` keeps the contract, and may serve as the model of the others."""

from collections import Counter

import pytest

from dropr_core.builtin.memory import MemoryStorage
from dropr_core.testing import StorageCase, StorageContract

GROWS = frozenset({
    "outbox.lanes", "outbox.settle", "outbox.clear_in_flight", "outbox.peers", "inbox.claim", "inbox.outcomes",
})  # fmt: skip
"""What costs more when more waits: a model is simple before it is fast."""


class TestMemory(StorageContract):
    """The suite for the storage `memory`."""

    @pytest.fixture
    def storage_case(self):
        return StorageCase(MemoryStorage, grows=GROWS)


def test_no_part_of_the_contract_hides_what_another_part_has():
    """Of two tests of one name one would never run; a fixture of one part would serve every test of the contract."""
    parts = [part for part in StorageContract.__mro__ if part is not object]
    names = Counter(name for part in parts for name in vars(part) if not name.startswith("_"))
    assert [name for name, count in names.items() if count > 1] == []
