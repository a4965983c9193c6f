"""The storage `memory` keeps the contract, and may serve as the model of the others."""

from collections import Counter

import pytest

from dropr_core.builtin.memory import MemoryStorage
from dropr_core.contracts.storage import Inbox, Outbox
from dropr_core.model.message import State
from dropr_core.system.clock import FakeClock
from dropr_core.testing import StorageCase, StorageContract
from dropr_core.testing.builders import Source, deliver, job, make_context, send, state_of

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


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def storage(tmp_path, clock):
    storage = MemoryStorage(make_context(tmp_path, clock))
    yield storage
    storage.close()


def first(half, monkeypatch, happens):
    """Something happens between what the next sweep sees and what it moves."""
    move = half.move

    def late(moves):
        monkeypatch.setattr(half, "move", move)
        happens()
        return move(moves)

    monkeypatch.setattr(half, "move", late)


def test_a_delivery_that_changes_before_a_sweep_ends_it_is_due_at_once(storage, clock, monkeypatch):
    """The default sweep of an outbox was too late for it, and says that it must look again; then it ends."""
    (sent,) = send(storage.outbox, 1, receipt=True)
    clock.advance(100)
    first(storage.outbox, monkeypatch, lambda: deliver(storage.outbox))
    assert Outbox.sweep(storage.outbox, 50.0) == ([], clock.now())
    assert Outbox.sweep(storage.outbox, 50.0)[0] == [sent]
    assert state_of(storage.outbox, sent) == State.DEAD


def test_a_message_that_goes_before_a_sweep_forgets_it_is_due_at_once(storage, clock, monkeypatch):
    """The default sweep of an inbox says that it must look again, and then that nothing is due."""
    Source(storage.inbox).push(job(expires_in=10.0))
    clock.advance(11)
    Inbox.sweep(storage.inbox)
    clock.advance(storage.inbox.context.remember + 1)
    first(storage.inbox, monkeypatch, lambda: Inbox.sweep(storage.inbox))
    assert Inbox.sweep(storage.inbox) == clock.now()
    assert Inbox.sweep(storage.inbox) is None
