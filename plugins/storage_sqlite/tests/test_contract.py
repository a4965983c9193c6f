"""The storage `sqlite` keeps the contract of storages."""

import pytest

for module in ("outbox_contract", "outbox_ends_contract", "inbox_contract", "inbox_care_contract", "bench"):
    pytest.register_assert_rewrite(f"dropr_core.testing.{module}")

pytest.importorskip("apsw")
from dropr_storage_sqlite import Options, dropr_storage  # noqa: E402

from dropr_core.testing.builders import make_context  # noqa: E402
from dropr_core.testing.storage_contract import StorageContract  # noqa: E402
from dropr_core.testing.storage_machine import run_machine  # noqa: E402


class TestSqlite(StorageContract):
    """The suite for the storage `sqlite`."""

    def make_storage(self, directory, clock, **context):
        return dropr_storage(Options(), self.context(directory, clock, **context))

    def kill_consumer(self, storage, consumer):
        """The lock goes, the rows stay: all that others can see of a killed process."""
        storage.inbox._consumers.release(consumer)


@pytest.mark.timeout(900)  # a thousand opens and some ten thousand flushes, on whatever disk
def test_machine_sqlite():
    """Through random lives the storage `sqlite` shows what the model shows and keeps every invariant."""
    run_machine(
        lambda directory, clock: dropr_storage(Options(), make_context(directory, clock)),
        lambda storage, consumer: storage.inbox._consumers.release(consumer),
    )
