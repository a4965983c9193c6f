"""Measures the house: rooms, floors, arrows, circles, sizes of files, and what an author of a plugin must write.

    python tools/house.py            # this tree
    python tools/house.py DIRECTORY  # another checkout, an older one too

Owns how imports are read and what counts as an arrow. Reads source as text and runs nothing of it. The floor of each
room is what `docs/architecture.md` says; `tests/house/test_house.py` holds the tree to that page with these functions.
"""

import ast
import re
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "dropr_core"

Graph = dict[str, set[str]]


def python_files(directory: Path) -> list[Path]:
    """The Python files below a directory, in a stable order."""
    return sorted(path for path in directory.rglob("*.py") if "__pycache__" not in path.parts)


def modules(root: Path) -> dict[str, Path]:
    """Each module of core by its name within the package: ``cli.app``; the package itself as ``dropr_core``."""
    core = root / PACKAGE
    found = {}
    for path in python_files(core):
        parts = path.relative_to(core).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__") or PACKAGE] = path
    return found


def room_of(module: str) -> str:
    """The room in which a module stands; a file beside the rooms is one of its own."""
    return module.partition(".")[0]


def for_types_only(node: ast.stmt) -> bool:
    """Whether a statement is ``if TYPE_CHECKING:``."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def imports_of(path: Path, known: Iterable[str]) -> Iterator[str]:
    """The modules of core that a file imports, wherever in the file and for whatever purpose."""
    names = set(known)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
            base = (node.module or "").partition(".")[2]
            for alias in node.names:
                full = f"{base}.{alias.name}".lstrip(".")
                yield full if full in names else base or PACKAGE
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == PACKAGE:
                    yield alias.name.partition(".")[2] or PACKAGE


def import_graph(root: Path) -> Graph:
    """Each module of core and those that it imports."""
    known = modules(root)
    return {module: set(imports_of(path, known)) - {module} for module, path in known.items()}


def room_graph(graph: Mapping[str, set[str]]) -> Graph:
    """Each room and those that it imports from."""
    rooms: Graph = {room_of(module): set() for module in graph}
    for module, targets in graph.items():
        rooms[room_of(module)] |= {room_of(target) for target in targets} - {room_of(module)}
    return rooms


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Every circle of the graph, each as the modules of one strongly connected part (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            part = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(part) > 1:
                found.append(sorted(part))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def heights(rooms: Mapping[str, set[str]]) -> dict[str, int]:
    """The lowest floor on which each room can stand; a room in a circle counts the circle once."""
    known: dict[str, int] = {}

    def height(room: str, trail: frozenset[str]) -> int:
        if room not in known:
            below = [height(target, trail | {room}) for target in rooms.get(room, ()) if target not in trail]
            known[room] = 1 + max(below, default=0)
        return known[room]

    for room in sorted(rooms):
        height(room, frozenset())
    return known


def floor_plan(root: Path) -> dict[str, tuple[int, list[str]]]:
    """Room → its floor and its files from the bottom up, as the table in ``docs/architecture.md`` gives them."""
    plan = {}
    text = (root / "docs" / "architecture.md").read_text(encoding="utf-8")
    for floor, room, files in re.findall(r"^\| (\d+) \| `([\w/.]+)` \|([^|]*)\|", text, re.MULTILINE):
        plan[room.removesuffix("/").removesuffix(".py")] = (int(floor), re.findall(r"[\w.]+", files))
    return plan


def lines(path: Path) -> int:
    """Lines of a file."""
    return path.read_text(encoding="utf-8").count("\n")


def must_write(root: Path) -> dict[str, int]:
    """The abstract methods of each class of the storage contract: what its author cannot leave out."""
    found = {}
    for name in ("outbox", "inbox", "storage"):
        path = root / PACKAGE / "contracts" / f"{name}.py"
        tree = ast.parse(path.read_text(encoding="utf-8") if path.exists() else "")
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = sum("abstractmethod" in ast.dump(d) for f in node.body for d in decorators(f))
    return found


def decorators(node: ast.stmt) -> list[ast.expr]:
    """The decorators of a function."""
    return node.decorator_list if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []


def report(root: Path) -> Iterator[str]:
    """What `make house` prints, line by line."""
    graph = import_graph(root)
    rooms = room_graph(graph)
    plugins = sorted(path.parent for path in (root / "plugins").glob("*/*/__init__.py") if path.parent.name != "tests")
    sources = [path for directory in (root / PACKAGE, *plugins) for path in python_files(directory)]
    sizes = {path: count for path in sources if (count := lines(path)) > 0}
    floor = heights(rooms)
    yield f"rooms of core             {len(rooms)}, on {max(floor.values())} floors"
    yield f"arrows between rooms      {sum(len(targets) for targets in rooms.values())}"
    yield f"arrows between files      {sum(len(targets) for targets in graph.values())}"
    for name, part in (("rooms", rooms), ("files", graph)):
        found = circles(part)
        yield f"circles of {name}          {len(found)}" + "".join(f"\n    {' ↔ '.join(one)}" for one in found)
    largest = sorted(sizes, key=lambda path: -sizes[path])[:3]
    yield f"files                     {len(sizes)}, median {statistics.median(sizes.values()):.0f} lines"
    yield "largest files             " + ", ".join(f"{path.relative_to(root)} {sizes[path]}" for path in largest)
    methods = must_write(root)
    yield f"a storage must write      {sum(methods.values())} methods: " + ", ".join(
        f"{k} {v}" for k, v in methods.items() if v
    )
    for package in plugins:
        counts = [lines(path) for path in python_files(package)]
        yield f"{package.name:<25} {sum(counts)} lines in {len(counts)} files"
    yield ""
    for level in range(max(floor.values()), 0, -1):
        yield f"floor {level:>2}  " + ", ".join(sorted(room for room in floor if floor[room] == level))


if __name__ == "__main__":
    sys.stdout.write("\n".join(report(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)) + "\n")
