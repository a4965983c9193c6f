"""Private files, replaced whole: who reads sees the old or the new, and what is durable was flushed with its name."""

import os
import stat
import threading
from pathlib import Path

import pytest

from dropr_core.system import files


@pytest.fixture
def flushed(monkeypatch):
    """The paths that were flushed, in order."""
    paths, real = [], os.fsync

    def fsync(fd):
        paths.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return paths


def names(directory):
    return [path.name for path in directory.iterdir()]


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_replaced_whole_and_nobody_else_reads_it(tmp_path, flushed):
    """Nothing stays beside it; without `durable` nothing is flushed."""
    path = tmp_path / "state"
    path.write_text("old and long")
    path.chmod(0o644)
    files.replace_text(path, "new")
    assert (path.read_text(), mode(path), names(tmp_path)) == ("new", 0o600, ["state"])
    assert flushed == []


def test_a_durable_file_is_flushed_before_it_has_its_name_and_the_name_after(tmp_path, flushed):
    """The other order leaves an empty file after a power cut."""
    files.replace_file(tmp_path / "state", b"x", durable=True)
    assert flushed == [str(tmp_path / f"state.{os.getpid()}.new"), str(tmp_path)]


def test_who_reads_meanwhile_sees_one_or_the_other(tmp_path):
    """Never half of it, and never nothing."""
    path = tmp_path / "state"
    contents = ["a" * 100_000, "b" * 100_000]
    files.replace_text(path, contents[0])
    over = threading.Event()
    seen = set()

    def read():
        while not over.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(200):
        files.replace_text(path, contents[turn % 2])
    over.set()
    reader.join()
    assert seen <= set(contents)


def test_of_many_who_create_one_wins_and_all_see_that_one(tmp_path, flushed):
    """The content of the first stands; what the others brought is gone."""
    path = tmp_path / "node.id"
    files.create_text(path, "first")
    files.create_text(path, "second")
    assert (path.read_text(), mode(path), names(tmp_path)) == ("first", 0o600, ["node.id"])
    assert flushed[-1] == str(tmp_path)


def test_files_and_directories_that_are_there_are_left_alone(tmp_path, flushed):
    """Their names are made durable once, when they are made."""
    for _ in range(2):
        files.create_file(tmp_path / "lock")
        files.make_directory(tmp_path / "run")
        (tmp_path / "lock").write_text("kept")
    assert (tmp_path / "lock").read_text() == "kept"
    assert (mode(tmp_path / "lock"), mode(tmp_path / "run")) == (0o600, 0o700)
    assert flushed == [str(tmp_path)] * 2


def test_a_link_in_the_place_of_a_new_file_is_not_followed(tmp_path):
    """What another user put there is not written through."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / f"state.{os.getpid()}.new").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        files.replace_text(tmp_path / "state", "x")
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_short_write_is_gone_on_with(tmp_path, monkeypatch):
    """The system may take any part of what is written; all of it stands at its place in the end."""
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data)[:3], at))
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    files.write_at(fd, b"0123456789", 5)
    os.close(fd)
    assert (tmp_path / "file").read_bytes() == bytes(5) + b"0123456789"
