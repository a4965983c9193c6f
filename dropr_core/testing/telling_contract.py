"""Contract tests of a storage: who is told when something can be seen.

Owns one test for each sentence about `append_telling`, `accept_telling` and `claim_at_once`. Must not know any storage
by name.
"""

from collections.abc import Sequence

import pytest

from dropr_core.contracts.storage import Accepted, Storage
from dropr_core.errors import Conflict
from dropr_core.model.names import START, Head
from dropr_core.testing.bench import StorageTests
from dropr_core.testing.builders import CHANNEL, SENDER, Source, Worker, job, new_id, outgoing


class TellingContract(StorageTests):
    """What is told of what is stored."""

    def test_a_send_is_told_once_when_the_daemon_can_take_it(self, storage: Storage) -> None:
        """What `append_telling` returns is what `append` does, and then all of it can be taken."""
        told: list[int] = []
        one, two = outgoing(), outgoing()
        placed = storage.outbox.append_telling([one, two], lambda: told.append(len(storage.outbox.lanes())))
        assert told == [1]
        assert [(result.id, result.sequences) for result in placed] == [(one.id, (1,)), (two.id, (2,))]
        batch = storage.outbox.take(storage.outbox.lanes()[0].lane, 10, 1 << 20)
        assert batch is not None
        assert [entry.id for entry in batch.entries] == [one.id, two.id]

    def test_a_send_that_is_refused_is_told_to_nobody(self, storage: Storage) -> None:
        """Nothing was stored, so there is nothing to see."""
        told: list[None] = []
        first = outgoing()._replace(fingerprint=b"a" * 16)
        storage.outbox.append([first])
        with pytest.raises(Conflict):
            storage.outbox.append_telling([first._replace(fingerprint=b"b" * 16)], lambda: told.append(None))
        assert told == []

    def test_arrivals_are_told_once_with_their_answers(self, storage: Storage) -> None:
        """Those that were taken, and those that were not; a consumer finds the former."""
        source, told = Source(storage.inbox), list[tuple[Sequence[Accepted], int]]()
        good = source.arrival(job(), job())
        bad = source.arrival(job(), after=Head(7, new_id()))

        def seen(words: Sequence[Accepted]) -> None:
            told.append((list(words), sum(states.get("ready", 0) for states in storage.inbox.counts().values())))

        words = storage.inbox.accept_telling([bad, good], seen)
        assert words == [Accepted(START, taken=False), Accepted(good.upto, taken=True)]
        assert told == [(words, 2)]
        assert storage.inbox.heads(SENDER) == {source.lane: good.upto}

    def test_a_claim_at_once_is_a_claim(self, storage: Storage) -> None:
        """It leases, counts the attempt, and what is acknowledged by it is gone."""
        Source(storage.inbox).fill(2)
        worker = Worker(storage.inbox)
        claims = storage.inbox.claim_at_once([CHANNEL], 1, worker.name)
        assert [claim.attempt for claim in claims] == [1]
        assert storage.inbox.acknowledge(claims) == [True]
        assert len(worker.claim()) == 1


__all__ = ["TellingContract"]
