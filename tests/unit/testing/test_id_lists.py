"""How two lists of messages differ, in words."""

from dropr_core.testing.id_lists import answered_no, compare


def test_what_differs_is_named():
    """Missing and extra ones by name, those that came twice as extra, another order by its first place."""
    one, two, three = bytes([1]), bytes([2]), bytes([3])
    assert compare([one, two], [one, two]) == ""
    assert compare([one, one], [one, two]) == "2 instead of 2; 1 missing: 02; 1 extra: 01"
    assert compare([one], [one, two, three]) == "1 instead of 3; 2 missing: 02, 03"
    assert compare([one, three, two], [one, two, three]).endswith("another order: number 1 is 03 and should be 02")


def test_many_are_counted():
    """Five are named, the rest is a number: the message stays short."""
    assert compare([], range(1000)) == "0 instead of 1000; 1000 missing: 0, 1, 2, 3, 4 and 995 more"


def test_answers_that_are_no_are_named():
    """Which of the questions were answered with no, or that there are not as many answers."""
    assert answered_no([True, True], [b"a", b"b"]) == ""
    assert answered_no([True, False], [b"a", b"b"]) == "1 of 2 were answered with no: 62"
    assert answered_no([True], [b"a", b"b"]) == "1 answers to 2 questions"
