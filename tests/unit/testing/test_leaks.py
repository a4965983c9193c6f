"""What the contract tests count as left behind."""

from dropr_core.testing.leaks import listed


def test_a_thread_that_has_ended_hides_no_child_of_the_others(tmp_path):
    """The list of a thread that ended while it was looked for takes none from the lists beside it."""
    (tmp_path / "one").write_text("11 12 ")
    (tmp_path / "two").write_text("13")
    assert list(listed([tmp_path / "one", tmp_path / "ended", tmp_path / "two"])) == [11, 12, 13]
