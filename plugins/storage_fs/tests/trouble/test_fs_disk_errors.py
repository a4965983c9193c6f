"""Errors of the disk: a failed write or flush promises nothing, and what was promised before stays."""

import errno
import os

import pytest
from fs_trouble_rig import LANE, SOURCE, came, push, queued, send

from dropr_core.contracts.storage import Ack
from dropr_core.errors import QueueFull, WriteFailed


def failing(monkeypatch, name, number, *, skip=0, times=1):
    """Let a call of the operating system fail."""
    real, calls = getattr(os, name), []

    def broken(*values):
        calls.append(values)
        if skip < len(calls) <= skip + times:
            raise OSError(number, os.strerror(number))
        return real(*values)

    monkeypatch.setattr(os, name, broken)
    return calls


@pytest.mark.parametrize("skip", range(4))
def test_fault_8_an_error_of_fdatasync_is_a_failed_write(skip, opener, monkeypatch, events):
    """The call fails, nothing of it is stored, the file is not flushed again, and the next call goes through."""
    storage = opener()
    send(storage, 1, peers=("there", "other"))
    push(storage, 1, 1)
    with monkeypatch.context() as patch:
        failing(patch, "fdatasync", errno.EIO, skip=skip)
        done, number = [], 2
        for _ in range(4):
            try:
                send(storage, number, peers=("there", "other"))
                done.append(number)
            except WriteFailed:
                pass
            number += 1
        assert len(done) == 3
    assert queued(storage) == [1, *done]
    assert queued(storage, LANE._replace(peer="other")) == [1, *done]
    assert any(name == "write_failed" for name, _ in events)
    storage.close()
    again = opener()
    assert queued(again) == queued(again, LANE._replace(peer="other")) == [1, *done]
    assert came(again) == [1]


def test_fault_8_a_push_that_failed_may_come_again(opener, monkeypatch):
    """After an error of fdatasync the head stands where it stood, and the same push is taken."""
    storage = opener()
    push(storage, 1, 2)
    for name in ("fdatasync", "fdatasync"):
        with monkeypatch.context() as patch:
            failing(patch, name, errno.EIO)
            with pytest.raises(WriteFailed):
                push(storage, 3, 4)
        assert storage.inbox.heads("shop")[SOURCE].sequence == 2
        assert came(storage) == [1, 2]
    assert push(storage, 3, 4).taken
    assert came(storage) == [1, 2, 3, 4]
    storage.close()
    assert came(opener()) == [1, 2, 3, 4]


@pytest.mark.parametrize("again", [False, True])
def test_fault_8_whoever_waited_for_the_same_flush_is_told(again, opener, monkeypatch):
    """Another process's flush fails, and what was not flushed is cut off: nobody may take it for stored."""
    storage, other = opener(), opener()
    send(storage, 1)
    real, calls = os.fdatasync, []

    def meanwhile(fd):
        calls.append(fd)
        if len(calls) == 1:  # of the first, under way: the other one writes, and fails
            with pytest.raises(WriteFailed):
                send(other, 3)
            if again:
                send(other, 4)
        elif len(calls) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", meanwhile)
        with pytest.raises(WriteFailed):
            send(storage, 2)
    assert queued(storage) == queued(other) == ([1, 4] if again else [1])
    send(storage, 5)
    assert queued(other)[-1] == 5


@pytest.mark.parametrize("skip", range(6))
def test_fault_9_a_full_disk_stores_nothing_by_halves(skip, opener, monkeypatch):
    """ENOSPC at any write: QueueFull, and either all of the call is there or nothing; then it goes on."""
    storage = opener()
    send(storage, 1)
    push(storage, 1, 1)
    sent, taken = [1], 1
    with monkeypatch.context() as patch:
        failing(patch, "pwrite", errno.ENOSPC, skip=skip, times=2)
        for number in range(2, 7):
            try:
                send(storage, number, number + 100, peers=("there", "other"))
                sent += [number, number + 100]
            except QueueFull:
                pass
            try:
                push(storage, taken + 1, taken + 2)
                taken += 2
            except QueueFull:
                pass
    assert queued(storage) == sent
    assert queued(storage, LANE._replace(peer="other")) == sent[1:]
    assert came(storage) == list(range(1, taken + 1))
    send(storage, 200)
    storage.close()
    again = opener()
    assert queued(again) == [*sent, 200]
    assert came(again) == list(range(1, taken + 1))


def test_a_failed_flush_leaves_the_acknowledged_alone(opener, monkeypatch):
    """Acks that were promised before an error stay done; what was written again is written to another file."""
    storage = opener()
    push(storage, 1, 3)
    worker = storage.inbox.register()
    storage.inbox.settle([Ack(claim) for claim in storage.inbox.claim(["orders"], 2, worker)])
    storage.inbox.flush()
    with monkeypatch.context() as patch:
        failing(patch, "fdatasync", errno.EIO)
        with pytest.raises(WriteFailed):
            push(storage, 4, 4)
    assert came(storage) == [3]
    assert push(storage, 4, 4).taken
    storage.close()
    assert came(opener()) == [3, 4]
