"""Contract tests of an outbox that takes in staging logs (`Outbox.staging`); skipped for the others.

Owns one test for each sentence about `append_staged`, `staged` and `unstage`. Must not know any storage by name.
"""

import pytest

from dropr_core.contracts.storage import Storage
from dropr_core.errors import QueueFull
from dropr_core.model.names import MessageId
from dropr_core.testing.bench import Bench, StorageTests
from dropr_core.testing.builders import PEER, outgoing, send, taken

LOG, OTHER = "4711-0123456789abcdef", "4712-0123456789abcdef"


def queued(storage: Storage) -> list[MessageId]:
    """The ids of all that waits in the lane, in order."""
    return [entry.id for entry in taken(storage.outbox).entries]


class StagingContract(StorageTests):
    """What an outbox must do with the logs of channels with ``durability: interval``."""

    @pytest.fixture
    def staging(self, bench: Bench) -> Storage:
        """A fresh storage; skips where it has no staging. Not named ``storage``: that is every other test's."""
        storage = bench.open()
        if not storage.outbox.staging:
            pytest.skip("this storage takes in no staging logs, and says so")
        return storage

    def test_a_portion_of_a_log_enters_once(self, staging: Storage) -> None:
        """With a position that is not the one noted nothing is stored, and that is said."""
        first, second = [outgoing() for _ in range(3)], [outgoing() for _ in range(2)]
        assert staging.outbox.append_staged(first, LOG, 0, 300)
        assert not staging.outbox.append_staged(first, LOG, 0, 300)
        assert staging.outbox.append_staged(second, LOG, 300, 500)
        assert not staging.outbox.append_staged(second, LOG, 300, 500)
        assert queued(staging) == [message.id for message in first + second]
        assert staging.outbox.staged() == {LOG: 500}

    def test_it_stands_behind_what_was_appended_before(self, staging: Storage) -> None:
        """A portion takes the next numbers of its lanes, as any append does."""
        before = send(staging.outbox, 2)
        portion = [outgoing(), outgoing(peers=("elsewhere", PEER)), outgoing(receipt=True)]
        assert staging.outbox.append_staged(portion, LOG, 0, 9)
        after = send(staging.outbox, 1)
        assert queued(staging) == [*before, *(message.id for message in portion), *after]

    def test_messages_and_note_are_durable_together(self, staging: Storage, bench: Bench) -> None:
        """After reopening both are there; what was noted is not taken again."""
        portion = [outgoing() for _ in range(3)]
        staging.outbox.append_staged(portion, LOG, 0, 77)
        again = bench.reopen(staging)
        assert again.outbox.staged() == {LOG: 77}
        assert not again.outbox.append_staged(portion, LOG, 0, 77)
        assert queued(again) == [message.id for message in portion]

    def test_logs_are_told_apart_and_forgotten(self, staging: Storage, bench: Bench) -> None:
        """Each log has a note of its own; one that is gone is forgotten, durably, and what it brought stays."""
        one, other = [outgoing()], [outgoing()]
        staging.outbox.append_staged(one, LOG, 0, 5)
        staging.outbox.append_staged(other, OTHER, 0, 8)
        assert staging.outbox.staged() == {LOG: 5, OTHER: 8}
        staging.outbox.unstage([LOG, "never-heard-of"])
        again = bench.reopen(staging)
        assert again.outbox.staged() == {OTHER: 8}
        assert queued(again) == [one[0].id, other[0].id]

    @pytest.mark.usefixtures("staging")
    def test_a_full_queue_takes_and_notes_nothing(self, bench: Bench) -> None:
        """Limits hold for staged messages; what was refused may come again."""
        full = bench.open("small", max_messages=2)
        portion = [outgoing() for _ in range(3)]
        with pytest.raises(QueueFull):
            full.outbox.append_staged(portion, LOG, 0, 30)
        assert full.outbox.staged() == {}
        assert full.outbox.append_staged(portion[:2], LOG, 0, 20)


__all__ = ["StagingContract"]
