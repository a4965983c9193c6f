"""The bytes of a lease sheet: what is written is what is read, and what is damaged is believed least."""

import errno
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dropr_core.contracts.lease_sheets import Mark
from dropr_core.contracts.storage import Ack, Claim
from dropr_core.errors import Closed
from dropr_core.model.names import MessageId
from dropr_core.storage_kit import lease_sheet
from dropr_core.storage_kit.consumers import LockedConsumers
from dropr_core.storage_kit.guard import Guard
from dropr_core.storage_kit.lease_sheet import MappedSheet, decode_sheet, read_sheet

BOOT = "4d2cb1a7-0e6f-4f7e-9f5e-0a3a4dbb1c6b"
KEEP = {"orders": 0.0, "kept": 60.0}


def claim(number, token=b"token--1", channel="orders"):
    """A lease."""
    return Claim(token, number, MessageId(bytes(16)), channel, 5, "shop", b"", 1, False, 0.0)


@pytest.fixture
def path(tmp_path):
    """The lock file of a consumer, as it is before it has a sheet."""
    made = tmp_path / "consumer"
    made.write_bytes(b"pid 1 test\n")
    return made


@pytest.fixture
def consumers(tmp_path):
    """Those of this process."""
    return LockedConsumers(tmp_path / "consumers", Guard("store"))


def filled(path):
    """A sheet with something of everything, and what it must be read as."""
    sheet = MappedSheet(path, BOOT)
    claims = [claim(number, channel="kept" if number == 4 else "orders") for number in range(1, 9)]
    lines = sheet.hold(claims, KEEP)
    for line in lines[1:6]:
        sheet.begin(line)
    sheet.done(lines[2])
    sheet.done(lines[3])
    assert sheet.done_with(lines[4], Ack(claims[4], b"result", "text/plain", reason="why"))
    marks = [Mark.HELD, Mark.BEGUN, Mark.DONE, Mark.DONE, Mark.DONE, Mark.BEGUN, Mark.HELD, Mark.HELD]
    return sheet, dict(zip([one.number for one in claims], marks, strict=True))


def test_what_is_written_is_read(path):
    """Marks, retention, results and reasons come out as they went in; the words for people stay where they were."""
    _, marks = filled(path)
    left = read_sheet(path, BOOT)
    assert {number: left.of(b"token--1", number).mark for number in marks} == marks
    assert left.of(b"token--1", 4).keep == 60.0
    assert left.of(b"token--1", 5) == (Mark.DONE, b"result", "text/plain", 0.0, "why")
    assert left.of(b"token--2", 1).mark is Mark.BEGUN, "another lease of the same message"
    assert path.read_bytes().startswith(b"pid 1 test\n")


operations = st.lists(
    st.tuples(st.sampled_from(["hold", "begin", "withdraw", "done", "note", "free", "claiming"]), st.integers(0, 600)),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(operations=operations)
def test_random_lives(tmp_path_factory, operations):
    """After each step of any life a reader finds each lease as it stands: what is held twice, freed or full loses
    nothing and mixes nothing up.
    """
    path = tmp_path_factory.mktemp("sheet") / "consumer"
    path.touch()
    sheet = MappedSheet(path, BOOT)
    model, lines, notes, number, claiming = {}, {}, {}, 0, False
    for what, argument in operations:
        mine = sorted(model)
        chosen = mine[argument % len(mine)] if mine else None
        if what == "hold":
            claims = [
                claim(number + 1 + index, os.urandom(argument % 28)) for index in range(min(argument, sheet.room))
            ]
            number += len(claims)
            for one, line in zip(claims, sheet.hold(claims, KEEP), strict=True):
                model[one.number], lines[one.number] = (one, Mark.HELD), line
        elif what == "claiming":
            claiming = bool(argument % 2)
            sheet.claiming(begins=claiming)
        elif chosen is not None:
            one, mark = model[chosen]
            if what == "begin" and mark is not Mark.DONE:
                sheet.begin(lines[chosen])
                model[chosen] = (one, Mark.BEGUN)
            elif what == "withdraw":
                sheet.withdraw(lines[chosen])
                model[chosen] = (one, Mark.HELD if mark is Mark.BEGUN else mark)
            elif what == "done":
                sheet.done(lines[chosen])
                model[chosen] = (one, Mark.DONE)
            elif what == "note" and mark is not Mark.DONE:
                note = b"x" * (argument * 8)
                if sheet.done_with(lines[chosen], Ack(one, note)):
                    model[chosen], notes[chosen] = (one, Mark.DONE), note
            elif what == "free":
                gone = mine[: argument + 1]
                sheet.free([lines.pop(one) for one in gone])
                for one in gone:
                    model.pop(one)
                    notes.pop(one, None)
        left = read_sheet(path, BOOT)
        for one, mark in model.values():
            noted = left.of(one.token, one.number)
            assert (noted.mark, noted.result) == (mark, notes.get(one.number))
        assert left.of(b"nobody's", 1 << 50).mark is (Mark.HELD if claiming else Mark.BEGUN)
        assert sheet.room == lease_sheet.LINES - len(model)


@settings(max_examples=400, deadline=None)
@given(at=st.integers(0, lease_sheet.SIZE - 1), bit=st.integers(0, 7))
def test_a_damaged_sheet_is_believed_least(tmp_path_factory, at, bit):
    """One wrong bit anywhere, and each lease is what it was or counts as begun: never as done, nor as held."""
    path = tmp_path_factory.mktemp("sheet") / "consumer"
    path.touch()
    _, marks = filled(path)
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    left = decode_sheet(bytes(data), BOOT)
    for number, mark in marks.items():
        assert left.of(b"token--1", number).mark in {mark, Mark.BEGUN}
    assert left.of(b"token--1", 5).result in {b"result", None}
    assert left.of(b"another-", 9).mark is Mark.BEGUN


@given(data=st.binary(max_size=3000), tail=st.booleans())
def test_any_bytes_are_read(data, tail):
    """Whatever stands in the file, reading it raises nothing."""
    whole = (bytes(lease_sheet.HEAD_AT) + data).ljust(lease_sheet.SIZE, b"\0") if tail else data
    assert decode_sheet(whole, BOOT).of(b"token--1", 1).mark is Mark.BEGUN


def test_a_sheet_that_is_none_of_ours_says_nothing(path, tmp_path, monkeypatch):
    """Of another boot or machine, of another version, cut off, too long, a link, or not there: every lease is begun."""
    sheet, _ = filled(path)
    sheet.claiming(begins=True)
    whole = path.read_bytes()
    assert not decode_sheet(whole, BOOT).silent
    assert decode_sheet(whole, "another-boot").silent
    assert decode_sheet(whole, "").silent
    assert decode_sheet(whole + b"\0", BOOT).silent
    for size in range(0, len(whole), 512):
        assert decode_sheet(whole[:size], BOOT).silent
    monkeypatch.setattr(lease_sheet, "VERSION", 2)
    assert decode_sheet(whole, BOOT).silent
    monkeypatch.undo()
    (tmp_path / "link").symlink_to(path)
    assert read_sheet(tmp_path / "link", BOOT).silent
    assert read_sheet(tmp_path / "nothing", BOOT).silent
    assert read_sheet(tmp_path, BOOT).silent


def test_what_has_no_room_is_settled_at_once(path):
    """A result that is too large, or finds the room full, is refused and the mark stays; settled ones make room."""
    sheet = MappedSheet(path, BOOT)
    claims = [claim(number) for number in range(20)]
    lines = sheet.hold(claims, KEEP)
    assert not sheet.done_with(lines[0], Ack(claims[0], b"x" * 5000))
    noted = [line for line, one in zip(lines, claims, strict=True) if sheet.done_with(line, Ack(one, b"x" * 4000))]
    assert 0 < len(noted) < len(lines)
    assert read_sheet(path, BOOT).of(b"token--1", 19).mark is Mark.HELD
    sheet.free(noted)
    assert sheet.done_with(lines[-1], Ack(claims[-1], b"x" * 4000))
    assert read_sheet(path, BOOT).of(b"token--1", 19).result == b"x" * 4000


def test_a_token_that_is_too_long_is_refused(path):
    """A storage whose tokens do not fit is told, and no line is taken."""
    sheet = MappedSheet(path, BOOT)
    with pytest.raises(ValueError, match="28 bytes"):
        sheet.hold([claim(1, b"x" * 28)], KEEP)
    assert sheet.room == lease_sheet.LINES
    assert read_sheet(path, BOOT).of(b"x" * 28, 1).mark is Mark.BEGUN


def test_without_room_on_the_disk_there_is_no_sheet(consumers, monkeypatch):
    """The file is allocated before it is mapped: on a full disk there is none, the lock file is as it was, and later
    there is one.
    """
    name = consumers.register("x")
    path = consumers._directory / name
    before = path.read_bytes()

    def full(fd, offset, length):
        os.ftruncate(fd, length // 2)
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        assert consumers.sheet(name) is None
    assert path.read_bytes() == before
    sheet = consumers.sheet(name)
    assert sheet is consumers.sheet(name)
    assert path.stat().st_blocks * 512 >= lease_sheet.SIZE, "not allocated"
    consumers.release(name)


def test_a_sheet_lives_as_long_as_its_leases(consumers):
    """Released, the file goes; abandoned, it stays until nobody's leases need it, and a later death is no hurry."""
    gone, dead, late = (consumers.register(word) for word in ("gone", "dead", "late"))
    sheet = consumers.sheet(dead)
    sheet.hold([claim(7)], KEEP)
    consumers.release(gone)
    consumers.abandon(dead)
    with pytest.raises(Closed):
        sheet.begin(0)
    assert consumers.left_by(dead).of(b"token--1", 7).mark is Mark.HELD
    consumers.tidy(lambda: {dead})
    assert not consumers.left_by(dead).silent
    consumers.sheet(late).hold([claim(8)], KEEP)

    def holders():  # while somebody looks at the leases of others, one more dies
        consumers.abandon(late)
        return set()

    consumers.tidy(holders)
    assert consumers.left_by(dead).silent
    assert not consumers.left_by(late).silent, "who died after the look may have left leases"
    consumers.tidy(set)
    assert list(consumers._directory.iterdir()) == []
