"""Message ids: version 7 UUIDs that rise and never repeat."""

import os
import threading
import uuid
import warnings

from dropr_core.model.names import IdMaker


def test_ids_are_version_7_uuids_of_the_moment():
    """The first 48 bits are milliseconds since the epoch; version and variant are where RFC 9562 wants them."""
    identity = uuid.UUID(bytes=IdMaker(lambda: 1_700_000_000.5)())
    assert (identity.version, identity.variant) == (7, uuid.RFC_4122)
    assert identity.int >> 80 == 1_700_000_000_500


def test_ids_rise_even_when_the_clock_steps_back():
    """Within a millisecond and after a step of the wall clock, each id is above the one before."""
    times = iter([100.0, 100.0, 100.001, 50.0, 50.0, 100.0005, 200.0])
    make = IdMaker(lambda: next(times))
    ids = [make() for _ in range(7)]
    assert ids == sorted(set(ids))


def test_ids_made_together_rise_among_those_made_alone():
    """Many at once are as many calls: different, rising, above all before them and below all after them."""
    times = iter([100.0, 100.001, 50.0, 200.0])
    make = IdMaker(lambda: next(times))
    ids = [make(), *make.several(500, 100.0), make(), *make.several(3, 99.0), make(), *make.several(0, 300.0), make()]
    assert ids == sorted(set(ids))
    assert len(ids) == 507


def test_ids_of_many_threads_are_different_and_rise_in_each():
    """Eight threads at once: no id twice, and each thread's own ids rise."""
    make, lists, start = IdMaker(), [[] for _ in range(8)], threading.Barrier(8)

    def work(mine):
        start.wait(10)
        mine.extend(make() for _ in range(2000))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in lists]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({identity for mine in lists for identity in mine}) == 16_000
    assert all(mine == sorted(mine) for mine in lists)


def test_a_forked_child_makes_other_ids_than_its_parent():
    """Both go on after a fork: they must not count through the same numbers."""
    make = IdMaker(lambda: 1.0)
    make()
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of threads that other tests left; the child only counts
        child = os.fork()
    if child == 0:
        os.write(writer, b"".join(make() for _ in range(50)))
        os._exit(0)
    os.waitpid(child, 0)
    data = os.read(reader, 800)
    os.close(reader)
    os.close(writer)
    theirs = {data[index : index + 16] for index in range(0, 800, 16)}
    assert len(theirs) == 50
    assert not theirs & {make() for _ in range(50)}
