"""What a forked child must not find: a module that is half imported, a lock of a module that is held.

It would hang when it imports that module itself, or takes that lock, and nothing says why.
"""

import ast
import subprocess
import sys
from pathlib import Path

import house
import pytest
from support.forking_node import write_node

ROOT = Path(__file__).resolve().parents[2]

ALONE = {
    "dropr_core/cli/": "the command line: nothing that forks works beside it",
    "dropr_core/demo/": "`dropr demo`, a command of its own",
    "dropr_core/bench/": "`dropr bench`, a command of its own",
    "dropr_core/testing/": "the kit, used by tests",
}
"""What no application runs in its threads, and why."""

BY_NAME = {"import_module", "__import__", "load", "NamedExtensionManager"}
"""Calls that import what somebody names; `load` of an entry point, found by the name of what it is called on."""


def sources():
    """Files in which an application may be while it forks."""
    packages = [ROOT / "dropr_core", *(path for path in (ROOT / "plugins").glob("*/dropr_*") if path.is_dir())]
    for path in (path for package in packages for path in house.python_files(package)):
        name = str(path.relative_to(ROOT))
        if not name.startswith(tuple(ALONE)):
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def is_unforked(node):
    """Whether it is ``with unforked:``."""
    return isinstance(node, ast.With) and any(
        isinstance(item.context_expr, ast.Name) and item.context_expr.id.strip("_") == "unforked" for item in node.items
    )


def imports_by_name(node):
    """Whether it is a call that imports what it is given."""
    if not isinstance(node, ast.Call):
        return False
    of, name = (node.func.value, node.func.attr) if isinstance(node.func, ast.Attribute) else (None, "")
    name = node.func.id if isinstance(node.func, ast.Name) else name
    return name in BY_NAME and (name != "load" or (isinstance(of, ast.Name) and of.id.startswith("entry")))


def bare(tree):
    """Lines of imports in functions that stand under no `unforked`, in the function or where it is called."""
    covered = {
        call.func.id
        for block in ast.walk(tree) if is_unforked(block)
        for call in ast.walk(block) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    }  # fmt: skip
    lines = []

    def look(node, inside, safe):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside, safe = True, node.name in covered
        later = isinstance(node, ast.Import | ast.ImportFrom) or imports_by_name(node)
        if later and inside and not safe:
            lines.append(node.lineno)
        for child in ast.iter_child_nodes(node):
            look(child, inside, safe or is_unforked(node))

    look(tree, False, False)
    return lines


def test_imports_in_functions_are_unforked():
    """Each import that is not at the top of a file, and each import by name, is one that forks wait for."""
    found = [f"{name}:{line}" for name, tree in sources() for line in bare(tree)]
    assert not found, "put them under `with unforked:` (system/loading.py), or at the top of the file"


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("def f():\n    import a", [2]),
        ("def f():\n    try:\n        from a import b\n    except ImportError: pass", [3]),
        ("async def f(name):\n    return import_module(name)", [2]),
        ("def f():\n    for entry in (): entry.load()", [2]),
        ("def f():\n    with unforked:\n        import a\n    import b", [4]),
        ("import a\ndef f():\n    with unforked:\n        g()\ndef g():\n    import b", []),
        ("def f():\n    with unforked:\n        def g():\n            import b", [4]),
    ],
)
def test_the_measure_sees_them(code, lines):
    """It finds what stands bare, and only that."""
    assert bare(ast.parse(code)) == lines


LOCKS = {"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier", "allocate_lock"}


def locks_at_import(tree):
    """Lines on which a module makes a lock when it is imported."""
    lines = []

    def look(node):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.Call):
            called = node.func
            if (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) in LOCKS:
                lines.append(node.lineno)
        for child in ast.iter_child_nodes(node):
            look(child)

    look(tree)
    return lines


def test_no_module_has_a_lock_of_its_own():
    """A lock belongs to an object that a forked child makes anew, or that begins anew in it (`os.register_at_fork`)."""
    assert locks_at_import(ast.parse("import threading\n_LOCK = threading.Lock()\nclass C:\n    x = RLock()")) == [2, 4]
    assert not [f"{name}:{line}" for name, tree in sources() for line in locks_at_import(tree)]


APPLICATION = """
import asyncio, sqlite3, sys
from pathlib import Path
tmp = Path(sys.argv[1])
sys.path.insert(0, str(tmp))
import dropr_core as dropr
from dropr_core.system.loading import unforked

node = dropr.open(tmp / "node.yaml")
connection = sqlite3.connect(tmp / "app.db")

class Spy:
    def find_spec(self, name, path=None, target=None):
        if not unforked.inside:
            print(f"{step}: {name}")
sys.meta_path.insert(0, Spy())

def take(channel, error=None):
    for message in node.receive(channel, wait=0, on_error="continue"):
        with message:
            message.value
            if error: raise error
            message.ack({"done": True})

def send_transaction():
    node.send(b"x", to="ware", connection=connection)
    connection.commit()

def take_transaction():
    node.put("x", channel="jobs")
    for message in node.receive("jobs", wait=0):
        with message.transaction(connection): pass

def send_batch():
    with node.batch() as batch: batch.send(b"1", to="ware"); batch.send(b"2", to="ware")

def handle():
    @node.on("jobs")
    def work(_work): return 1
    @node.on("rules")
    def fail(_work): raise ValueError("no")
    node.put("1", channel="jobs"); node.put("1", channel="rules")
    node.work(wait=0)

async def by_asyncio():
    async with dropr.aopen(tmp / "node.yaml") as other:
        await other.put("1", channel="jobs")
        async for message in other.receive("jobs", wait=0):
            async with message: pass
        sent = await other.send(b"x", to="ware", receipt=True)
        await sent.wait(0)

steps = {
    "send": lambda: node.send(b"x", to="ware", receipt=True, delay=1),
    "wait": lambda: node.send(b"x", to="ware", receipt=True).wait(0),
    "status": lambda: node.status(node.send(b"x", to="ware").id),
    "batch": send_batch,
    "send large": lambda: node.send(b"x" * 3_000_000, to="ware"),
    "staged": lambda: node.send(b"x", to="ware", channel="staged"),
    "json": lambda: (node.put({"a": 1.5}, channel="json"), take("json")),
    "typed": lambda: (node.put({"sku": 1}, channel="typed"), take("typed")),
    "wrong": lambda: node.put({"sku": "x"}, channel="typed"),
    "put": lambda: (node.put_all(["1", "2"], channel="jobs"), take("jobs")),
    "put large": lambda: (node.put("x" * 3_000_000, channel="jobs"), take("jobs")),
    "limited": lambda: (node.put("1", channel="slow"), take("slow")),
    "fail": lambda: (node.put("1", channel="rules"), take("rules", ZeroDivisionError())),
    "send in a transaction": send_transaction,
    "take in a transaction": take_transaction,
    "handlers": handle,
    "subscribe": lambda: (node.subscribe("prices", "me"), node.publish("prices", "1")),
    "unsubscribe": lambda: node.unsubscribe("prices", "me"),
    "pause": lambda: (node.pause("jobs", 10), node.unpause("jobs")),
    "no option": lambda: node.send(b"x", to="ware", chanel="x"),
    "no peer": lambda: node.send(b"x", to="wares"),
    "names": lambda: [getattr(dropr, name) for name in dropr.__all__],
    "asyncio": lambda: asyncio.run(by_asyncio()),
    "close": node.close,
    "nothing at all": lambda: __import__("wave"),
}
for step, call in steps.items():
    try: call()
    except (dropr.DroprError, TypeError, ZeroDivisionError) as error: print(step, repr(error), file=sys.stderr)
"""

YAML = """
node: shop
storage: {storage}
limits: {{min_free: 0}}
outboxes: {{app: {{url: "sqlite:///{tmp}/app.db"}}}}
channels:
  jobs: {{retry_backoff_min: 0, serializer: text}}
  json: {{serializer: json}}
  typed: {{type: "orders:Order"}}
  rules: {{retry: {{ZeroDivisionError: {{attempts: 1}}}}}}
  slow: {{rate: 100/s, concurrency: 2}}
  staged: {{durability: interval}}
peers: {{ware: {{url: "http://127.0.0.1:9", key: "0123456789abcdef0123456789abcdef"}}}}
"""


@pytest.mark.parametrize("storage", ["sqlite", "fs", "memory"])
def test_what_an_open_node_imports_later_is_unforked(storage, tmp_path):
    """No call of an application imports anything otherwise, be it of a plugin, of a library or of Python's own."""
    write_node(tmp_path, YAML.format(storage=storage, tmp=tmp_path))
    words = [sys.executable, "-c", APPLICATION, tmp_path]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if ": " in line] == ["nothing at all: wave"], done.stderr
