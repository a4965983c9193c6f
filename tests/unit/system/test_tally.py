"""What strangers can repeat is written down more and more rarely."""

from dropr_core.system.tally import Tally


def test_the_first_the_second_the_fourth():
    """A line for each power of two, also where several come at once."""
    tally = Tally()
    assert [number for number in range(1, 101) if tally.add()] == [1, 2, 4, 8, 16, 32, 64]
    assert not tally.add(0)
    assert tally.add(100)
    assert tally.count == 200
