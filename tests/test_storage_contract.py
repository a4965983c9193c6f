"""The storage `memory` keeps the contract, and may serve as the model of the others."""

import pytest

for module in ("outbox_contract", "outbox_ends_contract", "inbox_contract", "inbox_care_contract", "bench"):
    pytest.register_assert_rewrite(f"dropr_core.testing.{module}")

from dropr_core.builtin.memory import MemoryStorage  # noqa: E402
from dropr_core.testing.builders import make_context  # noqa: E402
from dropr_core.testing.storage_contract import StorageContract  # noqa: E402
from dropr_core.testing.storage_machine import run_machine  # noqa: E402


class TestMemory(StorageContract):
    """The suite for the storage `memory`."""

    def make_storage(self, directory, clock, **context):
        return MemoryStorage(self.context(directory, clock, **context))


def test_machine_memory():
    """Through random lives the storage `memory` keeps every invariant of the checker."""
    run_machine(
        lambda directory, clock: MemoryStorage(make_context(directory, clock)),
        lambda storage, consumer: storage.inbox.kill(consumer),
    )
