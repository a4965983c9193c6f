"""The contract of a storage as tests, shipped for the authors of storages.

Owns `StorageContract`, the sum of the suites. It asks for abilities, never for names. Use:

    class TestMyStorage(StorageContract):
        def make_storage(self, directory, clock, **context):
            return MyStorage(Options(), self.context(directory, clock, **context))

        def kill_consumer(self, storage, consumer):    # optional: as the death of its process would
            ...

and `storage_machine.run_machine(make_storage)` for the long run. Needs pytest and hypothesis.
"""

from dropr_core.testing.bench import Bench
from dropr_core.testing.inbox_care_contract import InboxCareContract
from dropr_core.testing.inbox_contract import InboxContract
from dropr_core.testing.outbox_contract import OutboxLogContract
from dropr_core.testing.outbox_ends_contract import OutboxEndsContract

ABILITIES = frozenset({"durable", "processes", "ordering_key"})


class StorageContract(OutboxLogContract, OutboxEndsContract, InboxContract, InboxCareContract):
    """Every test of the contract. Subclass it and write `make_storage`."""

    def test_abilities_are_known_words(self, bench: Bench) -> None:
        """What a storage declares is of the contract's vocabulary, said once on its class."""
        storage = bench.open()
        assert type(storage).abilities <= ABILITIES

    def test_two_directories_are_two_stores(self, bench: Bench) -> None:
        """Nothing is shared by storages in different directories."""
        from dropr_core.testing.builders import send

        one, two = bench.open("one"), bench.open("two")
        send(one.outbox, 3)
        assert two.outbox.lanes() == []
        assert len({one.outbox.store_id, two.outbox.store_id, one.inbox.store_id, two.inbox.store_id}) == 4


__all__ = ["StorageContract"]
