"""The house: floors, sizes and manners of the tree, checked by reading it."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "dropr_core"

# A module imports only from modules that stand before it: lower floors, and to its left on its own.
FLOORS = [
    "errors names files clock locks exits",
    "message states backoff matching logs",
    "envelope wire signing sessions supervision units",
    "contracts.context contracts.records contracts.storage contracts.transport contracts.serializer contracts.handler hookspecs",
    "yamlfile references options plugins bell heartbeat systemd mainloop",
    "sections config configdocs deliveries link endpoint conversation courier puller",
    "codecs sending consumer sent node aio transports links desk daemon server worker",
    "child angel_state angel",
]
ORDER = {name: index for index, name in enumerate(" ".join(FLOORS).split())}
OPEN = ("cli", "demo", "builtin", "testing")
"""Packages above or beside the floors, with rules of their own below."""

FOLDERS = [CORE, *(ROOT / name for name in ("plugins", "tests", "bench", "examples"))]
FILES = sorted(path for folder in FOLDERS for path in folder.rglob("*.py"))
PRODUCT = [path for path in FILES if "tests" not in path.parts and path.parent.name != "bench"]


def name_of(path):
    return ".".join(path.relative_to(CORE).with_suffix("").parts)


def imports(path):
    """(module of dropr_core, whether imported at the top) for each import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dropr_core"):
            module = (node.module or "")[len("dropr_core") :].lstrip(".")
            for alias in node.names:
                inner = f"{module}.{alias.name}" if module else alias.name
                yield inner if (CORE / (inner.replace(".", "/") + ".py")).exists() else module
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("dropr_core."):
                    yield alias.name[len("dropr_core.") :]


def modules():
    for path in sorted(CORE.rglob("*.py")):
        name = name_of(path)
        if name.split(".")[0] not in OPEN and not name.endswith("__init__") and name != "__main__":
            yield name, path


def test_every_module_has_a_floor():
    """The table above is the whole house: no module without a place, no place without a module."""
    assert {name for name, _ in modules()} == set(ORDER)


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda value: value if isinstance(value, str) else "")
def test_a_module_imports_only_downwards(name, path):
    """Lower floors, or to the left on its own."""
    for used in imports(path):
        assert used in ORDER, f"{name} imports {used}, which is above the floors"
        assert ORDER[used] < ORDER[name], f"{name} imports {used}, which is not below it"


def test_built_ins_and_kits_use_what_a_stranger_could_use():
    """Built-in plugins import contracts and lower floors, never the machinery that calls them."""
    limit = ORDER["bell"]
    for path in sorted((CORE / "builtin").rglob("*.py")):
        for used in imports(path):
            assert used.startswith("builtin") or ORDER[used] <= limit, f"{path.name} imports {used}"


def test_bundled_plugins_know_contracts_and_not_each_other():
    """A bundled plugin is a stranger's: core up to the third floor, no other plugin."""
    limit = ORDER["bell"]
    for path in (ROOT / "plugins").rglob("*.py"):
        if "tests" in path.parts:
            continue
        own = path.parent.name
        for used in imports(path):
            assert ORDER[used] <= limit, f"{path.name} imports {used}"
        for other in re.findall(r"^(?:from|import) (dropr_(?!core)\w+)", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert other == own, f"{path.name} imports {other}"


@pytest.mark.parametrize("pure", ["link", "matching", "states", "backoff", "wire", "signing", "supervision"])
def test_pure_modules_do_no_io_and_read_no_clock(pure):
    """What a deterministic simulation runs asks nobody for the time, and touches no file, socket or thread."""
    tree = ast.parse((CORE / f"{pure}.py").read_text(encoding="utf-8"))
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not found & {"time", "socket", "threading", "select", "subprocess", "asyncio", "datetime", "pathlib"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_owns_and_stays_small(path):
    """A module docstring, at most 400 lines (tests: 600); each test says which behaviour it holds."""
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= (600 if "tests" in path.parts else 400)
    if not text.strip():
        return
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "no module docstring"
    if path.name.startswith("test_"):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{node.name} does not say what it holds"


def test_no_work_at_import():
    """Importing every module of the product prints nothing, opens nothing and starts no thread."""
    names = [name for name, _ in modules()]
    program = "import sys, threading, importlib\n" + "".join(
        f"importlib.import_module('dropr_core.{name}')\n" for name in names
    )
    program += "assert threading.active_count() == 1\n"
    program += "assert 'apsw' not in sys.modules and 'pycurl' not in sys.modules\n"
    import sys

    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_lock_file_and_no_index_of_packages_is_named():
    """Whoever installs this uses an index of their own choice."""
    words = re.compile("index" + r"[-_]url|find" + "-links")
    for path in [*ROOT.glob("*"), *ROOT.rglob("docs/**/*.md"), *FILES]:
        if path.is_file() and path != Path(__file__):
            assert not words.search(path.read_text(encoding="utf-8", errors="replace")), path
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not re.search(r"(^|/)(uv|poetry|Pipfile)\.lock$", tracked, re.MULTILINE)


def test_no_pickle_no_eval():
    """Nothing in the product can turn bytes into code."""
    for path in PRODUCT:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {"pickle", "marshal", "shelve", "dill"}, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec"}, path
