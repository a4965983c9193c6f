"""Reading many records at once finds what reading one by one finds, wherever it begins and whatever is damaged."""

import random

import pytest
from dropr_storage_fs import Options, dropr_storage
from dropr_storage_fs.files import column_reader as bulk
from dropr_storage_fs.files import layout
from dropr_storage_fs.files import log as logs
from dropr_storage_fs.files.layout import INDEX, INDEX_LEAST, Frame, Record
from dropr_storage_fs.files.segment import HEADER_SIZE, Place

from dropr_core.contracts.storage import Ack, NewMessage
from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import LANE, Source, Worker, make_context, new_id

CALLS = (1, INDEX_LEAST, 3, 100, 1, 1, INDEX_LEAST - 1, 40, 500)


@pytest.fixture
def events():
    return []


@pytest.fixture
def storage(tmp_path, events, monkeypatch):
    monkeypatch.setattr(logs, "AHEAD", 0)
    context = make_context(tmp_path, FakeClock(), event=lambda name, details: events.append((name, details)))
    storage = dropr_storage(Options(reserve=0), context)
    yield storage
    storage.close()


def fill(storage, calls=CALLS, seed=1, flagged=()):
    """Messages of many sizes, in calls of these sizes. Returns all of them."""
    rng, out = random.Random(seed), []
    for count in calls:
        messages = [NewMessage(new_id(), "orders", LANE.priority, (LANE.peer,), rng.randbytes(rng.randrange(1, 900)),
                             len(out) + n in flagged) for n in range(count)]  # fmt: skip
        storage.outbox.append(messages)
        out += messages
    return out


def lane_log(storage):
    return storage.outbox.engine.log(0)


def scanned(log, after, most, room):
    """What the slow way finds."""
    out = []
    for item, _ in log.reader.scan(Place(log.segments.names()[0], HEADER_SIZE), log.end):
        if isinstance(item, Record) and item.sequence > after:
            room -= len(item.envelope)
            if len(out) >= most or (room < 0 and out):
                break
            out.append(item[:6])
    return out


@pytest.mark.parametrize("segment", [1 << 20, 40_000])
def test_bulk_reads_what_a_scan_reads(storage, monkeypatch, segment):
    """Calls of all sizes, alike or not, read on with any limits over any number of segments and blocks."""
    monkeypatch.setattr(logs, "SEGMENT_SIZE", segment)
    monkeypatch.setattr(bulk, "BLOCK", 20_000)
    fill(storage, flagged=range(150, 170))
    log, rng = lane_log(storage), random.Random(7)
    assert any(
        isinstance(item, Frame) and item.flags & INDEX for item, _ in log.reader.scan(Place(1, HEADER_SIZE), log.end)
    )
    for _ in range(40):
        reader, after = bulk.ColumnReader(), rng.randrange(0, 600)
        place = log.reader.start(after + 1, log.end)
        while True:
            most, room = rng.choice([1, 7, 60, 1000]), rng.choice([1, 3000, 1 << 40])
            found, place = reader.read(log, place, log.end, after, most, room)
            wanted = scanned(log, after, most, room)
            assert [record[:6] for record in found.records()] == wanted
            if not wanted:
                break
            after = found.numbers[-1]


def spot(log, number):
    """Where in its file the envelope of a record begins."""
    return next(place.offset + layout.RECORD_SIZE for item, place in log.reader.scan(Place(1, HEADER_SIZE), log.end)
                if isinstance(item, Record) and item.sequence == number)  # fmt: skip


def spoil(log, at):
    with log.segments.path(1).open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x40]))


def test_a_damaged_record_of_an_indexed_frame_costs_that_record(storage, events):
    """The checksum of all together says that something is wrong, those of the records say what."""
    messages = fill(storage, calls=(100, 100))
    spoil(lane_log(storage), spot(lane_log(storage), 31))
    got = []
    while (batch := storage.outbox.take(LANE, 1000, 1 << 30)) is not None:
        got += [entry.id for entry in batch.entries]
        storage.outbox.settle(LANE, batch.upto)
        if len(got) >= 199:
            break
    assert got == [message.id for n, message in enumerate(messages, 1) if n != 31]
    assert [name for name, _ in events] == ["corrupt"]


def test_a_damaged_index_costs_nothing(storage):
    """The records stand for themselves."""
    messages = fill(storage, calls=(100, 100))
    log = lane_log(storage)
    frame, place = next((item, place) for item, place in log.reader.scan(Place(1, HEADER_SIZE), log.end)
                        if isinstance(item, Frame))  # fmt: skip
    assert frame.flags & INDEX
    spoil(log, place.offset + layout.FRAME_SIZE + 9)
    got = []
    while len(got) < 200 and (batch := storage.outbox.take(LANE, 1000, 1 << 30)) is not None:
        got += [entry.id for entry in batch.entries]
        storage.outbox.settle(LANE, batch.upto)
    assert got == [message.id for message in messages]


def test_what_is_claimed_in_small_parts_is_read_once(storage):
    """The rest of a frame is kept for the next call, and given up when it is used or another is read."""
    source, worker = Source(storage.inbox), Worker(storage.inbox)
    ids, got = source.fill(200), []
    for _ in range(20):
        claims = worker.claim(10)
        got += [claim.id for claim in claims]
        assert all(storage.inbox.settle([Ack(claim) for claim in claims]))
        assert (storage.inbox._claiming._queues._columns.kept is None) == (len(got) == 200)
    assert got == ids
    assert worker.claim(10) == []


def test_frames_too_long_for_memory_have_no_index(storage, monkeypatch):
    """Who reads by an index has all of its frame in memory: longer ones are read one by one, whoever wrote them."""
    monkeypatch.setattr(layout, "INDEX_BYTES", 20_000)
    fill(storage, calls=(100,))
    monkeypatch.setattr(layout, "INDEX_BYTES", 1 << 20)
    fill(storage, calls=(100, 20))
    monkeypatch.setattr(bulk, "INDEX_BYTES", 20_000)
    log = lane_log(storage)
    frames = [item for item, _ in log.reader.scan(Place(1, HEADER_SIZE), log.end) if isinstance(item, Frame)]
    assert [bool(frame.flags & INDEX) for frame in frames] == [False, True, True]
    reader = bulk.ColumnReader()
    found, place = reader.read(log, Place(1, HEADER_SIZE), log.end, 0, 150, 1 << 30)
    assert reader.kept is None
    rest, _ = reader.read(log, place, log.end, 150, 1000, 1 << 30)
    assert [record[:6] for record in found.records() + rest.records()] == scanned(log, 0, 1000, 1 << 30)
