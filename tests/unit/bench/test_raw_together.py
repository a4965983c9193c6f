"""The raw limits of several senders promise what they are compared for, and are what they are called."""

import os
import threading

import pytest

from bench.raw_together import KINDS, GroupCommit, group_commit, prepared, shared


def test_one_thread_flushes_for_all_that_wait():
    """A put returns when its body was flushed; while one thread flushes, others gather for the next flush."""
    flushed, first, go_on = [], threading.Event(), threading.Event()

    def flush(bodies):
        if not flushed:
            first.set()
            go_on.wait(60)
        flushed.append(list(bodies))

    group, done = GroupCommit(flush), []

    def put(body):
        group.put(body)
        done.append(body in [one for bodies in flushed for one in bodies])

    leader = threading.Thread(target=put, args=(b"0",))
    leader.start()
    first.wait(60)
    others = [threading.Thread(target=put, args=(b"%d" % number,)) for number in range(1, 8)]
    for thread in others:
        thread.start()
    while len(group.gathered) < 7:
        os.sched_yield()
    go_on.set()
    for thread in (leader, *others):
        thread.join(60)
    assert [len(bodies) for bodies in flushed] == [1, 7]
    assert sorted(b"".join(map(b"".join, flushed))) == sorted(b"01234567")
    assert done == [True] * 8


@pytest.mark.parametrize("storage", ["fs", "sqlite"])
def test_nothing_of_a_group_commit_is_missing(storage, tmp_path):
    """What eight threads have put is all there, in both forms."""
    with group_commit(tmp_path / "file", storage) as group:
        threads = [threading.Thread(target=lambda: [group.put(b"x") for _ in range(50)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    if storage == "fs":
        assert (tmp_path / "file").read_bytes() == b"x" * 400
    else:
        assert prepared(tmp_path / "file").execute("select count(*) from t").fetchall() == [(400,)]


@pytest.mark.parametrize("kind", KINDS)
def test_several_share_one_file(kind, tmp_path):
    """Two that put into one file keep what the other has put."""
    with shared(tmp_path / "file", kind, b"x") as one, shared(tmp_path / "file", kind, b"x") as other:
        assert [one(), other(), one()] == [1, 1, 1]
    if kind == "commit":
        assert prepared(tmp_path / "file").execute("select count(*) from t").fetchall() == [(3,)]
    else:
        assert (tmp_path / "file").read_bytes() == b"xxx"
