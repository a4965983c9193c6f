"""Several that have one store open and send into it: the test says who leads, and what happens to another process.

Owns `Rig` and `Other`. Must not know what is tested.
"""

import fcntl
import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dropr_storage_sqlite import Options, dropr_storage

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import NewMessage
from dropr_core.model.names import IdMaker, Lane
from dropr_core.storage_kit.posts import Posts
from dropr_core.system.clock import SystemClock

LANE = Lane("peer", "orders", 5)
make = IdMaker()


def message():
    return NewMessage(make(), "orders", 5, ("peer",), b"x")


def opened(directory):
    context = Context(node="n", data=directory, clock=SystemClock(), log=logging.getLogger("t"), min_free=0)
    return dropr_storage(Options(flush=3600.0, reserve=0, busy=30.0), context)


def until(condition):
    """Return once it is so."""
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, "it never came to that"
        time.sleep(0.001)


def places(storage):
    """Where each message stands, which is there once."""
    entries = storage.outbox.take(LANE, 1000, 1 << 30).entries
    found = {entry.id: entry.sequence for entry in entries}
    assert len(found) == len(entries)
    return found


class Rig:
    """A store that several have open and send into, who reckon with each other; and who leads is up to the test."""

    def __init__(self, directory):
        self.directory = directory
        self.stores = [opened(directory) for _ in range(3)]
        for _ in range(2):
            for store in self.stores:
                store.outbox.append([message()])
        self.posts = Posts(directory / "outbox.senders")
        assert self.posts.open()
        assert all(store.outbox.appender._together._posts.open() for store in self.stores)
        self.pool = ThreadPoolExecutor(8)
        self.others = []

    def hold(self):
        """Nobody else leads."""
        until(self.posts.lead)

    def free(self):
        """Somebody may lead, and nobody is woken for it."""
        fcntl.flock(self.posts._fd, fcntl.LOCK_UN)

    def sends(self, number=0, one=None):
        """A send that finds somebody who leads; it has posted when this returns."""
        before = len(self.posts._waiting())
        one = one or message()
        future = self.pool.submit(self.stores[number].outbox.append, [one])
        until(lambda: len(self.posts._waiting()) > before)
        return one, future

    def wake(self, number):
        """As if its turn had come, or its patience had ended."""
        self.posts._ring(self.place(number))

    def place(self, number):
        return self.stores[number].outbox.appender._together._posts.place

    def close(self):
        for other in self.others:
            with other:
                other.kill()
        for store in self.stores:
            store.close()
        self.posts.close()
        self.pool.shutdown()


OTHER = """
import logging, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import together_rig as rig
from dropr_core.storage_kit import posts as kit
from dropr_storage_sqlite.outbox.together import Together
kit.PATIENCE = kit.LOOK_AGAIN = 30.0
store = rig.opened(Path(sys.argv[1]))
store.outbox.append([rig.message()])
store.outbox.engine.flush()
store.outbox.engine.company.met()
how = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
moment, deed = sys.argv[3], how[sys.argv[4]]
die = lambda: os.kill(os.getpid(), deed)
take, wait, gather = Together._take, kit.Posts.wait, kit.Posts.gather
if moment == "posted":
    kit.Posts.wait = lambda *words: die() or wait(*words)
if moment == "leading":
    kit.Posts.gather = lambda *words: die() or gather(*words)
if moment == "taken":
    Together._take = lambda *words: (take(*words), die())[0]
if moment == "committed":
    real = os.fdatasync
    os.fdatasync = lambda fd: die() or real(fd)
one = rig.message()
print(one.id.hex(), flush=True)
store.outbox.append([one])
print("sent", flush=True)
store.close()
"""


class Other:
    """Another process, which something happens to at one moment of its send."""

    def __init__(self, rig, moment, deed):
        self._rig, before = rig, len(rig.posts._waiting())
        words = [sys.executable, "-c", OTHER, str(rig.directory), str(Path(__file__).parent), moment, deed]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        rig.others.append(self.process)
        self.id = bytes.fromhex(self.process.stdout.readline())
        until(lambda: len(rig.posts._waiting()) > before)
        self.place = next(place for place, _ in rig.posts._waiting() if place not in map(rig.place, range(3)))

    def leads(self):
        """It stores for all."""
        self._rig.free()
        self._rig.posts._ring(self.place)

    def state(self):
        return Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
