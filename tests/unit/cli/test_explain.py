"""Each error has a code and a page."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from dropr_core import errors
from dropr_core.cli.app import application
from dropr_core.cli.explain import page, sections
from dropr_core.cli.failures import explain

KINDS = [
    kind for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.DroprError) and kind is not errors.DroprError
]  # fmt: skip


def test_each_public_error_has_a_section_and_each_section_an_error():
    """Whoever reads a code finds what it means; no section speaks of an error that is not there."""
    assert sorted(sections()) == sorted(errors.code_of_kind(kind) for kind in KINDS)


def test_the_page_of_the_documentation_is_what_the_command_line_shows():
    """`dropr explain` works where there is no documentation, and says the same."""
    assert (Path(__file__).parents[3] / "docs" / "errors.md").read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("code", sorted(sections()))
def test_each_section_says_what_happened_and_what_to_do(code):
    """What happened, what became of the messages, what to do: each of the three, in this order."""
    assert re.findall(r"\*\*(.*?)\.\*\*", sections()[code]) == ["What happened", "Your messages", "What to do"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_that_ends_a_command_names_its_code(kind):
    """The last word of the last line is the code, in brackets; a private kind has that of the public one above it."""
    private = type(
        "Private", (kind,), {"__init__": lambda self: Exception.__init__(self, "what"), "problems": ("what",)}
    )
    _, lines = explain(private())
    assert lines == [f"what [{errors.code_of_kind(kind)}]"]
    assert errors.code_of(ValueError("no error of ours")) == errors.code_of(errors.DroprError()) == ""


def cli(*words):
    """Run the command in this process."""
    return CliRunner().invoke(application(), words)


def test_a_code_is_explained_with_its_brackets_or_without():
    """What is copied from an error works as it is; a wrong word gets the one that was probably meant."""
    assert cli("explain", "[held]").output == cli("explain", "held").output
    assert "dropr status" in cli("explain", "held").output
    assert "queue-full" in cli("explain").output
    wrong = cli("explain", "queue-ful")
    assert (wrong.exit_code, "did you mean 'queue-full'?" in wrong.stderr) == (66, True)
