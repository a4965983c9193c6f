"""What ended otherwise than simply, what is kept, and outcomes that nobody fetched stand in files, and still move."""

import pytest
from dropr_storage_fs.outbox.remembered import PastDeliveries
from fs_past_rig import KEEP, LOG, REMEMBER, bury, end, keep, put_down, refuse

from dropr_core.contracts.storage import Ack, Selection
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import Head
from dropr_core.protocol.reconcile import awaited
from dropr_core.testing.builders import (
    CHANNEL,
    LANE,
    PEER,
    SENDER,
    Source,
    Worker,
    deliver,
    job,
    outgoing,
    send,
    state_of,
    taken,
)


@pytest.mark.usefixtures("soon")
def test_a_dead_letter_is_shown_and_sent_again_from_its_file(opener):
    """In this process, in another and after opening anew: state, reason, bytes; and a redrive sends it, in order."""
    storage, other = opener(), opener()
    ids = refuse(storage, 3)
    mine = outgoing(b"own", fingerprint=b"print")
    storage.outbox.append([mine])
    storage.outbox.dead_letter(LANE, 4, "poison")
    put_down(storage)
    for again in (storage, other):
        assert [state_of(again.outbox, one) for one in ids] == ["failed"] * 3
        assert again.outbox.envelope(ids[1]) == b"envelope 1"
    other.close()
    storage.close()
    storage = opener()
    assert [delivery.reason for _, delivery in storage.outbox.scan(Selection(), limit=9)] == ["no: not here"] * 3 + [
        "poison"
    ]
    assert storage.outbox.counts()[PEER, CHANNEL] == {"sent": 4, "queued": 0, "failed": 3, "dead": 1}
    assert storage.outbox.redrive(Selection()) == 4
    assert [entry.id for entry in taken(storage.outbox).entries] == [*ids, mine.id]
    assert storage.outbox.counts()[PEER, CHANNEL]["failed"] == 0
    assert storage.outbox.append([mine])[0].sequences == (8,)
    put_down(storage)
    deliver(storage.outbox)
    storage.close()
    assert opener().outbox.append([mine])[0].existed


@pytest.mark.usefixtures("soon")
def test_what_has_ended_is_not_read_for_what_is_awaited(opener, monkeypatch):
    """A daemon asks for it at each greeting, and what has ended is remembered for a month."""
    storage = opener()
    refuse(storage, 3)
    put_down(storage)
    (one,) = send(storage.outbox, receipt=True)
    deliver(storage.outbox)
    monkeypatch.setattr(PastDeliveries, "of_lane", lambda *_: 1 / 0)
    assert [delivery.id for delivery in awaited(storage.outbox, PEER)] == [one]
    with pytest.raises(ZeroDivisionError):
        storage.outbox.scan(Selection(peer=PEER, states=frozenset({State.ACCEPTED})))


@pytest.mark.usefixtures("soon")
def test_a_receipt_that_comes_late_finds_what_stands_in_a_file(opener):
    """A delivery that was given up was processed after all; what was processed stays so."""
    storage = opener()
    ids = send(storage.outbox, 2, receipt=True)
    deliver(storage.outbox)
    failed = [Outcome(number, one, State.FAILED, "buried") for number, one in enumerate(ids, 1)]
    assert storage.outbox.receipts(PEER, LOG, failed, 2) == ids
    put_down(storage)
    assert storage.outbox.receipts(PEER, LOG, [Outcome(3, ids[0], State.PROCESSED, "", b"late")], 3) == ids[:1]
    put_down(storage)
    assert storage.outbox.receipts(PEER, LOG, [Outcome(4, ids[0], State.FAILED)], 4) == []
    assert [state_of(storage.outbox, one) for one in ids] == ["processed", "failed"]
    assert storage.outbox.status(ids[0])[0].result == b"late"
    assert storage.outbox.counts()[PEER, CHANNEL] == {
        "sent": 2,
        "queued": 0,
        "processed": 1,
        "failed": 1,
        "accepted": 0,
    }


@pytest.mark.usefixtures("soon")
def test_what_the_peer_lost_is_sent_again_from_its_file(opener):
    """A channel that keeps what it sent gives it again after a rewind."""
    storage = opener(keep_sent={CHANNEL: REMEMBER})
    ids = send(storage.outbox, 3)
    deliver(storage.outbox)
    put_down(storage)
    assert [state_of(storage.outbox, one) for one in ids] == ["accepted"] * 3
    assert storage.outbox.rewind(LANE, Head(1, ids[0])) == 2
    assert [entry.id for entry in taken(storage.outbox).entries] == ids[1:]
    assert storage.outbox.counts()[PEER, CHANNEL]["accepted"] == 1


@pytest.mark.usefixtures("soon")
def test_what_is_dead_above_the_head_is_not_sent(opener):
    """A lane whose deliveries were given up goes on behind them, before and after it is opened anew."""
    storage = opener()
    dead = send(storage.outbox, 5)
    for number in range(1, 6):
        storage.outbox.dead_letter(LANE, number, "poison")
    put_down(storage)
    assert storage.outbox.lanes() == []
    fresh = send(storage.outbox, 1)
    for again in (False, True):
        if again:
            storage.close()
            storage = opener()
        assert [entry.id for entry in taken(storage.outbox).entries] == fresh
        assert [state_of(storage.outbox, one) for one in dead] == ["dead"] * 5


@pytest.mark.usefixtures("soon")
def test_buried_and_kept_messages_are_shown_kicked_and_wiped_from_their_file(opener):
    """As they are from memory; what was done and is kept still stands against a possible duplicate."""
    storage = opener()
    buried, kept = end(storage, bury, 3), end(storage, keep, 2)
    put_down(storage)
    storage.close()
    storage = opener()
    inbox = storage.inbox
    assert inbox.counts()[CHANNEL] == {"ready": 0, "leased": 0, "bytes": 50, "buried": 3, "done": 2, "processed": 2}
    assert [info.id for info in inbox.scan(Selection(states=frozenset({State.BURIED})))] == buried
    assert [info.id for info in inbox.scan(Selection(), limit=2)] == buried[:2]
    assert inbox.status(buried[0]).reason == "no"
    assert inbox.envelope(kept[1]) == b"envelope 1"
    Source(inbox, sender="again").push(job(b"envelope 1", id=kept[1], possible_duplicate=True))
    assert inbox.counts()[CHANNEL]["ready"] == 0
    assert inbox.kick(Selection(ids=(buried[1],))) == 1
    assert Worker(inbox).one().envelope == b"envelope 1"
    assert inbox.wipe(Selection(ids=(buried[0],))) == 1
    assert inbox.wipe(Selection()) == 3
    assert [info.state for info in inbox.scan(Selection(channel=CHANNEL))] == ["leased"]
    assert inbox.counts()[CHANNEL]["bytes"] == 10


@pytest.mark.usefixtures("soon")
def test_each_record_is_forgotten_at_its_own_time(opener, clock, tmp_path):
    """What is kept for a minute goes after a minute, though it stands in one file with what is kept for long."""
    storage = opener()
    end(storage, bury, 2)
    clock.advance(1)
    end(storage, keep, 3)
    put_down(storage)
    clock.advance(KEEP)
    assert storage.inbox.sweep() == pytest.approx(clock.now() - KEEP - 1 + REMEMBER)
    assert storage.inbox.counts()[CHANNEL]["done"] == 0
    assert storage.inbox.counts()[CHANNEL]["bytes"] == 20
    assert [info.state for info in storage.inbox.scan(Selection(channel=CHANNEL))] == ["buried"] * 2
    clock.advance(REMEMBER)
    storage.inbox.sweep()
    assert storage.inbox.counts()[CHANNEL] == {
        "ready": 0,
        "leased": 0,
        "bytes": 0,
        "buried": 0,
        "done": 0,
        "processed": 3,
    }
    storage.close()
    opener()
    assert not list(tmp_path.glob("inbox/remembered.*"))


@pytest.mark.usefixtures("soon")
def test_outcomes_wait_in_files_for_their_senders(opener, tmp_path):
    """Each sender reads on in its log, across files and memory; what it has is forgotten."""
    storage = opener()
    source, worker = Source(storage.inbox), Worker(storage.inbox)
    other = Source(storage.inbox, sender="other")
    said = {SENDER: [], "other": []}
    for _ in range(4):
        for one in (source, other):
            ids = one.fill(3, receipt=True)
            said[one.lane.sender] += ids
            assert all(storage.inbox.settle([Ack(claim, b"result", "text/plain") for claim in worker.claim(3)]))
        put_down(storage)
    for again in (False, True):
        if again:
            storage.close()
            storage = opener()
        for sender, ids in said.items():
            store, rows = storage.inbox.outcomes(sender, None, 0, 100)
            assert [row.id for row in rows] == ids
            assert [row.number for row in rows] == list(range(1, 13))
            assert rows[4].result == b"result"
    assert [row.number for row in storage.inbox.outcomes(SENDER, store, 5, 3)[1]] == [6, 7, 8]
    assert storage.inbox.outcomes(SENDER, store, 12, 3)[1] == []
    put_down(storage)
    storage.close()
    storage = opener()
    assert [row.number for row in storage.inbox.outcomes("other", store, 0, 100)[1]] == list(range(1, 13))
    assert storage.inbox.outcomes("other", store, 12, 3)[1] == []
    storage.close()
    storage = opener()
    assert not list(tmp_path.glob("inbox/outcomes.*"))
    Source(storage.inbox, sender=SENDER, priority=1).fill(1, receipt=True)
    assert all(storage.inbox.settle([Ack(Worker(storage.inbox).one())]))
    assert [row.number for row in storage.inbox.outcomes(SENDER, store, 12, 3)[1]] == [13]
