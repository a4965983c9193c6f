"""What others do with messages that they see before they are on stable storage, while the power fails.

As `sqlite_scenes`, but two work on one store: one that stores and waits for the disk, and one that was told of it
before. ``said`` is also what the second one promised to somebody outside.
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from dropr_storage_sqlite.engine.engine import Engine

from dropr_core.contracts.storage import Ack, NewMessage, Release
from dropr_core.model.message import State
from dropr_core.model.names import START
from dropr_core.storage_kit import posts
from powercut.sqlite_scenes import LANE, SOURCE, arrival, identity, jobs, open_store, queued


class Shipping:
    """A sender waits for the disk, and the daemon takes what it sees."""

    def prepare(self, store):
        """One of each has worked here before, so that both have the log open."""
        store.outbox.append([message(1)])

    def act(self, store, other, say):
        """What `take` gives is on its way to a peer, which will take its number for known."""

        def seen():
            batch = other.outbox.take(LANE, 1000, 1 << 30)
            say(f"shipped {batch.upto.sequence}")

        other.outbox.take(LANE, 1000, 1 << 30)
        for number in (2, 3, 4):
            store.outbox.append_telling([message(number)], seen)
            say(f"sent {number}")

    def check(self, store, said):
        """Whatever was shipped is there: its number is given to no other message."""
        there = queued(store)
        assert there == list(range(1, len(there) + 1))
        assert len(there) >= max((int(word.split()[1]) for word in said), default=1)


class Working:
    """A server waits for the disk, and a consumer works on what it sees."""

    def prepare(self, store):
        """One has come."""
        store.inbox.accept([arrival(1, 1)])

    def act(self, store, other, say):
        """Handle at once; say to others what may be said."""
        consumer = other.inbox.register()
        other.inbox.claim(["orders"], 10, consumer)

        def handle(words):
            (claim,) = other.inbox.claim_at_once(["orders"], 10, consumer)
            if words[0].head.sequence == 2:
                other.inbox.settle([Ack(claim, b"result")])
            elif words[0].head.sequence == 3:
                other.inbox.settle([Ack(claim, b"result")])
                other.inbox.flush()
                say("done 3")
            elif words[0].head.sequence == 4:
                other.inbox.settle([Ack(claim, b"result")])
                say(f"receipts {len(other.inbox.outcomes('shop', None, 0, 100)[1])}")
            elif words[0].head.sequence == 5:
                say(f"head {other.inbox.heads('shop')[SOURCE].sequence}")
            elif words[0].head.sequence == 6:
                (word,) = other.inbox.accept([arrival(6, 6)])
                assert not word.taken
                say(f"head {word.head.sequence}")
            elif words[0].head.sequence == 7:
                other.inbox.settle([Release(claim, 0.0)])
                (again,) = other.inbox.claim(["orders"], 10, consumer)
                say(f"number {again.number} {int.from_bytes(again.id, 'big')}")
            elif words[0].head.sequence == 8:
                say(f"listed {max(jobs(other))}")

        for number in range(2, 9):
            store.inbox.accept_telling([arrival(number, number)], handle)
            say(f"head {number}")

    def check(self, store, said):
        """What was told is there with all that came before it, and what was not comes again to a lane that fits."""
        head = store.inbox.heads("shop").get(SOURCE, START)
        there, outcomes = jobs(store), store.inbox.outcomes("shop", None, 0, 100)[1]
        done = [int.from_bytes(row.id, "big") for row in outcomes]
        assert set(done) | set(there) == set(range(1, head.sequence + 1))
        assert done == list(range(2, len(done) + 2))
        for word, number, *more in (line.split() for line in said):
            if word in {"head", "listed", "done"}:
                assert head.sequence >= int(number)
            if word == "done":
                assert int(number) in done
            if word == "receipts":
                assert len(done) >= int(number)
            if word == "number":
                found = store.inbox.find(int(number))
                assert found is not None and found.id == identity(int(more[0]))
        last = head.sequence
        (word,) = store.inbox.accept([arrival(last + 1, last + 1)])
        assert word.taken
        assert jobs(store)[last + 1] is State.READY


class Gathering:
    """Two send at once: one of them stores for both, and the other one hears of it from that."""

    def prepare(self, store):
        """One is there."""
        store.outbox.append([message(1)])

    def act(self, store, other, say):
        """Who leads is whoever is woken; what they tell each other is on another disk, and begins anew after a cut."""
        home = Path(tempfile.mkdtemp())
        posts.PATIENCE = posts.LOOK_AGAIN = 30.0
        for one in (store, other):
            one.outbox.appender._together._posts._directory = home
            one.outbox.engine.company.met()
        gate = posts.Posts(home)
        assert gate.open()

        def send(one, number):
            one.outbox.append([message(number)])
            say(f"sent {number}")

        for number in (2, 4, 6):
            while not gate.lead():
                time.sleep(0.001)
            threads = [threading.Thread(target=send, args=pair) for pair in ((store, number), (other, number + 1))]
            for thread in threads:
                thread.start()
            while len(waiting := gate.posted()) < 2:
                time.sleep(0.001)
            if number == 6:
                gate.answer(waiting[0], posts.BY_ITSELF)
            gate.hand_over()
            for thread in threads:
                thread.join()

    def check(self, store, said):
        """Whatever was sent is there, once."""
        batch = store.outbox.take(LANE, 1000, 1 << 30)
        there = sorted(int.from_bytes(entry.id, "big") for entry in batch.entries)
        assert len(set(there)) == len(there)
        assert {1, *(int(word.split()[1]) for word in said)} <= set(there)
        assert [entry.sequence for entry in batch.entries] == list(range(1, len(there) + 1))


def message(number):
    """One for the lane."""
    return NewMessage(identity(number), "orders", 5, ("ware",), b"body %d" % number * 20)


SCENES = {scene.__name__.lower(): scene for scene in (Shipping, Working, Gathering)}


def main(name, directory, words, *switches):
    """Act out one scene on a disk."""
    if "off" in switches:  # the negative control: nobody makes sure of what he has read
        Engine.settle = Engine.settle_seen = lambda *_: None
        if name == "gathering":  # or that what it has stored for others is on the disk
            os.fdatasync = lambda _fd: None
    out = os.open(words, os.O_WRONLY | os.O_APPEND)
    store, other = open_store(directory), open_store(directory)
    store.outbox.engine.flush()
    store.inbox.engine.flush()
    SCENES[name]().act(store, other, lambda word: os.write(out, word.encode() + b"\n"))
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
