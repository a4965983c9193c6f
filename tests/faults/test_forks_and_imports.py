"""A process that forks while one of its threads imports: the child can import the same."""

import subprocess
import sys

import pytest
from support.forking_node import write_node

PROGRAM = """
import os, signal, sqlite3, sys, threading
from pathlib import Path
import dropr_core as dropr

tmp, module, what = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
started, forking, forked = threading.Event(), threading.Event(), threading.Event()
os.register_at_fork(before=forking.set, after_in_parent=forked.set)

class Slow:
    '''The code of one module runs until the process has forked, or waits for that to end.'''
    def find_spec(self, name, path=None, target=None):
        if name != module or started.is_set():
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(one for one in found if one is not None)
        run = spec.loader.exec_module
        def slowly(loaded):
            started.set()
            forking.wait()
            forked.wait(0.5)
            run(loaded)
        spec.loader.exec_module = slowly
        return spec

sys.meta_path.insert(0, Slow())

def transaction(node):
    try: node.send(b"x", to="ware", connection=sqlite3.connect(":memory:"))  # a file of its would not survive the fork
    except dropr.DroprError: assert module in sys.modules

def failing(node):
    node.put("x", channel="rules")
    for message in node.receive("rules", wait=0, on_error="continue"):
        with message: raise ZeroDivisionError

calls = {
    "open": lambda node: None,
    "name": lambda node: dropr.LeaseLost,
    "transaction": transaction,
    "failing": failing,
    "typed": lambda node: node.put({"sku": 1}, channel="typed"),
    "serializer": lambda node: node.put({"sku": 1}, channel="json"),
}

def work():
    with dropr.open(tmp / "node.yaml") as node: calls[what](node)

thread = threading.Thread(target=work)
thread.start()
assert started.wait(20), "never imported"
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    work()
    os._exit(0)
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""

YAML = """
node: shop
storage: {storage}
limits: {{min_free: 0}}
outboxes: {{app: {{url: "sqlite:///{tmp}/app.db"}}}}
channels:
  json: {{serializer: json}}
  typed: {{type: "orders:Order"}}
  rules: {{serializer: text, retry: {{ZeroDivisionError: {{attempts: 1}}}}}}
peers: {{ware: {{url: "http://127.0.0.1:9", key: "0123456789abcdef0123456789abcdef"}}}}
"""


@pytest.mark.parametrize(
    ("module", "what"),
    [
        ("dropr_core.api.node", "open"),
        ("dropr_storage_sqlite", "open"),
        ("dropr_core.errors", "name"),
        ("dropr_core.api.outboxes", "transaction"),
        ("dropr_core.transactions.of_sqlite3", "transaction"),
        ("dropr_core.api.retry_rules", "failing"),
        ("orders", "typed"),
        ("dropr_core.builtin.serializers.json", "serializer"),
    ],
)
def test_a_child_can_import_what_a_thread_of_its_parent_was_importing(module, what, tmp_path):
    """The fork waits until the import is over: else the child would hang at its own, whoever's the module is."""
    write_node(tmp_path, YAML.format(tmp=tmp_path, storage="sqlite" if "sqlite" in module else "memory"))
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, tmp_path, module, what],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
