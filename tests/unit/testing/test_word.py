"""A parent tells its forked child that it may go on."""

from dropr_core.testing.forks import Child, Word


def test_a_child_goes_on_when_it_is_told():
    """It waits until then, and hears it although the word was given by another process."""
    word = Word()
    with word, Child(lambda say: (say(word.wait(0.0)), say(word.wait(60.0)))) as child:
        child.go()
        assert child.hear() is False
        word.give()
        assert child.hear() is True
        assert child.wait() == 0
