"""The house rules: floors, one concept a file, a docstring on each, nothing of anybody's machine in the tree."""

import ast
import re
import subprocess
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "dropr_core"
LINES = 400

PLAN = house.floor_plan(ROOT)
"""Room → its floor and its files from the bottom up, as docs/architecture.md has them."""

MODULES = house.modules(ROOT)
GRAPH = house.import_graph(ROOT)

OPEN = {"dropr_core"}
"""The package itself names its public objects for type checkers; nothing is imported before it is asked for."""

FOR_PLUGINS = {
    "errors",
    "model",
    "system",
    "contracts",
    "config",
    "options",
    "hookspecs",
    "fsck",
    "storage_kit",
    "gateway_kit",
}
"""The rooms that a plugin may import from."""

INTEGRATIONS = {
    "dropr_kombu": frozenset[str](),
    "dropr_django": {"angel", "monitor", "processes", "cli", "transactions"},
}
"""Packages on the application's side of a node: plugins of other frameworks. They use what applications use, and
Django's, which has a worker and pages of its own, what those are made of.
"""

FOR_INTEGRATIONS = FOR_PLUGINS | {"dropr_core", "api"}


def test_the_page_names_every_room_and_file():
    """docs/architecture.md lists each room and each of its files once: who adds a file decides where it stands."""
    rooms = {house.room_of(module) for module in MODULES}
    assert rooms == set(PLAN)
    for room, (_, named) in PLAN.items():
        there = [module.partition(".")[2] for module in MODULES if house.room_of(module) == room and "." in module]
        assert sorted(named) == sorted(there), room


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_downwards(module):
    """A file imports from rooms on lower floors and from files that stand before it in its own room, nothing else."""
    room = house.room_of(module)
    floor, order = PLAN[room]
    wrong = []
    for target in GRAPH[module]:
        other = house.room_of(target)
        if other != room:
            good = PLAN[other][0] < floor
        else:
            mine, theirs = module.partition(".")[2], target.partition(".")[2]
            good = not mine or (bool(theirs) and order.index(theirs) < order.index(mine))
        if not good:
            wrong.append(target)
    assert not wrong, f"{module} must not import {wrong}"


def test_no_import_goes_in_a_circle():
    """Neither rooms nor files of core import each other in a circle, whatever the import is for."""
    assert house.circles(house.room_graph(GRAPH)) == []
    assert house.circles(GRAPH) == []


def test_the_measure_sees_a_circle():
    """The function that looks for circles finds one that is there."""
    assert house.circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_every_room_says_what_it_is():
    """The folder of each room opens with the sentences that a visitor needs."""
    silent = [
        room
        for room in PLAN
        if (path := CORE / room / "__init__.py").exists()
        and len(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "") < 80
    ]
    assert not silent


def plugin_packages():
    """The packages of the plugins in this tree."""
    return sorted(path.parent for path in (ROOT / "plugins").glob("*/*/__init__.py") if path.parent.name != "tests")


@pytest.mark.parametrize("package", plugin_packages(), ids=lambda path: path.name)
def test_a_plugin_knows_the_contracts_and_no_other_plugin(package):
    """Plugins import what is there for them, nothing built in, and never each other."""
    others = {other.name for other in plugin_packages()} - {package.name}
    more = INTEGRATIONS.get(package.name)
    rooms = FOR_PLUGINS if more is None else FOR_INTEGRATIONS | more
    for path in house.python_files(package):
        for target in house.imports_of(path, MODULES):
            assert house.room_of(target) in rooms, f"{path.name} imports {target}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not others.intersection(name.partition(".")[0] for name in names), path.name


def sources():
    """All code that ships."""
    return [path for directory in (CORE, *plugin_packages()) for path in house.python_files(directory)]


def test_every_file_says_what_it_owns():
    """Each file that holds code begins with a docstring."""
    silent = []
    for path in sources():
        text = path.read_text(encoding="utf-8")
        if text.strip() and not ast.get_docstring(ast.parse(text)):
            silent.append(str(path.relative_to(ROOT)))
    assert not silent


def files_of_tests():
    """All tests, and what they share."""
    directories = (ROOT / "tests", *(ROOT / "plugins").glob("*/tests"))
    return [path for directory in directories for path in house.python_files(directory)]


def test_no_file_is_long():
    """One concept a file, of tests too: at most 400 lines."""
    files = [*sources(), *files_of_tests()]
    long = {str(path.relative_to(ROOT)): count for path in files if (count := house.lines(path)) > LINES}
    assert not long


def test_every_test_says_what_it_holds():
    """Each test has a docstring: the sentence that is false when it fails."""
    silent = []
    for path in (one for one in files_of_tests() if one.name.startswith("test_")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_test = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
            if is_test and not ast.get_docstring(node):
                silent.append(f"{path.name}::{node.name}")
    assert not silent


def tracked():
    """Every file under version control that is text."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git work tree")
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and path != Path(__file__).resolve():
            try:
                yield name, path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def test_nothing_of_a_machine_is_in_the_tree():
    """No path of a developer's machine and no host of a package registry in any tracked file."""
    here = "|".join(re.escape(f"{path}/") for path in (ROOT.parent, Path.home()) if len(path.parts) > 1)
    traces = re.compile(rf"(?<![\w.])({here}|/home/\w+/|/Users/\w+/)|index-url|://[\w.-]*(nexus|devpi|artifactory)")
    found = [f"{name}: {match.group()}" for name, text in tracked() if (match := traces.search(text))]
    assert not found


PIPES = {
    "dropr_core/system/wake_up.py": "the one way to wake a thread",
    "dropr_core/angel/child.py": "what a child says to its angel",
    "dropr_core/angel/angel.py": "the lifeline, which nobody writes to",
    "dropr_core/testing/forks.py": "what a forked test says to its parent",
}
"""Files that make a pipe, and for what."""


def test_threads_are_woken_by_what_is_safe_after_its_end():
    """Nobody makes a pipe of his own to wake a thread: a write after its end would go into another file."""
    found = {
        str(path.relative_to(ROOT))
        for path in [*CORE.rglob("*.py"), *(ROOT / "plugins").glob("*/dropr_*/**/*.py")]
        if re.search(r"\bos\.pipe2?\(", path.read_text())
    }
    assert found == set(PIPES)


def test_house_module_state_is_absent():
    """No module keeps state of its own that functions change (`global`)."""
    guilty = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Global):
                guilty.append(f"{path.relative_to(ROOT)}: global {', '.join(node.names)}")
    assert not guilty
