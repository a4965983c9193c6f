"""What this storage does beyond the contract with messages that may come twice."""

import logging

import pytest

pytest.importorskip("apsw")

from dropr_storage_sqlite import Options, dropr_storage

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Arrival, Bury, Job, NewMessage, Selection
from dropr_core.model.names import START, Head, IdMaker, Lane, MessageId, SourceLane, StoreId
from dropr_core.system.clock import FakeClock

make = IdMaker()


@pytest.fixture
def storage(tmp_path):
    context = Context(node="n", data=tmp_path, clock=FakeClock(), log=logging.getLogger("t"), min_free=0)
    storage = dropr_storage(Options(reserve=0), context)
    yield storage
    storage.close()


def push(storage, store, job):
    source = SourceLane("shop", StoreId(store), "orders", 5)
    return storage.inbox.accept([Arrival(source, START, Head(1, job.id), [job])])[0]


def test_fault_62_a_flagged_message_that_still_waits_enters_once(storage):
    """A restored sender sends again under a new store id: the head moves, the message is not doubled."""
    job = Job(make(), b"x")
    assert push(storage, b"a" * 8, job).taken
    assert push(storage, b"b" * 8, job._replace(possible_duplicate=True)).taken
    assert storage.inbox.counts()["orders"]["ready"] == 1


def test_fault_49_same_id_with_other_content_is_kept_beside_it(storage):
    """Flagged or not, other content under the same id overwrites nothing and is not lost."""
    job = Job(make(), b"x")
    push(storage, b"a" * 8, job)
    push(storage, b"b" * 8, job._replace(envelope=b"y", possible_duplicate=True))
    assert storage.inbox.counts()["orders"]["ready"] == 2


def test_a_buried_message_can_be_sent_again(storage):
    """A sender that redrives what failed here is not silenced by the buried copy."""
    job, worker = Job(make(), b"x"), storage.inbox.register()
    push(storage, b"a" * 8, job)
    storage.inbox.settle([Bury(storage.inbox.claim(["orders"], 1, worker)[0], "no")])
    push(storage, b"b" * 8, job._replace(possible_duplicate=True))
    assert [claim.id for claim in storage.inbox.claim(["orders"], 9, worker)] == [job.id]


def test_redrive_keeps_the_order_in_which_they_were_sent(storage):
    """Deliveries that expired in another order are sent again in the order of `send`."""
    ids = [MessageId(bytes(15) + bytes([n])) for n in range(4)]
    lane = Lane("peer", "orders", 5)
    for number, one in enumerate(ids):
        storage.outbox.append([NewMessage(one, "orders", 5, ("peer",), b"x", expires_in=10.0 - number)])
    storage.outbox.context.clock.advance(20)
    assert storage.outbox.sweep(1e6)[0] == ids[::-1]
    assert storage.outbox.redrive(Selection()) == 4
    assert [entry.id for entry in storage.outbox.take(lane, 9, 999).entries] == ids
