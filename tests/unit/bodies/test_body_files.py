"""Large bodies as files: written, taken in piece by piece, checked, swept."""

import io
import os
import random
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropr_core.bodies.store import FORGOTTEN, BodyFiles
from dropr_core.contracts.transport import FileTail
from dropr_core.errors import BadBody, QueueFull, StoreCorrupt, StoreError, WriteFailed
from dropr_core.model.chunk_digest import LEAF, LeafHash, digest_of, leaves_of
from dropr_core.model.envelope import Reference
from dropr_core.model.names import IdMaker, MessageId

make = IdMaker()
NOW = 2_000_000_000.0


@pytest.fixture
def bodies(tmp_path):
    return BodyFiles(tmp_path / "bodies", 0)


def reference(data):
    return Reference(len(data), digest_of(leaves_of(data)))


def files(bodies):
    return sorted(path for path in bodies.directory.rglob("*") if path.is_file())


def arriving(bodies, data, identity=None):
    return bodies.arrivals().of("shop", identity or make(), reference(data))


# ── sending ──────────────────────────────────────────────────────────────────────────────────────


def test_what_is_written_is_read_again(bodies):
    """Any stream is copied whole; its length and digest are those of its bytes."""
    data, identity = os.urandom(3_000_001), make()
    written = bodies.write(identity, io.BytesIO(data))
    written.release()
    assert written.reference == reference(data)
    with bodies.open_sent(identity, written.reference) as file:
        assert file.read() == data


def test_a_stream_that_fails_leaves_nothing(bodies):
    """An error of the caller's stream comes through, and no file stays."""

    class Broken(io.RawIOBase):
        def read(self, _size=-1):
            raise OSError(5, "the tape is torn")

    with pytest.raises(WriteFailed, match="torn"):
        bodies.write(make(), Broken())
    assert files(bodies) == []


def test_fault_09_a_full_disk_refuses_a_body_before_it_is_written(tmp_path):
    """Below the floor of free space nothing is begun."""
    bodies = BodyFiles(tmp_path / "bodies", 1 << 62)
    with pytest.raises(QueueFull, match="min_free"):
        bodies.write(make(), io.BytesIO(b"x"))
    assert files(bodies) == []


def test_fault_51_a_body_damaged_at_rest_is_never_handed_out_as_whole(bodies):
    """A flipped bit is found when the body is read to its end; a shorter file at once."""
    data, identity = os.urandom(100_000), make()
    written = bodies.write(identity, io.BytesIO(data))
    written.release()
    damaged = bytearray(data)
    damaged[50_000] ^= 1
    behind = written.path.read_bytes()[len(data) :]
    assert behind == leaves_of(data)
    written.path.write_bytes(bytes(damaged) + behind)
    with bodies.open_sent(identity, written.reference) as file, pytest.raises(StoreCorrupt, match="damaged at rest"):
        file.read()
    written.path.write_bytes(data[:-1])
    with pytest.raises(StoreCorrupt, match="has not its"):
        bodies.open_sent(identity, written.reference)


def test_fault_57_names_never_become_paths(bodies):
    """A peer called like a path gets a directory of its own below, and nothing outside is touched."""
    path = bodies.place("../../etc", make(), reference(b"x"))
    assert path.parent.parent == bodies.directory / "come"


# ── arriving ─────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9 * LEAF), st.integers(1, 3), st.randoms(use_true_random=False), st.integers(0, 4))
def test_pieces_in_any_order_with_repeats_and_restarts_make_the_body(tmp_path_factory, size, piece, rng, restarts):
    """However pieces overtake each other, repeat, or a process dies between them: the body arrives, byte for byte."""
    bodies = BodyFiles(tmp_path_factory.mktemp("b"), 0)
    data, identity, piece = random.Random(size).randbytes(size), make(), piece * LEAF
    here = arriving(bodies, data, identity)
    for _ in range(200):
        offsets = list(range(here.have(), size, piece))
        if not offsets:
            break
        rng.shuffle(offsets)
        for offset in [*offsets[: rng.randint(1, len(offsets))], rng.choice(offsets)]:
            here.write(offset, data[offset : offset + piece])
        if restarts:
            restarts -= 1
            here.close()
            here = arriving(bodies, data, identity)
    assert here.have() == size
    with bodies.open_received("shop", identity, reference(data)) as file:
        assert file.read() == data
    assert [path.suffix for path in files(bodies)] == [""]


def test_fault_07_what_a_power_cut_left_of_a_part_is_not_believed(bodies):
    """A resumed part whose beginning is damaged: at its end the digest tells, and it is begun anew."""
    data, identity = os.urandom(2 * LEAF), make()
    first = arriving(bodies, data, identity)
    first.write(0, data[:LEAF])
    first.close()
    (part,) = files(bodies)
    part.write_bytes(bytes(LEAF))
    second = arriving(bodies, data, identity)
    assert second.have() == LEAF
    with pytest.raises(BadBody):
        second.write(LEAF, data[LEAF:])
    assert second.have() == 0
    assert second.write(0, data) == 2 * LEAF


@pytest.mark.parametrize("complete", [False, True])
def test_fault_08_what_was_there_before_is_given_to_the_disk_again(bodies, monkeypatch, complete):
    """Who wrote it may have been killed within a sync that failed: the kernel tells nobody else of it."""
    data, identity = os.urandom(2 * LEAF), make()
    place = bodies.place("shop", identity, reference(data))
    before = len(data) if complete else LEAF
    place.with_name(place.name + ".part").write_bytes(data[:before])
    unsynced, synced, pwrite, fsync = set(), [], os.pwrite, os.fsync

    def write(fd, piece, at):
        unsynced.add((at, len(piece)))
        return pwrite(fd, piece, at)

    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(set(unsynced)), fsync(fd)))
    here = arriving(bodies, data, identity)
    if not complete:
        here.write(LEAF, data[LEAF:])
    assert here.have() == len(data)
    assert synced[0] == {(0, before)}


def test_a_part_that_ends_within_a_leaf_is_resumed_at_its_beginning(bodies):
    """A process was killed in the middle of a write: the leaf that it wrote comes again, the others do not."""
    data, identity = os.urandom(3 * LEAF), make()
    place = bodies.place("shop", identity, reference(data))
    place.with_name(place.name + ".part").write_bytes(data[: LEAF + 1000])
    here = arriving(bodies, data, identity)
    assert here.write(2 * LEAF, data[2 * LEAF :]) == LEAF
    assert here.write(LEAF, data[LEAF : 2 * LEAF]) == 3 * LEAF


def test_leaves_known_from_elsewhere_are_believed_only_if_they_give_the_digest(bodies):
    """Pieces that pass their own digests but are not what the sender promised: it is begun anew."""
    data, identity = os.urandom(LEAF + 10), make()
    here = arriving(bodies, data, identity)
    other = bytes(LEAF)
    here.write(0, other, leaves_of(other))
    with pytest.raises(BadBody):
        here.write(LEAF, data[LEAF:], leaves_of(data[LEAF:]))
    assert here.have() == 0


@given(st.integers(0, 3 * LEAF), st.lists(st.integers(1, LEAF + 5), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_the_digest_does_not_depend_on_how_a_body_is_read(size, steps):
    """Read in pieces of any size, a body has the leaves that it has when it is cut up at once."""
    data, digest, at = random.Random(size).randbytes(size), LeafHash(), 0
    while at < size:
        step = steps[at % len(steps)]
        digest.update(data[at : at + step])
        at += step
    assert digest.leaves() == leaves_of(data)
    assert digest.digest() == digest_of(leaves_of(data))


def test_a_body_that_is_sent_carries_the_digests_of_its_leaves(bodies):
    """Pieces are read where the body lies, with the digests that were made when it was written."""
    data, identity = os.urandom(2 * LEAF + 77), make()
    written = bodies.write(identity, io.BytesIO(data))
    written.release()
    load = bodies.load(identity, written.reference)
    assert load.leaves(LEAF, LEAF + 77) == leaves_of(data[LEAF:])
    piece = load.piece(LEAF, LEAF + 77)
    assert (piece.size, piece.read(0, piece.size)) == (LEAF + 77, data[LEAF:])
    load.close()
    load.close()
    with pytest.raises(OSError, match="not being sent"):
        piece.read(0, 1)


def test_the_kernel_sends_a_piece_into_a_socket(bodies):
    """A transport may have it do so; not after the body was let go of, when another file may have its number."""
    data, identity = os.urandom(3 * LEAF), make()
    written = bodies.write(identity, io.BytesIO(data))
    load = bodies.load(identity, written.reference)
    piece = load.piece(LEAF, LEAF)
    assert isinstance(piece, FileTail)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert piece.send(ours.fileno(), 100, 1000) == 1000
        assert theirs.recv(2000) == data[LEAF + 100 : LEAF + 1100]
        load.close()
        with pytest.raises(OSError, match="not being sent"):
            piece.send(ours.fileno(), 100, 1000)
    assert load.failure is None


def test_two_processes_do_not_write_one_body(bodies):
    """Who comes second is told to come again."""
    data, identity = os.urandom(100), make()
    first = arriving(bodies, data, identity)
    first.write(0, data[:10])
    with pytest.raises(StoreError, match="another process"):
        arriving(bodies, data, identity).have()
    first.close()


def test_pieces_from_many_threads_make_one_body(bodies):
    """Several requests of one peer at once: one file, nothing lost."""
    data, identity = os.urandom(5_000_000), make()
    here = arriving(bodies, data, identity)
    start = threading.Barrier(4)

    def push(number):
        start.wait(10)
        for offset in range(number * LEAF, len(data), 4 * LEAF):
            here.write(offset, data[offset : offset + LEAF])

    threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert here.have() == len(data)


def test_fault_08_after_a_failed_write_the_part_is_begun_anew(bodies, monkeypatch):
    """A failed sync at the end: nothing is promised, the file is not trusted again, all of it comes once more."""
    data, identity = os.urandom(1000), make()
    here = arriving(bodies, data, identity)

    def fail(_fd):
        raise OSError(5, "planted: fsync")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(WriteFailed):
            here.write(0, data)
    assert here.have() == 0
    assert here.write(0, data) == 1000


def test_an_empty_part_of_a_body_and_what_is_too_long_are_harmless(bodies):
    """Nothing, and more than there is: both leave the body as it should be."""
    data = b"0123456789"
    here = arriving(bodies, data)
    assert here.write(0, b"") == 0
    assert here.write(0, data + b"more") == 10
    assert here.write(3, b"other") == 10


# ── care ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_sweep_takes_what_no_message_needs(bodies):
    """Sent bodies go when their message is unknown; arrived ones when their message was here and is gone."""
    kept, gone = make(), make()
    for identity in (kept, gone):
        bodies.write(identity, io.BytesIO(b"x")).release()
    data, stays, settled, never = b"body", make(), make(), make()
    for identity in (stays, settled, never):
        arriving(bodies, data, identity).write(0, data)
    bodies.accepted("shop", settled, reference(data))
    known = {kept, stays}
    assert bodies.sweep(known.__contains__, known.__contains__, bodies.directory.stat().st_mtime) == 2
    names = {path.name.partition("-")[0] for path in files(bodies)}
    assert names == {identity.hex() for identity in (kept, stays, never)}


def test_a_sweep_takes_what_never_got_its_message_after_a_day(bodies):
    """A body or a part of one that nobody came back for goes when it is old."""
    data = b"body"
    whole, part = arriving(bodies, data), arriving(bodies, data)
    whole.write(0, data)
    part.write(0, data[:1])
    part.close()
    now = bodies.directory.stat().st_mtime
    assert bodies.sweep(lambda _: False, lambda _: False, now) == 0
    assert bodies.sweep(lambda _: False, lambda _: False, now + FORGOTTEN + 60) == 2
    assert files(bodies) == []


def test_a_sweep_leaves_what_is_being_written(bodies):
    """Between the body and its message a writer holds the body: no sweep comes in between."""
    written = bodies.write(make(), io.BytesIO(b"x"))
    assert bodies.sweep(lambda _: False, lambda _: False, NOW) == 0
    written.release()
    assert bodies.sweep(lambda _: False, lambda _: False, NOW) == 1


def test_a_sweep_takes_what_a_killed_writer_left(bodies):
    """An unfinished file that nobody holds goes at once."""
    bodies.write(make(), io.BytesIO(b"x")).discard()
    (bodies.directory / "sent" / "0123.new").write_bytes(b"half")
    assert bodies.sweep(lambda _: True, lambda _: True, NOW) == 1


def test_foreign_files_are_left_alone_until_they_are_unknown(bodies):
    """A file whose name says no message id belongs to no message."""
    bodies.write(make(), io.BytesIO(b"x")).release()
    assert bodies.sweep(lambda identity: identity != MessageId(b""), lambda _: True, NOW) == 0


def test_a_question_makes_no_file(bodies):
    """Who only asks how much there is, for any number of bodies, leaves nothing on the disk."""
    for _ in range(10):
        assert arriving(bodies, b"body").have() == 0
    assert files(bodies) == []


def test_an_arriving_body_knows_it_is_here_already(bodies):
    """Once complete, every further question is answered with all of it."""
    data, identity = b"body", make()
    arriving(bodies, data, identity).write(0, data)
    again = arriving(bodies, data, identity)
    assert again.have() == 4
    assert bodies.has("shop", identity, reference(data))


def test_killed_between_the_last_piece_and_the_name_the_body_is_completed(bodies):
    """All bytes are there but the name: asked how much there is, it is completed, or begun anew if they are wrong."""
    data, identity = os.urandom(5000), make()
    for content in (data, bytes(5000)):
        path = bodies.place("shop", identity, reference(data))
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".part").write_bytes(content)
        here = arriving(bodies, data, identity)
        assert here.have() == (5000 if content == data else 0)
        assert bodies.has("shop", identity, reference(data)) == (content == data)
        here.close()
