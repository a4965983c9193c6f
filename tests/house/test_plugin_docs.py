"""The pages for authors of plugins show code that works: what is generated, or what is run here."""

import re
from pathlib import Path

import pytest

from dropr_core import testing
from dropr_core.cli.new import render
from dropr_core.contracts.storage import Inbox, Outbox

pytest_plugins = ["pytester"]

DOCS = Path(__file__).resolve().parents[2] / "docs" / "plugins"
PAGES = {"serializer": "msgpack", "handler": "lines", "observer": "counter", "storage": "shelf", "transport": "folder"}
"""Page (and kind) → the name under which its example is generated."""


def blocks(page, info):
    """The code blocks of a page that begin with ```info."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{info}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("kind", "name"), PAGES.items())
def test_shown_code_is_generated_code(kind, name):
    """Each block of a page stands, line by line, in the package that `dropr new plugin` writes and tests."""
    texts = [text for path, text in render(kind, name).items() if path.endswith(".py")]
    shown = blocks(kind, "python")
    assert shown
    for block in shown:
        assert any(block.rstrip() in text for text in texts), f"not what is generated:\n{block}"
    page = (DOCS / f"{kind}.md").read_text(encoding="utf-8")
    assert f"dropr new plugin {kind} {name}" in page


def test_a_storage_costs_what_its_page_says():
    """The generated storage is complete, and has about the lines that the page tells an author of a storage."""
    texts = render("storage", "shelf")
    code = {path: text.count("\n") for path, text in texts.items() if path.startswith("dropr_storage_shelf/")}
    assert "about a thousand lines" in (DOCS / "storage.md").read_text(encoding="utf-8")
    assert 800 < sum(code.values()) < 1200
    must = [f"`{name}`" for half in (Outbox, Inbox) for name in sorted(half.__abstractmethods__ | {"move"})]
    page = (DOCS / "storage.md").read_text(encoding="utf-8")
    assert f"**What a storage must write**: {len(must)} methods" in page
    assert [name for name in must if name not in page] == []


def test_examples_that_are_no_template_pass_their_contract(pytester):
    """The blocks marked as tests are run."""
    examples = [block for page in PAGES for block in blocks(page, "python test")]
    assert examples
    for number, block in enumerate(examples):
        (pytester.path / f"test_example_{number}.py").write_text(block, encoding="utf-8")
    outcome = pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider", "--import-mode=importlib").parseoutcomes()
    assert outcome["passed"] >= 10 * len(examples)
    assert set(outcome) == {"passed"}


def test_the_overview_names_every_kind_and_class():
    """Nobody has to guess what there is."""
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    for kind in PAGES:
        assert f"({kind}.md)" in text
    for name in testing.__all__:
        if name.endswith(("Contract", "Case")):
            assert f"`{name}`" in text, f"{name} is not in the overview"


def test_everything_the_kit_names_is_there():
    """Each public name can be imported from `dropr_core.testing`."""
    for name in testing.__all__:
        assert getattr(testing, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        testing.nothing  # noqa: B018
