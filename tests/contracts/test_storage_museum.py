"""Planted bugs: each one must be found by the state machine, or the machine does not look."""

import pytest

from dropr_core.builtin.memory import MemoryStorage
from dropr_core.contracts.storage import Accepted, Ack, AppendResult
from dropr_core.model.message import State
from dropr_core.testing.builders import make_context
from dropr_core.testing.storage_machine import run_machine


def _forgets_the_head(storage):
    """The log-matching rule is not applied: a repeated push enters twice."""
    accept = storage.inbox.accept

    def broken(arrivals):
        for arrival in arrivals:
            storage.inbox._data.heads[arrival.source] = arrival.after
        return accept(arrivals)

    storage.inbox.accept = broken


def _loses_on_mismatch(storage):
    """A push that does not match is said to be taken."""
    accept = storage.inbox.accept
    storage.inbox.accept = lambda arrivals: [Accepted(a.upto, True) for a in arrivals if accept([a])]


def _does_not_fence(storage):
    """A stale token still settles."""
    settle = storage.inbox.settle

    def broken(changes):
        for change in changes:
            item = storage.inbox._data.items.get(change.claim.number)
            if item is not None and item.state is State.LEASED:
                item.token = change.claim.token
        return settle(changes)

    storage.inbox.settle = broken


def _ack_does_nothing(storage):
    """An acknowledgement is confirmed and not kept: the message comes back."""
    settle = storage.inbox.settle
    storage.inbox.settle = lambda changes: [isinstance(c, Ack) or settle([c])[0] for c in changes]


def _rewind_is_not_flagged(storage):
    """What is sent again after a loss is not marked as a possible duplicate."""
    rewind = storage.outbox.rewind

    def broken(lane, head):
        flagged = {id(i): i.possible_duplicate for i in storage.outbox._data.items.values()}
        again = rewind(lane, head)
        for item in storage.outbox._data.items.values():
            item.possible_duplicate = flagged[id(item)]
        return again

    storage.outbox.rewind = broken


def _ignores_keys(storage):
    """Ordering keys are declared and not kept."""
    add = storage.inbox._add
    storage.inbox._add = lambda channel, priority, sender, job: add(channel, priority, sender, job._replace(key=None))


def _stores_an_own_id_twice(storage):
    """The same id and content is stored once more."""
    append = storage.outbox.append

    def broken(messages):
        return [AppendResult(*append([m._replace(fingerprint=None)])[0]) for m in messages]

    storage.outbox.append = broken


def _wipes_live_ones(storage):
    """A wipe forgets everything."""
    wipe = storage.outbox.wipe

    def broken(selection):
        storage.outbox._data.items.clear()
        return wipe(selection)

    storage.outbox.wipe = broken


def _changes_bytes(storage):
    """The last byte of a message is cut off on the way to the consumer."""
    claim = storage.inbox.claim
    storage.inbox.claim = lambda *a: [c._replace(envelope=c.envelope[:-1]) for c in claim(*a)]


BUGS = [
    _forgets_the_head, _loses_on_mismatch, _does_not_fence, _ack_does_nothing, _rewind_is_not_flagged, _ignores_keys,
    _stores_an_own_id_twice, _wipes_live_ones, _changes_bytes,
]  # fmt: skip


@pytest.mark.parametrize("plant", BUGS, ids=[bug.__name__.strip("_") for bug in BUGS])
def test_planted_bug_is_found(plant):
    """The machine fails on a storage with this bug."""

    def open_storage(directory, clock):
        storage = MemoryStorage(make_context(directory, clock))
        plant(storage)
        return storage

    # It ends at the first life that fails, the fifth to thirtieth as a rule. Which ones are tried is not the same in
    # each process: Hypothesis takes constants from the modules that are loaded, so a hundred were too few once.
    with pytest.raises((AssertionError, ExceptionGroup)) as caught:
        run_machine(
            open_storage,
            lambda storage, consumer: storage.inbox.consumers.release(consumer),
            shrink=False,
            examples=1000,
        )
    errors = caught.value.exceptions if isinstance(caught.value, ExceptionGroup) else [caught.value]
    assert all(isinstance(error, AssertionError) for error in errors)
