"""What processes post for one of them to store: who has a place, and what is believed of what stands there."""

import os

import pytest

from dropr_core.storage_kit.posts import PLACES, Posts


@pytest.fixture
def opened(tmp_path):
    """Opens views of one directory, and closes them."""
    made = []

    def open_one():
        made.append(Posts(tmp_path / "outbox.senders"))
        return made[-1]

    yield open_one
    for one in made:
        one.close()


def test_processes_of_another_version_are_left_alone(opened):
    """The file is theirs: nobody else posts there, or leads."""
    theirs = opened()
    assert theirs.open()
    os.pwrite(theirs._fd, bytes(8), 0)
    assert not opened().open()


def test_whoever_finds_no_place_taken_begins_anew(opened, tmp_path):
    """What stood there may be from before a power cut; and who closes leaves no FIFO behind."""
    one, two = opened(), opened()
    assert one.open()
    assert one.post(b"old")
    assert two.open()
    assert [post.payload for post in two.posted()] == [b"old"]
    one.release()
    two.release()
    again = opened()
    assert again.open()
    assert again.posted() == []
    again.close()
    assert not (tmp_path / "outbox.senders" / "0").exists()


def test_where_all_places_are_taken_nothing_is_posted(opened):
    """And it is not asked for at once again."""
    views = [opened() for _ in range(PLACES + 1)]
    assert [view.open() for view in views] == [True] * PLACES + [False]
    views[0].close()
    assert not views[-1].open()
    views[-1]._rest = 0
    assert views[-1].open()


def test_one_leads_at_a_time(opened):
    """Until it hands over, or is gone."""
    one, two = opened(), opened()
    assert one.open()
    assert two.open()
    assert one.lead()
    assert not two.lead()
    one.hand_over()
    assert two.lead()
    two.release()
    assert one.lead()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_keeps_neither_the_place_nor_the_lead(opened):
    """Its parent's are given up with its parent, whatever the child does."""
    one, two = opened(), opened()
    assert one.open()
    assert one.lead()
    end, begin = os.pipe()
    there, here = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(begin)
        os.write(here, b"!")
        os.read(end, 1)
        os._exit(0)
    os.read(there, 1)
    one.close()
    assert two.open()
    assert two.place == 0
    assert two.lead()
    for fd in (begin, end, there, here):
        os.close(fd)
    os.waitpid(child, 0)
