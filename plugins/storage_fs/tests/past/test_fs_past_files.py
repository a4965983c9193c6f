"""The files of what is over: their ranges, damage in them, those of older versions, and fsck."""

import struct
from zlib import crc32

import msgspec
import pytest
from dropr_storage_fs.engine import journal
from dropr_storage_fs.files import sorted_run
from dropr_storage_fs.files.ranges import Ranges
from dropr_storage_fs.files.sorted_run import Entry, SortedRun
from fs_past_rig import LOG, bury, end, put_down
from hypothesis import given
from hypothesis import strategies as st

from dropr_core.contracts.storage import Selection
from dropr_core.errors import Held
from dropr_core.model.message import Outcome, State
from dropr_core.testing.builders import (
    CHANNEL,
    PEER,
    deliver,
    send,
    state_of,
)


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
