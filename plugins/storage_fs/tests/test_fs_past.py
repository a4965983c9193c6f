"""What ended otherwise than simply, what is kept, and outcomes that nobody fetched stand in files, and still move."""

import struct
import tracemalloc
from zlib import crc32

import msgspec
import pytest
from dropr_storage_fs import Options, dropr_storage
from dropr_storage_fs.engine import generations, journal, remembered
from dropr_storage_fs.files import log as logs
from dropr_storage_fs.files import sorted_run
from dropr_storage_fs.files.ranges import Ranges
from dropr_storage_fs.files.sorted_run import Entry, SortedRun
from hypothesis import given
from hypothesis import strategies as st

from dropr_core.contracts.storage import Ack, Bury, Rejection, Selection
from dropr_core.errors import Held
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import Head, StoreId
from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import (
    CHANNEL,
    LANE,
    PEER,
    SENDER,
    Source,
    Worker,
    deliver,
    job,
    make_context,
    new_id,
    outgoing,
    send,
    state_of,
    taken,
)

REMEMBER, KEEP = 1000.0, 60.0
LOG = StoreId(b"log----1")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def opener(tmp_path, clock):
    opened = []

    def make(**more):
        opened.append(dropr_storage(Options(reserve=0), make_context(tmp_path, clock, remember=REMEMBER, **more)))
        return opened[-1]

    yield make
    for storage in opened:
        storage.close()


@pytest.fixture
def soon(monkeypatch):
    """Whatever may go out of memory goes at once."""
    monkeypatch.setattr(remembered, "asks", lambda count, _size, _live: count > 0)
    monkeypatch.setattr(remembered, "RUN_LEAST", 1)


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


# ── both halves ──────────────────────────────────────────────────────────────────────────────────


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


@pytest.mark.usefixtures("soon")
def test_bodies_of_what_stands_in_files_never_pin_a_segment(opener, monkeypatch):
    """They are copied forward, and read and sent from there; a body that nobody needs goes."""
    monkeypatch.setattr(logs, "SEGMENT_SIZE", 4096)
    monkeypatch.setattr(logs, "AHEAD", 0)
    storage = opener()
    failed, buried = refuse(storage), end(storage, bury)
    gone = refuse(storage)
    put_down(storage)
    source = Source(storage.inbox)
    for _ in range(20):
        send(storage.outbox, 20)
        source.fill(20)
    assert storage.outbox.wipe(Selection(ids=tuple(gone))) == 1
    deliver(storage.outbox)
    assert all(storage.inbox.settle([Ack(claim) for claim in Worker(storage.inbox).claim(1000)]))
    for _ in range(3):
        storage.outbox.sweep(1e9)
        storage.inbox.sweep()
        put_down(storage)
    for half in (storage.outbox, storage.inbox):
        assert len(half.engine.log(0).segments.names()) == 1
    storage.close()
    storage = opener()
    assert storage.outbox.envelope(failed[0]) == storage.inbox.envelope(buried[0]) == b"envelope 0"
    assert storage.outbox.redrive(Selection()) == storage.inbox.kick(Selection()) == 1


def test_what_has_a_key_leaves_nothing_behind(opener, monkeypatch):
    """A queue of messages with states of their own lets its segments go, and no number of them stays in memory."""
    monkeypatch.setattr(logs, "SEGMENT_SIZE", 4096)
    monkeypatch.setattr(logs, "AHEAD", 0)
    storage = opener()
    source, worker = Source(storage.inbox), Worker(storage.inbox)
    for _ in range(30):
        source.fill(10, key="one")
        for _ in range(10):
            assert all(storage.inbox.settle([Ack(worker.one())]))
    storage.inbox.sweep()
    assert len(storage.inbox.engine.log(0).segments.names()) == 1
    assert storage.inbox.engine.state.numbers[0].voids.packed() == []
    source.fill(1)
    storage.close()
    assert Worker(opener().inbox).one().envelope == b"envelope 0"


# ── memory ───────────────────────────────────────────────────────────────────────────────────────


class Filling:
    """Messages for one inbox, of one sender."""

    def __init__(self, storage):
        self.storage, self.source, self.worker = storage, Source(storage.inbox), Worker(storage.inbox)

    def end(self, how, count, **fields):
        self.source.fill(count, **fields)
        assert all(self.storage.inbox.settle([how(claim) for claim in self.worker.claim(count)]))


def failing(filling, count):
    refuse(filling.storage, count)


def burying(filling, count):
    filling.end(bury, count)


def keeping(filling, count):
    filling.end(keep, count)


def answering(filling, count):
    filling.end(Ack, count, receipt=True)


@pytest.mark.parametrize("work", [failing, burying, keeping, answering])
def test_memory_does_not_grow_with_what_is_over(opener, monkeypatch, work):
    """Ten times as many of each kind are remembered in the same memory."""
    monkeypatch.setattr(remembered, "SET_DOWN_AT", 200)
    monkeypatch.setattr(remembered, "RUN_LEAST", 200)
    monkeypatch.setattr(generations, "JOURNAL_MIN", 1 << 16)
    storage = opener()
    filling = Filling(storage)
    work(filling, 200)
    tracemalloc.start()
    try:
        sizes = []
        for rounds in (4, 36):
            for _ in range(rounds):
                work(filling, 100)
                storage.inbox.flush()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert (sizes[1] - sizes[0]) / 3600 < 200, f"{sizes} bytes for 400 and 4,000"


# ── files ────────────────────────────────────────────────────────────────────────────────────────


@given(
    st.lists(st.tuples(st.sampled_from(["add", "discard", "above", "below"]), st.integers(0, 30), st.integers(1, 5)))
)
def test_ranges_are_a_set_of_numbers(acts):
    """Whatever is done, the same numbers are in it as in a set, and it packs and unpacks."""
    ranges, numbers = Ranges(), set()
    for act, first, count in acts:
        if act == "add":
            ranges.add(first, count)
            numbers |= set(range(first, first + count))
        elif act == "discard":
            ranges.discard(first)
            numbers.discard(first)
        elif act == "above":
            ranges.keep_above(first)
            numbers = {one for one in numbers if one > first}
        else:
            ranges.keep_up_to(first)
            numbers = {one for one in numbers if one <= first}
        assert list(ranges) == sorted(numbers)
        assert [one in ranges for one in range(40)] == [one in numbers for one in range(40)]
        assert list(Ranges(ranges.packed())) == sorted(numbers)
        assert bool(ranges) == bool(numbers)


def test_a_byte_that_is_wrong_costs_a_record_at_most_and_is_told(tmp_path):
    """Every byte of a run in turn: all records but one are read, and somebody is told of it."""
    path = tmp_path / "run"
    entries = [Entry(key if key < 9 else None, b"%16d" % key, key / 2, b"record %d" % key * 2) for key in range(10)]
    sorted_run.write(path, entries)
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 64]) + good[at + 1 :])
        told = []
        run = SortedRun(path, lambda _path, at, _error, told=told: told.append(at))
        left = [one.payload for one in run.everything()]
        run.close()
        assert run.good, at
        assert len([entry for entry in entries if entry.payload in left]) >= 9, at
        header = at < sorted_run.HEADER_SIZE or at >= len(good) - sorted_run.HEADER_SIZE
        assert told or header, at  # it stands twice


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("part", "left", "size"), [("index", 20, 210), ("record", 19, 200), ("all", 0, 0)])
def test_a_damaged_run_is_told_of_and_mended_at_the_next_opening(opener, tmp_path, part, left, size):
    """A damaged index loses nothing; a damaged record that one message, from the counts as well; evidence is kept."""
    storage = opener()
    end(storage, bury, 20)
    put_down(storage)
    storage.close()
    path = max(tmp_path.glob("inbox/remembered.*"))
    data = bytearray(path.read_bytes())
    if part == "all":
        data = bytearray(len(data))
    else:
        data[len(data) - 100 if part == "index" else sorted_run.HEADER_SIZE + 30] ^= 1
    path.write_bytes(data)
    events = []
    storage = opener(event=lambda name, details: events.append((name, details["file"])))
    assert len(storage.inbox.scan(Selection(channel=CHANNEL))) == left
    assert ("corrupt", str(path)) in events
    end(storage, bury, 1)
    put_down(storage)
    storage.close()
    storage = opener()
    counts = storage.inbox.counts()[CHANNEL]
    assert (counts["buried"], counts["bytes"]) == (left + 1, size + 10)
    assert list(tmp_path.glob("inbox/*.aside-*"))


def test_a_store_with_runs_of_version_1_is_read(opener, tmp_path):
    """What an older dropr put into runs is found, counted, forgotten by hand, and goes into new runs."""
    storage = opener()
    ids = send(storage.outbox, 4, receipt=True)
    deliver(storage.outbox)
    rows = [Outcome(number, one, State.PROCESSED, "", b"result") for number, one in enumerate(ids, 1)]
    storage.outbox.receipts(PEER, LOG, rows, 4)
    storage.close()
    opener().close()  # so that all of it stands in a snapshot
    make_old(tmp_path / "outbox")
    storage = opener()
    assert [state_of(storage.outbox, one) for one in ids] == ["", "processed", "processed", "processed"]
    assert storage.outbox.counts()[PEER, CHANNEL]["processed"] == 3
    assert storage.outbox.status(ids[2])[0].result == b"result"
    assert storage.outbox.wipe(Selection(ids=(ids[1],))) == 1
    storage.close()
    storage = opener()
    assert [state_of(storage.outbox, one) for one in ids] == ["", "", "processed", "processed"]
    assert storage.outbox.counts()[PEER, CHANNEL]["processed"] == 2


def make_old(directory):
    """Turn the journal of an outbox into one of version 2, its processed deliveries into a run of version 1, of which
    the first one was wiped.
    """
    generation = journal.generations(directory)[-1]
    opened = journal.Journal(directory, generation)
    ops = [op for found in opened.read(journal.START_SIZE, opened.size) for op in msgspec.msgpack.decode(found.payload)]
    opened.close()
    known = [op for op in ops if op[0] == "known"]
    assert len(known) == 4
    body, ids, keys = b"", [], b""
    for op in known:
        at, payload = 64 + len(body), msgspec.msgpack.encode(op)
        body += struct.pack("<II", crc32(payload, 7), len(payload)) + payload
        ids.append(struct.pack("<16sI", op[3], at))
        keys += struct.pack("<QI", op[1] << 48 | op[2], at)
    head = struct.pack("<8sHHIQQQ", b"dropr-rm", 1, 0, 7, 4, 64 + len(body), 4)
    head += struct.pack("<I", crc32(head))
    (directory / f"remembered.{1:08d}").write_bytes(head.ljust(64, b"\0") + body + b"".join(sorted(ids)) + keys)
    lane = next(op for op in ops if op[0] == "full_lane")
    lane[2] = lane[2][:12]
    rest = [op for op in ops if op[0] not in ("known", "ready", "run")]
    run = ["run", 1, 4, max(op[5] for op in known), [[0, 3]], [known[0][1] << 48 | known[0][2]]]
    journal.create(directory, generation + 1, [*rest, run], 2)


@pytest.mark.usefixtures("soon")
def test_fsck_tells_of_damage_and_what_a_repair_did(opener, tmp_path):
    """Without a repair a damaged run is named; with one it is written anew, and the next check finds nothing."""
    storage = opener()
    end(storage, bury, 20)
    put_down(storage)
    with pytest.raises(Held):
        opener(checking=True)
    storage.close()
    path = max(tmp_path.glob("inbox/remembered.*"))
    data = bytearray(path.read_bytes())
    data[sorted_run.HEADER_SIZE + 30] ^= 1
    path.write_bytes(data)
    told = []
    for repair in (False, True, True, False):
        storage = opener(checking=True, read_only=not repair)
        told.append([(one.half, one.severity, one.what, one.repaired) for one in storage.check(repair=repair)])
        storage.close()
    assert told == [[("inbox", "damage", str(path), False)], [("inbox", "damage", str(path), True)], [], []]
