"""What a call costs in bytes, descriptors and room, whatever is remembered and however many lanes there are."""

import resource
from pathlib import Path

import pytest
from dropr_storage_fs import Options, dropr_storage
from dropr_storage_fs.engine import generations
from dropr_storage_fs.files import disk, segments
from dropr_storage_fs.files import log as logs

from dropr_core.contracts.storage import Ack, Arrival, Job
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import START, Head, Lane, SourceLane, StoreId
from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import LANE, PEER, STORE, deliver, make_context, new_id, outgoing, send, state_of
from dropr_core.testing.forks import Child


@pytest.fixture
def opener(tmp_path):
    """Opens the same store, as often as wanted; closes all."""
    opened, clock = [], FakeClock()

    def make(**more):
        opened.append(dropr_storage(Options(reserve=0), make_context(tmp_path, clock, **more)))
        return opened[-1]

    yield make
    for storage in opened:
        storage.close()


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────


def own(count):
    """Messages with ids that the caller chose."""
    return [outgoing(fingerprint=b"print") for _ in range(count)]


def written_by(storages, monkeypatch, calls):
    """Bytes that so many sends write, taking turns."""
    total, real = 0, disk.write_at

    def counting(fd, data, at):
        nonlocal total
        total += len(data)
        real(fd, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "write_at", counting)
        for number in range(calls):
            storages[number % len(storages)].outbox.append(own(1))
    return total


@pytest.mark.parametrize("processes", [2, 8])
def test_a_send_writes_no_more_when_much_is_remembered(opener, monkeypatch, processes):
    """Several processes that write in turns do not rewrite what is remembered at every call."""
    storages = [opener() for _ in range(processes)]
    monkeypatch.setattr(logs, "AHEAD", 0)
    monkeypatch.setattr(generations, "JOURNAL_MIN", 1 << 18)
    storages[0].outbox.append(own(1000))
    few = written_by(storages, monkeypatch, 40)
    for _ in range(4):
        storages[0].outbox.append(own(5000))
    many = written_by(storages, monkeypatch, 40)
    assert many < 2 * few, f"{few} bytes with a thousand remembered, {many} with 21,000"


# ── descriptors ──────────────────────────────────────────────────────────────────────────────────

LANES = 700


def in_child(work, descriptors):
    """Run something in a process that may open so many files."""

    def live(say):
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        try:
            work()
        except BaseException as error:
            say(f"{type(error).__name__}: {error}")
            raise
        say(f"fine {sum(1 for _ in Path('/proc/self/fd').iterdir())}")

    with Child(live) as child:
        word, _, number = child.go().hear(100).partition(" ")
        assert word == "fine", f"{word} {number}"
        return int(number)


def test_many_lanes_need_few_descriptors(tmp_path):
    """More lanes and queues than descriptors: one call for all of them, calls for each, reading and sweeping."""

    def work():
        disk.flush_file = disk.flush_cut = disk.flush_directory = lambda _what: None  # no power fails here
        storage = dropr_storage(Options(reserve=0), make_context(tmp_path, FakeClock()))
        lanes = [Lane(f"peer{number}", "orders", 5) for number in range(LANES)]
        storage.outbox.append([outgoing(b"all", peers=tuple(lane.peer for lane in lanes))])
        for lane in lanes[:: LANES // 20]:
            storage.outbox.append([outgoing(b"one", peers=(lane.peer,))])
            batch = storage.outbox.take(lane, 10, 1 << 20)
            assert batch.envelopes == [b"all", b"one"]
            storage.outbox.settle(lane, batch.upto)
        sources = [SourceLane("shop", STORE, f"channel{number}", 5) for number in range(LANES)]
        storage.inbox.accept([arrival(source, START) for source in sources])
        consumer = storage.inbox.register()
        claims = storage.inbox.claim([source.channel for source in sources], LANES, consumer)
        assert len(claims) == LANES
        assert all(storage.inbox.settle([Ack(claim) for claim in claims]))
        storage.outbox.sweep(1e9)
        storage.inbox.sweep()
        assert len(storage.outbox.lanes()) == LANES - 20 - (LANES % 20 > 0)

    def arrival(source, after):
        first = Job(new_id(), b"body", 1)
        return Arrival(source, after, Head(1, first.id), [first])

    assert in_child(work, 256) < 3 * segments.OPEN_FILES


def test_a_lane_that_gets_little_takes_little_room(opener, tmp_path):
    """Zeros are written ahead in proportion to what a lane has got."""
    storage = opener()
    storage.outbox.append([outgoing(b"x", peers=tuple(f"peer{number}" for number in range(50)))])
    taken = sum(path.stat().st_blocks * 512 for path in (tmp_path / "outbox" / "logs").rglob("*"))
    assert taken < 50 * 20_000


def test_a_channel_that_is_only_named_has_no_queue(opener, tmp_path):
    """An arrival that brings no message leaves its head, and neither a log nor a descriptor; the head stays."""
    storage = opener()
    sources = [SourceLane("shop", STORE, f"named{number}", 5) for number in range(30)]
    answers = storage.inbox.accept([Arrival(source, START, Head(3, new_id()), []) for source in sources])
    assert all(answer.taken for answer in answers)
    assert list((tmp_path / "inbox" / "logs").iterdir()) == []
    assert storage.inbox.counts() == {}
    storage.close()
    again = opener()
    heads = again.inbox.heads("shop")
    assert [heads[source].sequence for source in sources] == [3] * 30
    late = Job(new_id(), b"body", 4)
    arrival = Arrival(sources[0], heads[sources[0]], Head(4, late.id), [late])
    assert again.inbox.accept([arrival])[0].taken
    again.close()
    assert opener().inbox.heads("shop")[sources[0]].sequence == 4


# ── bodies ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("keep", [0.0, 3600.0])
def test_the_body_of_what_was_processed_is_let_go(opener, tmp_path, monkeypatch, keep):
    """When the receipt is home nobody sends it again: its segment goes, unless the channel keeps what it sent."""
    monkeypatch.setattr(logs, "SEGMENT_SIZE", 4096)
    monkeypatch.setattr(logs, "AHEAD", 0)
    storage = opener(keep_sent={LANE.channel: keep})
    ids = [identity for _ in range(30) for identity in send(storage.outbox, 10, receipt=True)]
    deliver(storage.outbox)
    outcomes = [Outcome(number, identity, State.PROCESSED) for number, identity in enumerate(ids, 1)]
    storage.outbox.receipts(PEER, StoreId(b"log----1"), outcomes, len(outcomes))
    for _ in range(3):
        storage.outbox.sweep(1e9)
    left = len(list((tmp_path / "outbox" / "logs").rglob("*.seg")))
    assert left == 1 if not keep else left > 3
    assert state_of(storage.outbox, ids[0]) == "processed"
    assert (storage.outbox.envelope(ids[0]) is None) == (keep == 0.0)
