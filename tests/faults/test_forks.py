"""A process that forks: gunicorn's preload, multiprocessing, scripts that become daemons.

What `send` returned for is stored, whoever of the family sent it, in whatever order they close.
"""

import os
import subprocess
import sys

import pytest

import dropr_core as dropr
from dropr_core.monitor.selection import select, walk_outbox

YAML = """
node: shop
storage: {storage}
limits: {{min_free: 0}}
peers: {{ware: {{url: "http://127.0.0.1:9", key: "0123456789abcdef0123456789abcdef"}}}}
"""


@pytest.fixture(params=["sqlite", "fs"])
def config(request, tmp_path):
    """The file of a node with one of the two storages."""
    path = tmp_path / "shop.yaml"
    path.write_text(YAML.format(storage=request.param))
    return path


def kept(config):
    """The ids of all messages that wait."""
    with dropr.open(config) as node:
        return {str(delivery.id.hex()) for delivery in walk_outbox(node.outbox, select())}


def family(config, code):
    """Run code in a fresh process; the ids that it printed, one a line."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code, str(config)],
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line.replace("-", "") for line in done.stdout.split()]


PARENT_FIRST = """
import os, sys, dropr_core
def say(message): os.write(1, (message.id + "\\n").encode())
node = dropr_core.open(sys.argv[1])
for n in range(4): say(node.send(b"parent %d" % n, to="ware"))
parent_closed, close = os.pipe()
child_sent, tell = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(close)
    mine = dropr_core.open(sys.argv[1])
    for n in range(4): say(mine.send(b"child %d" % n, to="ware"))
    os.write(tell, b"x")
    os.read(parent_closed, 1)
    for n in range(4): say(mine.send(b"child again %d" % n, to="ware"))
    mine.close()
    os._exit(0)
os.read(child_sent, 1)
say(node.send(b"parent after", to="ware"))
node.close()
os.close(close)
assert os.waitpid(pid, 0)[1] == 0
"""


def test_a_store_opened_anew_in_a_forked_child_keeps_what_both_sent(config):
    """Parent opens and sends, the child opens its own node and sends, the parent closes first, the child sends on."""
    said = family(config, PARENT_FIRST)
    assert len(set(said)) == 13
    assert kept(config) == set(said)
    done = subprocess.run(
        [sys.executable, "-m", "dropr_core", "fsck", "-c", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


BUSY = """
import os, sys, threading, dropr_core
lock = threading.Lock()
def say(message): os.write(1, (message.id + "\\n").encode())
node = dropr_core.open(sys.argv[1])
stop = threading.Event()
def work():
    while not stop.is_set(): say(node.send(b"thread", to="ware"))
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
children = []
for round in range(8):
    pid = os.fork()
    if pid == 0:
        with dropr_core.open(sys.argv[1]) as mine:
            for n in range(5): say(mine.send(b"child", to="ware"))
        os._exit(0)
    children.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
stop.set()
for thread in threads: thread.join()
node.close()
"""


def test_forks_in_the_middle_of_the_work_of_threads_lose_nothing(config):
    """Three threads send all the time, eight children are forked between their commits and send as well."""
    said = family(config, BUSY)
    assert len(said) == len(set(said)) >= 8 * 5
    assert kept(config) == set(said)


def test_what_a_child_inherited_is_refused_and_its_parent_goes_on(config):
    """The node of the parent is closed to the child, which is told to open its own; the parent never notices."""
    with dropr.open(config) as node:
        node.send(b"before", to="ware")
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                node.send(b"never", to="ware")
                text = "sent"
            except dropr.DroprError as error:
                text = f"{type(error).__name__}: {error}"
            os.write(writer, text.encode())
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(writer)
        with os.fdopen(reader) as said:
            text = said.read()
        assert text.startswith("Closed:")
        assert "fork" in text
        node.send(b"after", to="ware")
    assert len(kept(config)) == 2


def test_a_file_in_use_at_the_moment_of_a_fork_is_refused_by_name(tmp_path):
    """Somebody's own connection to the database cannot be closed for him: the child gets a clear error, not a loss."""
    config = tmp_path / "shop.yaml"
    config.write_text(YAML.format(storage="sqlite"))
    with dropr.open(config) as node:
        node.send(b"x", to="ware")
    code = """
import apsw, os, sys, pathlib, dropr_core
dropr_core.open(sys.argv[1]).close()
path = next(pathlib.Path(sys.argv[1]).parent.glob("*/outbox.db"))
mine = apsw.Connection(str(path)); mine.execute("select count(*) from sqlite_master").fetchall()
pid = os.fork()
if pid == 0:
    try: dropr_core.open(sys.argv[1])
    except dropr_core.DroprError as error: os.write(1, str(error).replace(" ", "_").encode())
    os._exit(0)
os.waitpid(pid, 0)
dropr_core.open(sys.argv[1]).close()
"""
    (said,) = family(config, code)
    assert "in_use_at_the_moment_of_a_fork" in said


def test_a_forked_child_has_a_memory_of_its_own(tmp_path):
    """The storage ``memory`` of a child begins empty, whatever a thread of its parent did at that moment: a copy would
    give out every message twice.
    """
    config = tmp_path / "shop.yaml"
    config.write_text(YAML.format(storage="memory"))
    code = """
import os, signal, sys, threading, dropr_core
from types import SimpleNamespace
from dropr_core.builtin.memory import medium_of
node = dropr_core.open(sys.argv[1])
node.put(b"parent's", channel="jobs")
held, done = threading.Event(), threading.Event()
def hold():
    with medium_of(SimpleNamespace(data=node.config.data)).lock:
        held.set()
        done.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    with dropr_core.open(sys.argv[1]) as mine:
        mine.put(b"child's", channel="jobs")
        for message in mine.receive("jobs", wait=0): os.write(1, message.body + b"\\n")
    os._exit(0)
done.set()
thread.join()
assert os.waitpid(pid, 0)[1] == 0
for message in node.receive("jobs", wait=0): os.write(1, message.body + b"\\n")
node.close()
"""
    assert family(config, code) == ["child's", "parent's"]
