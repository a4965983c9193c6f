"""The contract of a storage as tests, shipped for the authors of storages.

Owns `StorageContract`, the sum of the suites. It asks for abilities, never for names. Use:

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage_case(self):
            return StorageCase(make=lambda context: MyStorage(Options(), context))

Needs pytest and hypothesis.
"""

import pytest

from dropr_core.errors import DroprError
from dropr_core.testing.attempts_contract import AttemptsContract
from dropr_core.testing.bench import Bench
from dropr_core.testing.builders import CHANNEL, SENDER, Worker, job, send
from dropr_core.testing.essentials import Essentials
from dropr_core.testing.inbox_care_contract import InboxCareContract
from dropr_core.testing.inbox_contract import InboxContract
from dropr_core.testing.inbox_rank_contract import InboxRankContract
from dropr_core.testing.inbox_together_contract import InboxTogetherContract
from dropr_core.testing.lease_sheet_contract import LeaseSheetContract
from dropr_core.testing.outbox_contract import OutboxLogContract
from dropr_core.testing.outbox_ends_contract import OutboxEndsContract
from dropr_core.testing.staging_contract import StagingContract
from dropr_core.testing.storage_bulk_contract import StorageBulkContract
from dropr_core.testing.storage_cost_contract import StorageCostContract
from dropr_core.testing.storage_machine import run_machine
from dropr_core.testing.storage_process_contract import StorageProcessContract
from dropr_core.testing.storage_tiers_contract import StorageTiersContract
from dropr_core.testing.telling_contract import TellingContract

ABILITIES = frozenset({"durable", "processes", "ordering_key"})


class StorageContract(
    OutboxLogContract,
    OutboxEndsContract,
    StagingContract,
    InboxContract,
    InboxCareContract,
    InboxRankContract,
    InboxTogetherContract,
    StorageBulkContract,
    LeaseSheetContract,
    TellingContract,
    AttemptsContract,
    StorageCostContract,
    StorageTiersContract,
    StorageProcessContract,
):
    """Every test of the contract. Subclass it and write the fixture `storage_case`."""

    def test_abilities_are_known_words(self, bench: Bench) -> None:
        """What a storage declares is of the contract's vocabulary, said once on its class."""
        storage = bench.open()
        assert type(storage).abilities <= ABILITIES

    def test_two_directories_are_two_stores(self, bench: Bench) -> None:
        """Nothing is shared by storages in different directories."""
        one, two = bench.open("one"), bench.open("two")
        send(one.outbox, 3)
        assert two.outbox.lanes() == []
        assert len({one.outbox.store_id, two.outbox.store_id, one.inbox.store_id, two.inbox.store_id}) == 4

    def test_undeclared_ordering_keys_are_refused(self, bench: Bench) -> None:
        """A storage without ordering keys refuses a job that has one, instead of giving it out of order."""
        storage = bench.open()
        if "ordering_key" in storage.abilities:
            pytest.skip("this storage keeps ordering keys")
        with pytest.raises(DroprError):
            storage.inbox.put(CHANNEL, 5, SENDER, [job(), job(key="k")])
        assert Worker(storage.inbox).claim() == []

    @pytest.mark.timeout(900)  # a thousand opens and some ten thousand flushes, on whatever disk
    def test_random_lives(self, bench: Bench, strength: int) -> None:
        """Through random lives the storage shows what the reference model shows and keeps every invariant."""
        storage = bench.open("asked-for-its-abilities")
        run_machine(bench.make, bench.kill if bench.can_kill(storage) else None, strength=strength)

    @pytest.mark.timeout(900)
    def test_random_lives_by_the_first_tier(self, bench: Bench, strength: int) -> None:
        """The same, where everything of the second tier is what the contract says by default."""
        storage = bench.open("asked-for-its-abilities")
        kill = bench.kill if bench.can_kill(storage) else None
        run_machine(lambda where, clock: Essentials(bench.make(where, clock)), kill, strength=strength, examples=10)


__all__ = ["StorageContract"]
