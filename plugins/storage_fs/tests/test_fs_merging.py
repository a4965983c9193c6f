"""Which runs go into a new one: what is remembered is seldom written again, and stands in few files."""

from dropr_storage_fs.engine.events import Events
from dropr_storage_fs.engine.remembered import RUN_MOST, SET_DOWN_AT, choose
from dropr_storage_fs.engine.run_files import RunFiles


class NoEvents(Events):
    """Nobody is told."""

    def __init__(self):
        """Of nothing."""


def test_a_record_is_written_again_only_when_runs_double(tmp_path):
    """As much as a full run, in the usual portions: each record is written about as often as runs double until then."""
    files = RunFiles(tmp_path, "run.", NoEvents())
    sizes, written, most = dict[int, int](), 0, 0
    portions = RUN_MOST // SET_DOWN_AT
    for number in range(1, portions + 1):
        absorbed = choose(files, sizes, [], SET_DOWN_AT)
        sizes[number] = SET_DOWN_AT + sum(sizes.pop(one) for one in absorbed)
        files.path(number).write_bytes(b"")
        written += sizes[number]
        most = max(most, len(sizes))
    assert written <= 3.2 * portions * SET_DOWN_AT
    assert most <= 5
    assert sum(sizes.values()) == portions * SET_DOWN_AT


def test_larger_runs_behind_a_small_one_go_in_with_it(tmp_path):
    """What is newer counts together: a run as large as all of it is taken in, and nothing beyond a full one."""
    files = RunFiles(tmp_path, "run.", NoEvents())
    sizes = {1: RUN_MOST, 2: 9500, 3: 5000, 4: 2000}
    for number in sizes:
        files.path(number).write_bytes(b"")
    assert choose(files, sizes, [], 1500) == []
    assert choose(files, sizes, [], 2000) == [4]
    assert choose(files, sizes, [], 3000) == [4, 3, 2]
    assert choose(files, sizes, [2], 1000) == [2, 4, 3]
