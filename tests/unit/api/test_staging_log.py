"""The file of a staging log: what is read back after any writes, laps and damage."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropr_core.api import staging_log
from dropr_core.api.staging_log import DATA_AT, RECORD, StagingLog, is_of_other_version, records, taken_of

SIZE = DATA_AT + 600
BODIES = st.lists(st.binary(max_size=120), min_size=1, max_size=60)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("staging")


def fill(directory, bodies, keep):
    """A small log through which all bodies passed, and those that are not taken in, about ``keep``, with positions."""
    log = StagingLog(directory, SIZE)
    waiting: list[tuple[bytes, int]] = []
    for body in bodies:
        while len(waiting) > keep or not log.append(body):
            log.take(waiting.pop(0)[1])
        waiting.append((body, log.written))
    return log, waiting


@settings(max_examples=150, deadline=None)
@given(bodies=BODIES, keep=st.integers(0, 8))
def test_what_is_not_taken_in_is_read_back_in_order(directory, bodies, keep):
    """Over any number of laps, with the position behind each record."""
    log, waiting = fill(directory, bodies, keep)
    data = log.path.read_bytes()
    assert taken_of(data) == log.taken
    assert list(records(data, log.taken)) == waiting
    log.remove()


@settings(max_examples=150, deadline=None)
@given(bodies=BODIES, keep=st.integers(1, 8), data=st.data())
def test_damage_ends_what_is_read_and_brings_nothing_that_was_not_written(directory, bodies, keep, data):
    """A power cut takes any bytes: what is read is the beginning of what was written, never anything else."""
    log, waiting = fill(directory, bodies, keep)
    raw, taken = bytearray(log.path.read_bytes()), log.taken
    log.remove()
    at = data.draw(st.integers(DATA_AT, SIZE - 1))
    stop = data.draw(st.integers(at + 1, min(SIZE, at + 64)))
    raw[at:stop] = data.draw(st.binary(min_size=stop - at, max_size=stop - at))
    found = list(records(bytes(raw), taken))
    assert found == waiting[: len(found)]


def test_a_record_of_an_earlier_lap_is_none(directory):
    """After a lap the ring holds whole old records behind the new ones: their position says that they are old."""
    log = StagingLog(directory, SIZE)
    for _ in range(3):
        for number in range(5):
            assert log.append(b"%d" % number * 80)
        log.take(log.written)
    assert log.append(b"last")
    assert [body for body, _ in records(log.path.read_bytes(), log.taken)] == [b"last"]
    log.remove()


def test_a_full_ring_takes_nothing_until_there_is_room(directory):
    """What was written before is not touched by what finds no room."""
    log = StagingLog(directory, SIZE)
    assert log.append(b"a" * (log.capacity - RECORD.size))
    assert not log.append(b"")
    log.take(log.written)
    assert log.append(b"b")
    assert [body for body, _ in records(log.path.read_bytes(), log.taken)] == [b"b"]
    log.remove()


@pytest.mark.parametrize(
    "data", [b"", b"pid 12 staging\n", b"\0" * SIZE, b"dropr-st"], ids=["empty", "lock", "zeros", "short"]
)
def test_a_file_that_was_being_made_says_nothing(data):
    """Killed before the head was written: nobody had staged anything in it."""
    assert taken_of(data) is None
    assert not is_of_other_version(data)


def test_a_newer_version_is_known_as_such(directory, monkeypatch):
    """It is whole, and not ours to read: it is to be left alone."""
    monkeypatch.setattr(staging_log, "VERSION", 7)
    log = StagingLog(directory, SIZE)
    data = log.path.read_bytes()
    log.remove()
    monkeypatch.undo()
    assert taken_of(data) is None
    assert is_of_other_version(data)


def test_without_room_nothing_is_left(tmp_path, monkeypatch):
    """It is allocated before it is mapped; a full disk is told at once, and no file stays."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        StagingLog(tmp_path / "staging")
    assert list(Path(tmp_path / "staging").iterdir()) == []
