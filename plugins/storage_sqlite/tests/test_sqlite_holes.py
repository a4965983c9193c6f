"""A log with a hole that only one process was told of: nobody promises behind it, whoever comes when."""

import errno
import logging
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("apsw")
import apsw
from dropr_storage_sqlite import Options, dropr_storage
from dropr_storage_sqlite.engine import mending

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import NewMessage
from dropr_core.errors import StoreReadOnly, WriteFailed
from dropr_core.model.names import IdMaker, Lane
from dropr_core.system.clock import FakeClock

LANE = Lane("peer", "orders", 5)
LOG = "outbox.db-wal"
make = IdMaker()


@pytest.fixture
def opener(tmp_path):
    opened = []

    def open_store():
        context = Context(node="n", data=tmp_path, clock=FakeClock(), log=logging.getLogger("t"), min_free=0)
        opened.append(dropr_storage(Options(flush=3600.0, reserve=0), context))
        return opened[-1]

    yield open_store
    for storage in opened:
        storage.close()


@pytest.fixture
def written(monkeypatch):
    """The log for each time that Python wrote to it: it was written again."""
    names, real = [], os.pwrite

    def pwrite(fd, *rest):
        name = Path(f"/proc/self/fd/{fd}").readlink().name
        if name == LOG:
            names.append(name)
        return real(fd, *rest)

    monkeypatch.setattr(os, "pwrite", pwrite)
    return names


def send(storage):
    storage.outbox.append([NewMessage(make(), "orders", 5, ("peer",), b"x")])


def count(storage):
    return len(storage.outbox.take(LANE, 100, 10**6).entries)


def meet_an_error(storage):
    """A sync of the log fails, and the process is told."""
    storage.outbox.engine.flush()  # the first one opens the log

    def fail(_fd):
        raise OSError(errno.EIO, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(WriteFailed):
            storage.outbox.engine.flush()


@pytest.mark.parametrize("promise", [send, lambda storage: storage.outbox.engine.flush()], ids=["send", "flush"])
def test_who_comes_after_an_error_that_another_met_writes_the_log_again_first(opener, written, promise):
    """The kernel tells the newcomer nothing, and the one that was told writes nothing any more."""
    told = opener()
    send(told)
    meet_an_error(told)
    promise(opener())
    assert set(written) == {LOG}
    written.clear()
    send(told)
    assert written == [LOG], "it was told itself: its own test is its own"
    written.clear()
    send(opener())
    assert written == [], "once is enough"
    assert count(told) >= 2


def test_a_process_that_was_there_all_the_time_writes_it_again_too(opener, written):
    """It would be told by its own sync, but what another one knows comes first."""
    told, other = opener(), opener()
    send(other)
    send(told)
    meet_an_error(told)
    send(other)
    assert written == [LOG]


def test_a_log_that_cannot_be_written_again_keeps_everybody_from_promising(opener, monkeypatch):
    """Until it can: then the send of each goes through."""
    told, other = opener(), opener()
    send(other)
    send(told)
    meet_an_error(told)

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fail)
        with pytest.raises(StoreReadOnly, match="twice"):
            send(told)
        with pytest.raises(WriteFailed):
            send(other)
        with pytest.raises(WriteFailed):
            opener()
    send(other)
    told.outbox.engine.context.clock.advance(2)
    send(told)
    assert count(told) == 4


@pytest.fixture
def with_a_loss(opener, tmp_path):
    """Two processes that have the store open, and a log whose second message the kernel has lost."""
    storage, other = opener(), opener()
    send(storage)
    assert count(other) == 1
    whole = (tmp_path / LOG).stat().st_size
    send(storage)
    with (tmp_path / LOG).open("r+b") as file:  # as a file system does that goes back to what is on the disk
        file.seek(whole + 24 + 100)
        file.write(b"\xff" * 8)
    meet_an_error(storage)
    return storage, other


def test_a_part_of_the_log_that_is_lost_is_said(with_a_loss):
    """SQLite would read it as if nothing was, while anybody has it open. The last one begins with what is whole."""
    storage, other = with_a_loss
    with pytest.raises(StoreReadOnly, match="has lost a part of the log"):
        send(storage)
    send(other)
    assert count(storage) == count(other) == 2


def test_after_a_restart_all_begin_with_what_is_whole(with_a_loss, opener, written):
    """What was promised is there, and nothing of what is lost."""
    for storage in with_a_loss:
        storage.close()
    written.clear()
    again = opener()
    assert written == [LOG]
    assert count(again) == 1
    send(again)
    assert count(again) == 2


CHILD = """
import ctypes, logging, os, signal, struct, sys
from pathlib import Path
from dropr_core.system.clock import SystemClock
from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import NewMessage
from dropr_core.errors import WriteFailed
from dropr_core.model.names import IdMaker
from dropr_storage_sqlite import Options, dropr_storage
from dropr_storage_sqlite.engine import connection

def no_more_syncs():
    "From now on the kernel answers each sync of this process with EIO."
    numbers = {"x86_64": (74, 75), "aarch64": (82, 83)}[os.uname().machine]
    load, same, answer = 0x20, 0x15, 0x06
    code = [(load, 0, 0, 0), (same, 1, 0, numbers[0]), (same, 0, 1, numbers[1]),
            (answer, 0, 0, 0x00050000 | 5), (answer, 0, 0, 0x7FFF0000)]
    packed = b"".join(struct.pack("HBBI", *one) for one in code)
    held = ctypes.create_string_buffer(packed)
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(held)))
    libc = ctypes.CDLL(None)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
        print("refused", flush=True)
        sys.exit()

def send():
    storage.outbox.append([NewMessage(IdMaker()(), "orders", 5, ("peer",), b"x" * 9000)])

connection.CHECKPOINT_PAGES = 40
context = Context(node="n", data=Path(sys.argv[1]), clock=SystemClock(), log=logging.getLogger("t"), min_free=0)
storage = dropr_storage(Options(flush=3600.0, reserve=0), context)
send()
"""
ENDS = {
    "a commit": """
no_more_syncs()
try:
    send()
except WriteFailed:
    print("met", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
""",
    "a checkpoint": """
no_more_syncs()
for _ in range(100):
    storage.outbox.engine.write(lambda file: file.execute("UPDATE meta SET value = zeroblob(9000) WHERE key = 'x'"))
    storage.outbox.engine.write(lambda file: file.execute("INSERT OR REPLACE INTO meta VALUES('x', zeroblob(9000))"))
    if storage.outbox.engine.trust.suspect:
        print("met", flush=True)
        break
os.kill(os.getpid(), signal.SIGKILL)
""",
    "the last close": """
no_more_syncs()
storage.outbox.engine.flusher._dirty = False
storage.close()
print("met", flush=True)
""",
    "a sync that it was killed in": """
storage.outbox.engine.flush()
print("met", flush=True)
os.fdatasync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
storage.outbox.engine.flush()
""",
    "nothing": """
print("met", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
""",
}


@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="needs the numbers of system calls")
@pytest.mark.parametrize("company", [False, True], ids=["alone", "beside another"])
@pytest.mark.parametrize("end", ENDS)
def test_what_a_process_met_that_is_gone_is_known_to_whoever_comes(opener, tmp_path, written, end, company):
    """In SQLite's own syncs, too, and those whose errors it keeps to itself; where nothing was met nothing is done."""
    if company:
        send(opener())
    words = [sys.executable, "-c", CHILD + ENDS[end], str(tmp_path)]
    said = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    if said == "refused":
        pytest.skip("system calls cannot be filtered here")
    assert said == "met"
    if company and end == "the last close":
        return  # it was not the last
    written.clear()
    send(opener())
    assert written == ([] if end == "nothing" else [LOG])


def test_nobody_begins_the_log_anew_while_it_is_compared(opener, tmp_path, monkeypatch):
    """Another process that is done with mending may copy it, and what is gone from the log then is no loss."""
    told = opener()
    for _ in range(20):
        send(told)
    meet_an_error(told)
    real, tried = mending.whole_frames, []

    def after_a_checkpoint(log):
        other = apsw.Connection(str(tmp_path / "outbox.db"))
        try:
            tried.append(other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0])
        except apsw.BusyError:
            tried.append(1)
        finally:
            other.close()
        return real(log)

    monkeypatch.setattr(mending, "whole_frames", after_a_checkpoint)
    newcomer = opener()
    send(newcomer)
    assert tried
    assert count(newcomer) == 21


def test_a_send_that_meets_doubt_on_its_way_is_stored(opener, monkeypatch):
    """Somebody is killed within a sync when it has looked who else sends, and before its transaction: the log is mended
    within that, which closes and opens all that belongs to it.
    """
    one, two = opener(), opener()
    for _ in range(3):
        send(one)
        send(two)
    company = one.outbox.engine.company
    real, met = company.take_turn, []

    def take_turn():
        if not met:
            met.append(two.outbox.engine._syncs.met())
        return real()

    monkeypatch.setattr(company, "take_turn", take_turn)
    send(one)
    assert met
    assert count(two) == 7
