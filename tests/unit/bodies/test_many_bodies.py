"""More large bodies on their way in than files are open: each goes on where it was, and no file stays open."""

import contextlib
import os
import threading
from pathlib import Path

import pytest

from dropr_core.bodies import partial_body
from dropr_core.bodies.store import BodyFiles
from dropr_core.model.chunk_digest import LEAF, digest_of, leaves_of
from dropr_core.model.envelope import Reference
from dropr_core.model.names import IdMaker

make = IdMaker()


@pytest.fixture
def bodies(tmp_path):
    return BodyFiles(tmp_path / "bodies", 0)


def reference(data):
    return Reference(len(data), digest_of(leaves_of(data)))


def others(bodies, arrivals, monkeypatch):
    """As many bodies on their way as there may be files open."""
    monkeypatch.setattr(partial_body, "OPEN", 3)
    for number in range(3):
        data = bytes([number]) * (2 * LEAF)
        arrivals.of("shop", make(), reference(data)).write(0, data[:LEAF])


def open_parts(bodies):
    """Part files that this process has open."""
    paths = []
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            paths.append(fd.readlink())
    return [path for path in paths if path.is_relative_to(bodies.directory) and path.suffix == ".part"]


def test_a_body_whose_file_was_closed_between_two_pieces_goes_on(bodies, monkeypatch):
    """Others took its place among the open files after somebody had found it: he writes, and so does who comes next."""
    arrivals, data, identity = bodies.arrivals(), os.urandom(3 * LEAF), make()
    found = arrivals.of("shop", identity, reference(data))
    found.write(0, data[:LEAF])
    others(bodies, arrivals, monkeypatch)
    assert found.write(LEAF, data[LEAF : 2 * LEAF]) == 2 * LEAF
    others(bodies, arrivals, monkeypatch)
    assert len(open_parts(bodies)) == 3
    assert arrivals.of("shop", identity, reference(data)).write(2 * LEAF, data[2 * LEAF :]) == len(data)
    assert bodies.has("shop", identity, reference(data))
    arrivals.close()
    assert open_parts(bodies) == []


def test_a_file_that_was_closed_and_not_touched_is_not_read_again(bodies, monkeypatch):
    """What was taken in is known still; where another process has written since, it is read as ever."""
    arrivals, data = bodies.arrivals(), os.urandom(3 * LEAF)
    read, pread = [], os.pread
    monkeypatch.setattr(partial_body.os, "pread", lambda fd, size, at: read.append(size) or pread(fd, size, at))
    for touched in (False, True):
        identity = make()
        one = arrivals.of("shop", identity, reference(data))
        one.write(0, data[:LEAF])
        others(bodies, arrivals, monkeypatch)
        if touched:
            process = bodies.arrivals()
            process.of("shop", identity, reference(data)).write(LEAF, data[LEAF : 2 * LEAF])
            process.close()
        assert one.have() == (2 * LEAF if touched else LEAF)
        one.write(one.have(), data[one.have() :])
        assert bool(sum(read)) == touched
        assert bodies.has("shop", identity, reference(data))
    arrivals.close()


def test_threads_with_more_bodies_than_open_files(bodies, monkeypatch):
    """Each thread goes from body to body, all at once: every piece is taken, every body is whole, none stays open."""
    monkeypatch.setattr(partial_body, "OPEN", 2)
    arrivals, errors = bodies.arrivals(), []
    coming = [(make(), os.urandom(4 * LEAF + 7)) for _ in range(12)]

    def bring(number):
        try:
            for _ in range(5):
                for identity, data in coming[number % 2 :: 2]:
                    body = arrivals.of("shop", identity, reference(data))
                    have = body.have()
                    body.write(have, data[have : have + LEAF])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=bring, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(bodies.has("shop", identity, reference(data)) for identity, data in coming)
    assert open_parts(bodies) == []
    arrivals.close()
