"""Many threads and processes on one store."""

import logging
import os
import subprocess
import sys
import threading

import pytest

pytest.importorskip("apsw")
import apsw
from dropr_storage_sqlite import Options, dropr_storage

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import NewMessage
from dropr_core.errors import Closed, Conflict, StoreBusy
from dropr_core.model.names import IdMaker, Lane, parse_id
from dropr_core.system.clock import SystemClock

LANE = Lane("peer", "orders", 5)

SENDER = """
import logging, sys
from pathlib import Path
from dropr_core.system.clock import SystemClock
from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import NewMessage
from dropr_core.model.names import IdMaker
from dropr_storage_sqlite import dropr_storage
context = Context(node="n", data=Path(sys.argv[1]), clock=SystemClock(), log=logging.getLogger("t"), min_free=0)
storage = dropr_storage(None, context)
make = IdMaker()
for _ in range(int(sys.argv[2])):
    message = make()
    storage.outbox.append([NewMessage(message, "orders", 5, ("peer",), b"x")])
    print(message.hex(), flush=True)
storage.close()
"""


def open_store(directory, **more):
    options = more.pop("options", Options(reserve=0))
    values = {"node": "n", "data": directory, "clock": SystemClock(), "log": logging.getLogger("t"), "min_free": 0}
    return dropr_storage(options, Context(**values | more))


def start(directory, count):
    command = [sys.executable, "-c", SENDER, str(directory), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_several_processes_send_at_once(tmp_path):
    """Processes that open a new store together and send into it lose nothing and share the numbers."""
    processes = [start(tmp_path, 50) for _ in range(4)]
    sent = set()
    for process in processes:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        sent |= set(out.split())
    storage = open_store(tmp_path)
    batch = storage.outbox.take(LANE, 1000, 10**6)
    assert [entry.sequence for entry in batch.entries] == list(range(1, 201))
    assert {entry.id.hex() for entry in batch.entries} == sent
    storage.close()


def test_fault_18_threads_share_one_flush(tmp_path):
    """Eight threads send at once: every message is there, and there were fewer commits than messages."""
    storage = open_store(tmp_path)
    group, sizes = storage.outbox.engine._flushed, []
    run_all = group._run_all
    group._run_all = lambda jobs: (sizes.append(len(jobs)), run_all(jobs))[1]
    make, sent, lock = IdMaker(), [], threading.Lock()

    def send():
        for _ in range(50):
            message = make()
            placed = storage.outbox.append([NewMessage(message, "orders", 5, ("peer",), b"x")])
            with lock:
                sent.append((placed[0].sequences[0], message))

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batch = storage.outbox.take(LANE, 1000, 10**6)
    assert sorted(sent) == [(entry.sequence, entry.id) for entry in batch.entries]
    assert max(sizes) > 1
    storage.close()


def test_one_bad_send_does_not_take_others_with_it(tmp_path):
    """A conflict in a shared commit fails its own caller only."""
    storage = open_store(tmp_path)
    message = parse_id(bytes(15) + b"\1")
    storage.outbox.append([NewMessage(message, "orders", 5, ("peer",), b"x", fingerprint=b"a")])
    group, results = storage.outbox.engine._flushed, []
    gate = threading.Event()
    run_all = group._run_all
    group._run_all = lambda jobs: (gate.wait(10), run_all(jobs))[1]

    def send(fingerprint, one):
        outgoing = NewMessage(parse_id(bytes(15) + one), "orders", 5, ("peer",), b"x", fingerprint=fingerprint)
        try:
            results.append(storage.outbox.append([outgoing])[0].sequences)
        except Conflict:
            results.append("conflict")

    threads = [threading.Thread(target=send, args=args) for args in ((b"b", b"\1"), (b"a", b"\2"), (b"a", b"\3"))]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert results.count("conflict") == 1
    assert sorted(one for one in results if one != "conflict") == [(2,), (3,)]
    storage.close()


def test_fault_86_a_locked_file_ends_in_a_clear_error(tmp_path):
    """Somebody holds the write lock for long: a bounded wait, then StoreBusy; afterwards all goes on."""
    storage = open_store(tmp_path, options=Options(busy=0.05, reserve=0))
    storage.outbox.append([NewMessage(IdMaker()(), "orders", 5, ("peer",), b"x")])
    other = apsw.Connection(str(tmp_path / "outbox.db"))
    other.execute("begin immediate")
    with pytest.raises(StoreBusy, match=r"outbox\.db"):
        storage.outbox.append([NewMessage(IdMaker()(), "orders", 5, ("peer",), b"x")])
    assert storage.outbox.lanes()[0].depth == 1
    other.execute("rollback")
    other.close()
    storage.outbox.append([NewMessage(IdMaker()(), "orders", 5, ("peer",), b"x")])
    assert storage.outbox.lanes()[0].depth == 2
    storage.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fault_18_a_forked_child_gets_a_clean_error(tmp_path):
    """A store opened before a fork is Closed in the child, and unharmed in the parent."""
    storage = open_store(tmp_path)
    storage.outbox.append([NewMessage(IdMaker()(), "orders", 5, ("peer",), b"x")])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            storage.outbox.append([NewMessage(IdMaker()(), "orders", 5, ("peer",), b"x")])
        except Closed:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert storage.outbox.lanes()[0].depth == 1
    storage.close()
