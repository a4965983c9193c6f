"""What a power cut may leave of what was not synced, and which disks of a run are written out. Without FUSE."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from powercut.acting import DEEP
from powercut.disk.exploring import Explorer, survey
from powercut.disk.filesystem import ROOT, FileSystem
from powercut.disk.survivors import POLICIES, survivors
from powercut.disk.trees import fingerprint
from powercut.rules_kit import SECTOR, every, left


@pytest.fixture
def disk():
    return FileSystem(sector=SECTOR)


def test_a_sector_is_whole_or_not_written_and_sectors_come_in_any_order(disk):
    """Each half of a write over two sectors is met with and without the other."""
    file = disk.create(ROOT, b"a", 0o644)
    disk.write(file.number, 0, b"-" * 2 * SECTOR)
    disk.settle()
    disk.write(file.number, 0, b"1" * SECTOR + b"2" * SECTOR)
    seen = {tree["a"] for tree in every(disk, 40)}
    assert seen == {one * SECTOR + two * SECTOR for one in (b"-", b"1") for two in (b"-", b"2")}


def test_nothing_after_a_shortening_survives_without_it(disk):
    """What a log wrote over its cut-off tail never stands before the old tail."""
    file = disk.create(ROOT, b"a", 0o644)
    disk.write(file.number, 0, b"-" * 3 * SECTOR)
    disk.settle()
    disk.truncate(file.number, SECTOR)
    disk.write(file.number, SECTOR, b"n" * SECTOR)
    seen = {tree["a"] for tree in every(disk, 40)}
    assert all(b"n" not in content or content[2 * SECTOR :] == b"" for content in seen)
    assert {len(left(disk, "random", seed)["a"]) // SECTOR for seed in range(40)} == {1, 2, 3}


def test_a_shortening_writes_the_sector_that_it_ends_in(disk):
    """With the new length goes what was written there before; the old bytes never stand under the new length."""
    file = disk.create(ROOT, b"a", 0o644)
    disk.write(file.number, 0, b"-" * 2 * SECTOR)
    disk.settle()
    disk.write(file.number, 0, b"n" * SECTOR)
    disk.truncate(file.number, SECTOR // 2)
    short = {tree["a"] for tree in every(disk, 40) if len(tree["a"]) < SECTOR}
    assert short == {b"n" * (SECTOR // 2)}


def test_the_last_write_before_the_cut_may_be_torn(disk):
    """Policy prefix: all before it is there, and of itself the leading sectors."""
    file = disk.create(ROOT, b"a", 0o644)
    disk.settle()
    for step in (1, 2):
        disk.write(file.number, (step - 1) * 3 * SECTOR, bytes([step]) * 3 * SECTOR)
    seen = {left(disk, "prefix", seed)["a"] for seed in range(200)}
    assert seen == {b"\1" * min(sectors, 3) * SECTOR + b"\2" * max(0, sectors - 3) * SECTOR for sectors in range(7)}


def test_both_names_of_a_file_hold_the_same(disk):
    """Whatever survives of it."""
    file = disk.create(ROOT, b"a", 0o644)
    disk.link(file.number, ROOT, b"b")
    disk.settle()
    disk.write(file.number, 0, b"x" * 5 * SECTOR)
    assert all(tree["a"] == tree["b"] for tree in every(disk))


def test_the_same_seed_leaves_the_same_disk(disk):
    """A failure can be looked at again."""
    for name in (b"a", b"b", b"c"):
        file = disk.create(ROOT, name, 0o644)
        for step in range(5):
            disk.write(file.number, step * 20, bytes([step]) * 33)
    for policy in POLICIES:
        assert fingerprint(survivors(disk, policy, 7)) == fingerprint(survivors(disk, policy, 7))
    assert len({fingerprint(survivors(disk, "random", seed)) for seed in range(20)}) > 10


act = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 6 * SECTOR), st.binary(min_size=1, max_size=4 * SECTOR)),
    st.tuples(st.just("append"), st.just(0), st.binary(min_size=1, max_size=4 * SECTOR)),
    st.tuples(st.just("truncate"), st.integers(0, 8 * SECTOR), st.just(b"")),
    st.tuples(st.just("fsync"), st.just(0), st.just(b"")),
)


@settings(max_examples=2000 if DEEP else 100, deadline=None)
@given(st.lists(act, max_size=12), st.integers(0, 1 << 30))
def test_every_disk_is_one_that_the_rules_allow(acts, seed):
    """What was synced is whole; a sector holds what it held at some moment since, or zeros, or, past the synced end,
    anything; the length is one that the file has passed through; and after an fsync there is no choice."""
    disk = FileSystem(sector=SECTOR)
    file = disk.create(ROOT, b"a", 0o644)
    disk.fsync_directory(ROOT)
    past = [b""]
    for kind, offset, data in acts:
        if kind == "fsync":
            disk.fsync(file.number)
            past = []
        elif kind == "truncate":
            disk.truncate(file.number, offset)
        else:
            at = len(file.data) if kind == "append" else min(offset, len(file.data))
            disk.write(file.number, at, data)
        past.append(bytes(file.data))
        for policy in POLICIES:
            legal(policy, left(disk, policy, seed)["a"], past)


def legal(policy, content, past):
    """Whether a file may hold this; ``past`` is all that it has held since its last fsync."""
    if policy in ("keep", "data-first"):
        assert content == past[-1]
    if policy == "lose" or len(past) == 1:
        assert content == past[0]
    assert min(map(len, past)) <= len(content) <= max(map(len, past))
    synced = len(past[0])
    for start in range(0, min(len(content), synced), SECTOR):
        known = min(start + SECTOR, len(content), synced) - start
        held = {was[start : start + SECTOR].ljust(SECTOR, b"\0")[:known] for was in past} | {bytes(known)}
        assert content[start : start + known] in held


def test_a_disk_that_was_seen_is_written_out_again_when_more_was_promised_of_it(disk, tmp_path):
    """The same disk with more acknowledged is another case; with as much it is the same."""
    acks, images = tmp_path / "acks", tmp_path / "images"
    acks.touch()
    explorer = Explorer(images, ("lose", "keep"), acks)
    explorer.look(disk, 1, "write /a")
    explorer.look(disk, 2, "write /a")
    acks.write_text("1\n")
    explorer.look(disk, 3, "write /a")
    assert [(about.at, about.acks) for _, about in survey(images)] == [(1, 0), (3, 2)]


def test_an_explorer_that_runs_out_of_room_says_so(disk, tmp_path):
    """A test that looked at part of a run must be able to tell."""
    explorer = Explorer(tmp_path, ("keep",), max_bytes=1500)
    file = disk.create(ROOT, b"a", 0o644)
    for step in range(5):
        disk.write(file.number, 0, b"%d" % step * 1000)
        explorer.look(disk, step, "write /a")
    assert explorer.images == 2
    assert not explorer.complete
