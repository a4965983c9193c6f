"""The house rules of the kit: its failing assertions say what is wrong, and no wait in it is without an end."""

import ast
from pathlib import Path

import pytest

KIT = Path(__file__).resolve().parents[2] / "dropr_core" / "testing"
FILES = sorted(KIT.glob("*.py"))
ENDLESS = {"acquire", "exception", "join", "result", "wait"}
"""Methods that wait for ever if they are given no time."""
BOUNDED = {"bench", "child", "rig", "self"}
"""Objects of the kit whose `close` and `wait` are bounded within."""


def mute(tree):
    """Asserts over many that say only yes or no when they fail."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            test = node.test.operand if isinstance(node.test, ast.UnaryOp) else node.test
            if isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id in {"all", "any"}:
                yield f"{node.lineno}: assert {ast.unparse(node.test)}"


def endless(tree, *, closes):
    """Waits without an end, and pools, whose end waits for everything in them; ``closes``: plain `close` too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id.endswith("PoolExecutor"):
            yield f"{node.lineno}: {node.id}"
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if ast.unparse(node.func.value) in BOUNDED:
            continue
        if node.func.attr in ENDLESS and not node.args and not node.keywords:
            yield f"{node.lineno}: {ast.unparse(node)}"
        if closes and node.func.attr == "close":
            yield f"{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_assert_over_many_says_which(path):
    """No `assert all(...)` and no `assert not any(...)`: a failure must name what is missing or extra."""
    found = list(mute(ast.parse(path.read_text(encoding="utf-8"))))
    assert not found, f"say which, see dropr_core/testing/id_lists.py and likeness.py: {found}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_in_the_kit_waits_for_ever(path):
    """A plugin that hangs fails by name: each wait has an end, and the tests close through `shut` or `within`."""
    found = list(endless(ast.parse(path.read_text(encoding="utf-8")), closes=path.stem.endswith("_contract")))
    assert not found, f"wait by `within`, `together` or `shut` of dropr_core/testing/contract.py: {found}"


def test_these_rules_see_what_they_forbid():
    """The control: each kind of what is forbidden is found in code that has it."""
    code = "assert all(x)\nassert not any(x)\nassert x\n"
    assert [line[0] for line in mute(ast.parse(code))] == ["1", "2"]
    code = "a.join()\na.join(3)\nb.result()\nchild.wait()\nwith ThreadPoolExecutor(4): ...\nstorage.close()\n"
    assert [line[0] for line in sorted(endless(ast.parse(code), closes=True))] == ["1", "3", "5", "6"]
