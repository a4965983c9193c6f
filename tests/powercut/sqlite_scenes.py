"""What a storage does while the power fails: each scene prepares a store, acts on it, and says what must be left.

Runs as a program of its own under the power-cut file system (``python -m powercut.sqlite_scenes SCENE DIRECTORY
WORDS [off]``), and is imported by the test that looks at the disks. ``said`` are the words that the scene
wrote down, outside of that disk, each after the call that promises it had returned.
"""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from dropr_storage_sqlite.engine import connection as opening
from dropr_storage_sqlite.engine.tuning import Tuning
from dropr_storage_sqlite.storage import SqliteStorage

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Ack, Arrival, Job, NewMessage, Selection
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import START, Head, Lane, MessageId, SourceLane, StoreId
from dropr_core.system.clock import FakeClock

LANE = Lane("ware", "orders", 5)
SOURCE = SourceLane("shop", StoreId(b"store--1"), "orders", 5)
LOG = logging.getLogger("dropr.test")
Say = Callable[[str], None]


def open_store(directory):
    """The SQLite storage on a disk, without its reserve: it only makes the disks larger."""
    context = Context(node="here", data=Path(directory), clock=FakeClock(), log=LOG, min_free=0)
    return SqliteStorage(Tuning(0.02, 10.0, 1 << 20, 0), context)


def identity(number):
    """The id of a message with a number."""
    return MessageId(number.to_bytes(16, "big"))


def append(store, *numbers, receipt=False):
    """Append messages in one call."""
    store.outbox.append(
        [NewMessage(identity(n), "orders", 5, ("ware",), b"body %d" % n * 20, receipt) for n in numbers]
    )


def arrival(first, last, *, receipt=True):
    """One push with messages ``first`` to ``last`` of a lane."""
    after = START if first == 1 else Head(first - 1, identity(first - 1))
    jobs = [Job(identity(n), b"body %d" % n * 20, n, receipt=receipt) for n in range(first, last + 1)]
    return Arrival(SOURCE, after, Head(last, identity(last)), jobs)


def queued(store):
    """Numbers in the lane of the outbox, in order."""
    batch = store.outbox.take(LANE, 1000, 1 << 30, mark_in_flight=False)
    return [] if batch is None else [int.from_bytes(entry.id, "big") for entry in batch.entries]


def state(store, number):
    """State of a delivery; empty if it is not known."""
    return next((found.state for found in store.outbox.status(identity(number))), "")


def jobs(store):
    """number → state of what the inbox lists."""
    return {int.from_bytes(info.id, "big"): info.state for info in store.inbox.scan(Selection(), 0, 1000)}


class Appending:
    """Some alone, some in groups."""

    groups = ((1,), (2,), (3, 4, 5), (6,), (7, 8))

    def prepare(self, store):
        """Nothing."""

    def act(self, store, say):
        """Each group is promised when `append` returns."""
        for group in self.groups:
            append(store, *group)
            say(str(group[-1]))

    def check(self, store, said):
        """All that was promised is there, whole groups only, nothing else."""
        there = queued(store)
        assert there == list(range(1, len(there) + 1))
        assert not there or there[-1] in [group[-1] for group in self.groups], "a group came back in part"
        assert len(there) >= max(map(int, said), default=0)


class Staging:
    """A staging log is taken in, portion by portion, and goes; between them something is appended."""

    portions = ((1, 2), (3,), (4, 5, 6))

    def prepare(self, store):
        """A lane that is known, and one in it."""
        append(store, 100)

    def act(self, store, say):
        """Each portion is promised when `append_staged` returns."""
        for portion in self.portions:
            messages = [NewMessage(identity(n), "orders", 5, ("ware",), b"body %d" % n * 20) for n in portion]
            assert store.outbox.append_staged(messages, "log", portion[0] - 1, portion[-1])
            say(str(portion[-1]))
            append(store, 100 + portion[-1])
        store.outbox.unstage(["log"])
        say("gone")

    def check(self, store, said):
        """The note says how far the messages are there, never more and never less; what was promised is there."""
        there = [number for number in queued(store) if number < 100]
        noted = store.outbox.staged().get("log", 0)
        assert there == list(range(1, len(there) + 1))
        assert noted == len(there) or (noted == 0 and len(there) == 6), f"noted {noted}, there {there}"
        assert "gone" not in said or noted == 0
        assert len(there) >= max((int(word) for word in said if word != "gone"), default=0)


class Settling:
    """A lane is shipped and settled step by step."""

    def prepare(self, store):
        """Six messages, two of them to be processed."""
        append(store, *range(1, 7), receipt=True)

    def act(self, store, say):
        """The peer commits two at a time; receipts are promised when `receipts` returns."""
        for step in (2, 4, 6):
            batch = store.outbox.take(LANE, 2, 1 << 30)
            say(f"offered {step}")
            store.outbox.settle(LANE, batch.upto)
            rows = [Outcome(step // 2, identity(step), State.PROCESSED, "", b"done", "text/plain")]
            store.outbox.receipts("ware", StoreId(b"log-----"), rows, step // 2)
            say(f"receipt {step}")

    def check(self, store, said):
        """What was never offered is queued; a recorded receipt stays; nothing is forgotten."""
        offered = max((int(word.split()[1]) for word in said if word.startswith("offered")), default=0)
        there = queued(store)
        assert there == list(range(7 - len(there), 7))
        assert set(range(offered + 1, 7)) <= set(there)
        for word in said:
            if word.startswith("receipt"):
                number = int(word.split()[1])
                assert state(store, number) == State.PROCESSED
                assert store.outbox.peers()["ware"].cursor >= number // 2
        assert all(state(store, number) for number in range(1, 7))


class Accepting:
    """A peer pushes; messages and head are one commit."""

    pushes = ((1, 2), (3, 3), (4, 7))

    def prepare(self, store):
        """Nothing."""

    def act(self, store, say):
        """Each push is promised when `accept` returns."""
        for first, last in self.pushes:
            (word,) = store.inbox.accept([arrival(first, last)])
            assert word.taken
            say(str(last))

    def check(self, store, said):
        """The head says exactly what is there."""
        head = store.inbox.heads("shop").get(SOURCE, START)
        assert head.sequence >= max(map(int, said), default=0)
        assert sorted(jobs(store)) == list(range(1, head.sequence + 1))
        assert head.sequence in {0, *(last for _, last in self.pushes)}
        assert head == START or head.id == identity(head.sequence)


class Acknowledging:
    """A consumer works; the flush makes it durable, and receipts are given for nothing else."""

    def prepare(self, store):
        """Six messages that came."""
        store.inbox.accept([arrival(1, 6)])

    def act(self, store, say):
        """Claim, acknowledge, then flush or hand out receipts."""
        consumer = store.inbox.register()
        for number in (1, 2, 3):
            (claim,) = store.inbox.claim(["orders"], 1, consumer)
            store.inbox.settle([Ack(claim, b"result")])
            if number == 2:
                store.inbox.flush()
                say("2")
            if number == 3:
                _log, rows = store.inbox.outcomes("shop", None, 0, 100)
                say(str(len(rows)))

    def check(self, store, said):
        """What was flushed, or said in a receipt, is done; what was not acknowledged is there; both add up."""
        done = max(map(int, said), default=0)
        _log, rows = store.inbox.outcomes("shop", None, 0, 100)
        finished = [int.from_bytes(row.id, "big") for row in rows]
        assert finished == list(range(1, len(finished) + 1))
        assert len(finished) >= done
        open_ones = {number for number, where in jobs(store).items() if where in (State.READY, State.LEASED)}
        assert open_ones == set(range(len(finished) + 1, 7))
        store.inbox.reap({})
        assert len(store.inbox.claim(["orders"], 10, store.inbox.register())) == len(open_ones)


class Holding:
    """A consumer notes on its lease sheet what it has done; part of it is settled and flushed. Then the power goes."""

    def prepare(self, store):
        """Six messages that came."""
        store.inbox.accept([arrival(1, 6)])

    def act(self, store, say):
        """Hold all, do three of them, settle two, begin one more."""
        consumer = store.inbox.register()
        sheet = store.inbox.sheets.sheet(consumer)
        assert sheet is not None
        sheet.claiming(begins=True)
        claims = store.inbox.claim(["orders"], 6, consumer)
        lines = sheet.hold(claims, {"orders": 0.0})
        sheet.claiming(begins=False)
        acks = [Ack(claim, b"result") for claim in claims]
        for ack, line in zip(acks[:3], lines, strict=False):
            sheet.begin(line)
            assert sheet.done_with(line, ack)
        store.inbox.settle(acks[:2])
        sheet.free(lines[:2])
        store.inbox.flush()
        say("2")
        sheet.begin(lines[3])

    def check(self, store, said):
        """After a boot nothing of the sheet counts: done is what was settled and flushed, everything else comes back as
        begun, and nothing is missing.
        """
        store.inbox.consumers._boot = "another boot"
        done = max(map(int, said), default=0)
        before = store.inbox.outcomes("shop", None, 0, 100)[1]
        finished = [int.from_bytes(row.id, "big") for row in before]
        assert finished == list(range(1, len(finished) + 1))
        assert len(finished) in ({2} if done else {0, 2})
        leased = {number for number, where in jobs(store).items() if where is State.LEASED}
        store.inbox.reap({})
        assert store.inbox.outcomes("shop", None, 0, 100)[1] == before, "a sheet was believed after a boot"
        claims = store.inbox.claim(["orders"], 10, store.inbox.register())
        left = {int.from_bytes(claim.id, "big"): claim.attempt for claim in claims}
        assert left == {number: 2 if number in leased else 1 for number in range(len(finished) + 1, 7)}


class Turning:
    """The peer lost messages, then this store finds itself rolled back."""

    def prepare(self, store):
        """Four accepted that wait for a receipt, two queued."""
        append(store, *range(1, 7), receipt=True)
        store.outbox.settle(LANE, Head(4, identity(4)))

    def act(self, store, say):
        """Rewind, then renumber; each is promised on return."""
        store.outbox.rewind(LANE, Head(2, identity(2)))
        say("rewound")
        say("store " + store.outbox.renumber().hex())

    def check(self, store, said):
        """Never less than all; a promised turn stands; the two steps are whole."""
        there = queued(store)
        assert there in ([5, 6], [3, 4, 5, 6])
        if said:
            assert there == [3, 4, 5, 6]
        batch = store.outbox.take(LANE, 100, 1 << 30, mark_in_flight=False)
        assert [entry.possible_duplicate for entry in batch.entries][-6:-2] in ([], [True, True])
        for word in said:
            if word.startswith("store"):
                assert store.outbox.store_id.hex() == word.split()[1]
                assert [entry.sequence for entry in batch.entries] == [1, 2, 3, 4]
                assert all(entry.possible_duplicate for entry in batch.entries)
        assert all(state(store, number) for number in range(1, 7))


class Cancelling:
    """Some are taken back, then the ended ones are forgotten."""

    def prepare(self, store):
        """Five queued, and three buried in the inbox among six."""
        append(store, *range(1, 6))
        store.inbox.accept([arrival(1, 6)])
        for number in (1, 2, 3):
            assert store.inbox.bury(identity(number), "test")

    def act(self, store, say):
        """A cancel is promised on return; wipes remove only what has ended."""
        for number in (2, 4):
            assert store.outbox.cancel(identity(number)) == (1, 0)
            say(f"cancelled {number}")
        store.outbox.wipe(Selection(states=frozenset({State.CANCELLED})))
        store.inbox.wipe(Selection(states=frozenset({State.BURIED})))
        append(store, 6)
        say("appended")

    def check(self, store, said):
        """What lives, lives; what was cancelled is never shipped."""
        there = queued(store)
        assert {1, 3, 5} <= set(there)
        for word in said:
            if word.startswith("cancelled"):
                assert int(word.split()[1]) not in there
        assert ("appended" not in said) or 6 in there
        found = jobs(store)
        assert {number for number, where in found.items() if where is State.READY} == {4, 5, 6}
        assert store.inbox.heads("shop")[SOURCE].sequence == 6


class Creating:
    """The store itself is made, and then used at once."""

    def prepare(self, store):
        """Nothing: it does not even exist."""

    def act(self, store, say):
        """The first message."""
        append(store, 1)
        say("1")

    def check(self, store, said):
        """A store can be opened whatever is left of its making, and has what was promised."""
        assert queued(store) == [1] or not said


SCENES = {scene.__name__.lower(): scene for scene in
          (Appending, Staging, Settling, Accepting, Acknowledging, Holding, Turning, Cancelling, Creating)}  # fmt: skip


def main(name, directory, words, *switches):
    """Act out one scene on a disk."""
    if "off" in switches:  # the negative control: promises without flushes
        opening.FULL, real = 0, opening.connect
        opening.connect = lambda path, _synchronous, *rest, **more: real(path, 0, *rest, **more)
    out = os.open(words, os.O_WRONLY | os.O_APPEND)
    store = open_store(directory)
    SCENES[name]().act(store, lambda word: os.write(out, word.encode() + b"\n"))
    os._exit(0)  # without closing: a power cut closes nothing


if __name__ == "__main__":
    main(*sys.argv[1:])
