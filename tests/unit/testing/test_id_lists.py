"""How two lists of messages differ, in words."""

from dropr_core.testing.id_lists import answered_no
from dropr_core.testing.likeness import strayed


def test_what_differs_is_named():
    """Missing, extra and doubled ones by name, and the first place that is wrong."""
    one, two, three = bytes([1]), bytes([2]), bytes([3])
    assert strayed([one, two], [one, two]) == ""
    assert strayed([one, one], [one, two]).startswith("2 rows instead of 2; 1 missing: 02; 1 twice: 01; row 2 is")
    assert strayed([one], [one, two, three]).startswith("1 rows instead of 3; 2 missing: 02, 03; row 2 is")
    assert strayed([one, three, two], [one, two, three]).startswith("3 rows instead of 3; row 2 is the first")


def test_many_are_counted():
    """Five are named, the rest is a number: the message stays short."""
    assert strayed([], range(1000)).startswith("0 rows instead of 1000; 1000 missing: 0, 1, 2, 3, 4 and 995 more; ")


def test_answers_that_are_no_are_named():
    """Which of the questions were answered with no, or that there are not as many answers."""
    assert answered_no([True, True], [b"a", b"b"]) == ""
    assert answered_no([True, False], [b"a", b"b"]) == "1 of 2 were answered with no: 62"
    assert answered_no([True], [b"a", b"b"]) == "1 answers to 2 questions"
