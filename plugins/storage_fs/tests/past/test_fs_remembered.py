"""What is merely remembered stands in files: it is found there, and costs no memory."""

import errno
import os
import tracemalloc
from functools import partial

import pytest
from dropr_storage_fs import Options, dropr_storage
from dropr_storage_fs.engine import generations, remembered
from dropr_storage_fs.files import disk, sorted_run
from dropr_storage_fs.files.sorted_run import Entry, SortedRun
from fs_past_rig import REMEMBER

from dropr_core.contracts.storage import Selection
from dropr_core.errors import Conflict
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import StoreId
from dropr_core.testing import StorageCase, StorageContract
from dropr_core.testing.builders import LANE, PEER, deliver, new_id, outgoing, send, state_of
from dropr_core.testing.storage_tiers_contract import StorageTiersContract

LOG = StoreId(b"log----1")


class Processed:
    """Messages that were processed, as their senders know them."""

    def __init__(self, storage):
        self.storage, self.ids, self.cursor = storage, [], 0

    def more(self, count=1, **fields):
        ids = send(self.storage.outbox, count, receipt=True, **fields)
        deliver(self.storage.outbox)
        rows = [Outcome(self.cursor + at, one, State.PROCESSED, "", b"result %d" % at) for at, one in enumerate(ids, 1)]
        self.cursor += count
        assert self.storage.outbox.receipts(PEER, LOG, rows, self.cursor) == ids
        self.ids += ids
        return ids


def runs(tmp_path):
    return sorted(tmp_path.glob("outbox/remembered.*"))


@pytest.mark.usefixtures("soon")
class TestFsThatSetsDown(StorageContract):
    """The contract holds when everything that may go out of memory does."""

    @pytest.fixture
    def storage_case(self):
        return StorageCase(make=lambda context: dropr_storage(Options(), context))

    test_what_a_call_costs_does_not_grow = None
    """Here every few records go into a file, which is work that any call may meet; TestFs counts it as it is."""


@pytest.mark.usefixtures("soon")
class TestFsThatSetsDownBeforeEachMove(StorageTiersContract):
    """What a sweep saw in memory has gone by itself when it is moved: refused, and all is well after another look."""

    @pytest.fixture
    def storage_case(self):
        def make(context):
            storage = dropr_storage(Options(flush=3600.0), context)  # nothing is set down by chance
            for half in (storage.outbox, storage.inbox):
                half.move = partial(self._move, half.engine, half.move)
            return storage

        return StorageCase(make=make)

    @staticmethod
    def _move(engine, move, moves):
        engine.flush()
        return move(moves)

    test_an_override_answers_as_the_default = None
    test_what_expires_with_others_of_its_key_ends_too = None
    test_a_move_of_what_stands_otherwise_is_refused = None
    """Nothing of time is in these."""


def test_a_run_finds_by_id_and_by_key_whatever_is_damaged(tmp_path):
    """Every record, in order, from any key on; a damaged one is left out, and no other."""
    ids = [new_id() for _ in range(300)]
    entries = [Entry(key * 10, identity, 9e9, b"record %d" % key * (key % 90)) for key, identity in enumerate(ids)]
    path = tmp_path / "run"
    sorted_run.write(path, [*entries, Entry(None, ids[7], 9e9, b"own")])
    run = SortedRun(path)
    assert run.good
    assert [one.payload for one in run.everything()] == [entry.payload for entry in entries] + [b"own"]
    assert [run.find(identity) for identity in (ids[0], new_id())] == [[(9e9, entries[0].payload)], []]
    assert sorted(one.payload for one in run.find(ids[7])) == sorted([entries[7].payload, b"own"])
    assert [key for key, _ in run.after(995, 1 << 60)] == [entry.key for entry in entries[100:]]
    assert list(run.after(99, 101)) == [(100, (9e9, entries[10].payload))]
    run.close()
    data = bytearray(path.read_bytes())
    data[data.index(entries[50].payload) + 3] ^= 1
    path.write_bytes(data)
    run = SortedRun(path)
    assert run.find(ids[50]) == []
    assert len(list(run.after(-1 + 1, 1 << 60))) == 298
    run.close()


@pytest.mark.usefixtures("soon")
def test_what_was_set_down_is_there_for_everybody(opener, tmp_path):
    """Status, list, counts, positions and own ids, in this process, in another, and after opening anew."""
    storage, other = opener(), opener()
    work = Processed(storage)
    for _ in range(5):
        work.more(3)
    mine = outgoing(b"own", fingerprint=b"print")
    storage.outbox.append([mine])
    deliver(storage.outbox)
    work.more(1)
    assert runs(tmp_path)
    for again in (storage, other, None):
        if again is None:
            storage.close()
            other.close()
            again = opener()  # noqa: PLW2901
        outbox = again.outbox
        assert [state_of(outbox, one) for one in work.ids] == ["processed"] * 16
        assert outbox.status(work.ids[4])[0].result == b"result 2"
        page = outbox.scan(Selection(), limit=1000)
        assert [delivery.id for _, delivery in page] == work.ids
        first = outbox.scan(Selection(), limit=4)
        assert first + outbox.scan(Selection(), first[-1][0], 1000) == page
        assert outbox.counts()[PEER, LANE.channel]["processed"] == 16
        assert outbox.locate(LANE, 2) == work.ids[1]
        assert outbox.append([mine])[0].existed
        with pytest.raises(Conflict):
            outbox.append([mine._replace(fingerprint=b"other")])
        repeated = [Outcome(900, work.ids[0], State.FAILED)]
        assert outbox.receipts(PEER, StoreId(b"log----2"), repeated, 900) == []


@pytest.mark.usefixtures("soon")
def test_what_was_set_down_is_forgotten_in_time_and_by_hand(opener, tmp_path, clock):
    """A wipe forgets what it means and nothing else; the rest goes after its time, and its file with it."""
    storage = opener()
    work = Processed(storage)
    old = work.more(3)
    clock.advance(REMEMBER / 2)
    new = work.more(3)
    assert storage.outbox.wipe(Selection(ids=(old[0],))) == 1
    assert storage.outbox.status(old[0]) == []
    assert storage.outbox.counts()[PEER, LANE.channel]["processed"] == 5
    other = opener()
    assert other.outbox.status(old[0]) == []
    other.close()
    clock.advance(REMEMBER / 2 + 1)
    storage.outbox.sweep(1e9)
    assert [state_of(storage.outbox, one) for one in new] == ["processed"] * 3
    assert all(storage.outbox.status(one) == [] for one in old)
    assert storage.outbox.wipe(Selection()) == 3
    assert storage.outbox.scan(Selection(), limit=10) == []
    work.more(1)
    clock.advance(REMEMBER + 1)
    storage.outbox.sweep(1e9)
    assert storage.outbox.counts()[PEER, LANE.channel]["processed"] == 0
    send(storage.outbox, 1)
    storage.close()
    opener()
    assert runs(tmp_path) == []


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("name", ["remembered.", "journal."])
def test_a_disk_that_is_full_when_it_is_set_down_loses_nothing(opener, tmp_path, monkeypatch, name):
    """Neither the run nor the journal that would refer to it can be made: all stays in memory, and goes later."""
    storage, other = opener(), opener()
    work, real = Processed(storage), disk.make_file

    def full(path):
        if path.name.startswith(name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path)

    monkeypatch.setattr(generations, "JOURNAL_MIN", 0)
    with monkeypatch.context() as patch:
        patch.setattr(disk, "make_file", full)
        for _ in range(4):
            work.more(2)
            assert [state_of(one.outbox, work.ids[0]) for one in (storage, other)] == ["processed"] * 2
    work.more(2)
    for one in (storage, other):
        assert [state_of(one.outbox, identity) for identity in work.ids] == ["processed"] * 10
    assert runs(tmp_path)
    storage.close()
    other.close()
    again = opener().outbox
    assert [state_of(again, identity) for identity in work.ids] == ["processed"] * 10
    assert again.counts()[PEER, LANE.channel]["processed"] == 10


def test_memory_does_not_grow_with_what_is_remembered(opener, monkeypatch):
    """Ten times as many receipts and own ids are remembered in the same memory, and are found."""
    monkeypatch.setattr(remembered, "SET_DOWN_AT", 200)
    monkeypatch.setattr(remembered, "RUN_LEAST", 200)
    monkeypatch.setattr(generations, "JOURNAL_MIN", 1 << 16)
    storage = opener()
    work = Processed(storage)
    tracemalloc.start()
    try:
        sizes = []
        for rounds in (5, 45):
            for _ in range(rounds):
                work.more(100)
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    kept = len(work.ids) * 120  # the test's own list of ids
    assert sizes[1] - sizes[0] < kept + 300_000, f"{sizes} bytes for 500 and 5,000 remembered"
    assert state_of(storage.outbox, work.ids[17]) == "processed"
    assert storage.outbox.counts()[PEER, LANE.channel]["processed"] == 5000
