"""Messages that end otherwise than simply, and what puts them down into files."""

from dropr_core.contracts.storage import Ack, Bury, Rejection
from dropr_core.model.names import StoreId
from dropr_core.testing.builders import LANE, Source, Worker, new_id, send, taken

REMEMBER, KEEP = 1000.0, 60.0
LOG = StoreId(b"log----1")


def put_down(storage):
    """Something durable in both halves, so that whatever may go out of memory has gone."""
    storage.outbox.hold("nobody", "so that something is written")
    storage.inbox.flush()
    Source(storage.inbox, "other", sender=f"sender{new_id().hex()}").fill(1)
    assert not any(
        record.over for lane in storage.outbox.engine.state.numbers.values() for record in lane.known.values()
    )
    assert not any(not job.live for job in storage.inbox.engine.state.jobs.values())
    assert storage.inbox.engine.state.outcomes == {}


def refuse(storage, count=1, **fields):
    """Messages that the peer refuses."""
    ids = send(storage.outbox, count, **fields)
    batch = taken(storage.outbox)
    storage.outbox.settle(LANE, batch.upto, [Rejection(one.sequence, "no", "not here") for one in batch.entries])
    return ids


def end(storage, how, count=1, **fields):
    """Messages that a consumer ends."""
    ids = Source(storage.inbox, sender=f"sender{new_id().hex()}").fill(count, **fields)
    assert all(storage.inbox.settle([how(claim) for claim in Worker(storage.inbox).claim(count)]))
    return ids


def bury(claim):
    return Bury(claim, "no")


def keep(claim):
    return Ack(claim, None, "", KEEP)
