"""The pages for authors of plugins show code that works: what is generated, or what is run here."""

import inspect
import re
import tomllib
from pathlib import Path

import attrs
import pytest

from dropr_core import hookspecs, testing
from dropr_core.cli.new import render
from dropr_core.contracts.storage import Inbox, Outbox
from dropr_core.contracts.transport import Answerer, Caller, Connection, Listener, Tail, Transport
from dropr_core.testing.observer_contract import MAKERS

pytest_plugins = ["pytester"]

DOCS = Path(__file__).resolve().parents[2] / "docs" / "plugins"
PAGES = {"serializer": "msgpack", "handler": "lines", "observer": "counter", "storage": "shelf", "transport": "folder",
         "gateway": "lines"}  # fmt: skip
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
    must = [f"`{name}`" for half in (Outbox, Inbox) for name in sorted(half.__abstractmethods__)]
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


def test_every_field_of_every_case_is_explained():
    """The overview has a row for each field of each case, and no others."""
    rows, case = [], ""
    for name, field in re.findall(r"^\| (`\w+Case`)? *\| `(\w+)` \| ", (DOCS / "README.md").read_text(), re.MULTILINE):
        case = name.strip("`") or case
        if case:  # other tables stand before it
            rows.append((case, field))
    cases = [name for name in testing.__all__ if name.endswith("Case")]
    there = [(name, field.name) for name in cases for field in attrs.fields(getattr(testing, name))]
    assert sorted(rows) == sorted(there)


@pytest.mark.parametrize("cls", [Answerer, Caller, Connection, Listener, Tail, Transport])
def test_what_a_transport_and_the_host_hand_over_is_explained(cls):
    """Each name of the contract stands on the page with the class that it belongs to."""
    text = (DOCS / "transport.md").read_text(encoding="utf-8")
    names = {name for name in {*vars(cls), *cls.__annotations__} if not name.startswith("_")} - {"close"}
    assert [f"{cls.__name__}.{name}" for name in sorted(names) if f"{cls.__name__}.{name}" not in text] == []


def test_every_hook_of_an_observer_is_explained_with_its_arguments():
    """The table has each hook that tells, with exactly the arguments that it is called with."""
    text = (DOCS / "observer.md").read_text(encoding="utf-8")
    rows = {name: re.findall(r"`(\w+)`", words) for name, words in
            re.findall(r"^\| `(dropr_\w+)` \| (.*?) \| ", text, re.MULTILINE)}  # fmt: skip
    hooks = {name: list(inspect.signature(hook).parameters) for name, hook in vars(hookspecs).items()
             if name.startswith("dropr_") and name not in MAKERS | {"dropr_keypair", "dropr_asgi"}}  # fmt: skip
    assert rows == hooks


@pytest.mark.parametrize("page", PAGES)
def test_no_code_is_shown_twice(page):
    """What a block begins with stands in no other block of the page."""
    shown = blocks(page, "python")
    assert [block for block in shown if sum(block.splitlines()[0] in other for other in shown) > 1] == []


@pytest.mark.parametrize("kind", PAGES)
def test_a_generated_package_ends_what_hangs(kind):
    """Its tests have a limit in time, by a plugin that its extra brings."""
    package = tomllib.loads(render(kind, "x")["pyproject.toml"])
    assert package["tool"]["pytest"]["ini_options"]["timeout"] == 300
    assert "dropr-core[testing]" in package["project"]["optional-dependencies"]["test"]
    extra = tomllib.loads((DOCS.parents[1] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(need.startswith("pytest-timeout") for need in extra["testing"])


def test_everything_the_kit_names_is_there():
    """Each public name can be imported from `dropr_core.testing`."""
    for name in testing.__all__:
        assert getattr(testing, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        testing.nothing  # noqa: B018
