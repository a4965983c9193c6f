"""The house rules: floors, one concept a file, a docstring on each, nothing of anybody's machine in the tree."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "dropr_core"
LINES = 400

FLOORS = {
    0: "errors names clock locks files exits",
    1: "message states backoff units yamlfile heartbeat systemd logs space flusher",
    2: "envelope leaves bodyfiles bodies arriving wire signing matching contracts hookspecs supervision",
    3: "references options plugins bell sessions child angel_state mainloop",
    4: "sections config configdocs codecs sending link deliveries bodyverbs endpoint received consumer transports "
    "conversation desk checkup",
    5: "sent node aio freight collecting courier puller links daemon server worker",
    6: "angel cli demo __main__ dropr_core",
}
"""Every module and package of the core, once. A file imports from its own floor (without circles) and below."""

SHELVES = {"builtin": 3, "testing": 5}
"""Packages beside the house, and the highest floor that they may import from."""

FLOOR = {name: floor for floor, names in FLOORS.items() for name in names.split()}


def files(directory):
    """The Python files of a package."""
    return sorted(path for path in directory.rglob("*.py") if "__pycache__" not in path.parts)


def module_of(path):
    """``dropr_core/cli/app.py`` → ``cli.app``."""
    parts = path.relative_to(CORE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "dropr_core"


def room_of(module):
    """The name under which a module stands in the table: its own, or that of its package."""
    return module.partition(".")[0]


MODULES = {module_of(path): path for path in files(CORE)}


def imports_of(path, *, everywhere=False):
    """Modules of the core that a file imports: when it is loaded, or anywhere in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everywhere else at_load(tree.body):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "dropr_core":
            base = node.module.partition(".")[2]
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                yield full if full in MODULES else base or "dropr_core"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "dropr_core":
                    yield alias.name.partition(".")[2] or "dropr_core"


def at_load(body):
    """The statements that run when a module is loaded (not what only type checkers see)."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        for field in ("body", "orelse", "finalbody", "handlers"):
            yield from at_load(getattr(node, field, []))


def test_every_module_has_its_floor():
    """The table names every module once; who adds a file decides where it stands."""
    names = [name for names in FLOORS.values() for name in names.split()]
    assert sorted(names) == sorted(set(names))
    rooms = {room_of(module) for module in MODULES} - set(SHELVES)
    assert rooms == set(names)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_downwards(module):
    """A file imports from its own floor and below, wherever in the file the import stands."""
    room = room_of(module)
    wrong = []
    for target in imports_of(MODULES[module], everywhere=room != "dropr_core" and module not in LAZY):
        other = room_of(target)
        if room in SHELVES:
            good = other in SHELVES or FLOOR[other] <= SHELVES[room]
        else:
            good = other not in SHELVES and FLOOR[other] <= FLOOR[room]
        if not good:
            wrong.append(target)
    assert not wrong, f"{module} must not import {wrong}"


LAZY = {"node", "sent"}
"""They name what stands on their own floor for type checkers, or import it in a method that few call."""


def test_no_import_goes_in_a_circle():
    """Sideways imports are fine as long as they have an end."""
    graph = {module: set(imports_of(path)) - {module} for module, path in MODULES.items()}
    done = set()

    def walk(module, trail):
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for target in graph.get(module, ()):
                walk(target, [*trail, module])
            done.add(module)

    for module in graph:
        walk(module, [])


def plugin_packages():
    """The packages of the plugins in this tree."""
    return sorted(path.parent for path in (ROOT / "plugins").glob("*/*/__init__.py") if path.parent.name != "tests")


@pytest.mark.parametrize("package", plugin_packages(), ids=lambda path: path.name)
def test_a_plugin_knows_the_contracts_and_no_other_plugin(package):
    """Plugins import from floor 3 at most, nothing built in, and never each other."""
    others = {other.name for other in plugin_packages()} - {package.name}
    for path in files(package):
        for target in imports_of(path, everywhere=True):
            room = room_of(target)
            assert room not in SHELVES, f"{path.name} imports {target}"
            assert FLOOR[room] <= 3, f"{path.name} imports {target}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not others.intersection(name.partition(".")[0] for name in names), path.name


def sources():
    """All code that ships."""
    return [path for directory in (CORE, *plugin_packages()) for path in files(directory)]


def test_every_file_says_what_it_owns():
    """Each file that holds code begins with a docstring."""
    silent = []
    for path in sources():
        text = path.read_text(encoding="utf-8")
        if text.strip() and not ast.get_docstring(ast.parse(text)):
            silent.append(str(path.relative_to(ROOT)))
    assert not silent


def test_no_file_is_long():
    """One concept a file: at most 400 lines."""
    long = {str(path.relative_to(ROOT)): count for path in sources() if (count := lines(path)) > LINES}
    assert not long


def lines(path):
    """Lines of a file."""
    return path.read_text(encoding="utf-8").count("\n")


def test_every_test_says_what_it_holds():
    """Each test has a docstring: the sentence that is false when it fails."""
    silent = []
    for path in [*(ROOT / "tests").glob("test_*.py"), *(ROOT / "plugins").glob("*/tests/test_*.py")]:
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


def test_house_module_state_is_absent():
    """No module keeps state of its own that functions change (`global`)."""
    guilty = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Global):
                guilty.append(f"{path.relative_to(ROOT)}: global {', '.join(node.names)}")
    assert not guilty
