"""What the storage of plain files does while the power fails: the scenes of `sqlite_scenes`, and some of its own.

Runs as a program of its own under the power-cut file system (``python -m powercut.files_scenes SCENE DIRECTORY
WORDS [off]``), and is imported by the test that looks at the disks.
"""

import os
import sys
from pathlib import Path

from dropr_storage_fs.engine import generations, remembered
from dropr_storage_fs.engine.engine import Tuning
from dropr_storage_fs.files import disk, log
from dropr_storage_fs.storage import FsStorage

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Ack, Arrival, Bury, Job, NewMessage, Rejection, Selection
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import START, Head, Lane, StoreId
from dropr_core.system.clock import FakeClock
from powercut import sqlite_scenes as scenes
from powercut.sqlite_scenes import append, arrival, identity, jobs, queued, state

PEERS = ("ware", "there", "yonder")


def open_store(directory):
    """The storage of plain files on a disk, without its reserve: it only makes the disks larger."""
    context = Context(node="here", data=Path(directory), clock=FakeClock(), log=scenes.LOG, min_free=0)
    return FsStorage(Tuning(0.02, 10.0, 0), context)


class Multicasting:
    """One message to three peers is one promise, though it stands in three logs."""

    def prepare(self, store):
        """One in one of the lanes."""
        append(store, 100)

    def act(self, store, say):
        """Multicasts, and plain messages between them."""
        for number in (1, 2, 3):
            store.outbox.append([NewMessage(identity(number), "orders", 5, PEERS, b"body %d" % number * 20)])
            say(str(number))
            append(store, 100 + number)
            say(str(100 + number))

    def check(self, store, said):
        """Each multicast stands in every lane or in none; nothing that was promised is missing."""
        lanes = []
        for peer in PEERS:
            page = store.outbox.scan(Selection(peer=peer), limit=1000)
            lanes.append([int.from_bytes(delivery.id, "big") for _, delivery in page])
        assert lanes[0][0] == 100
        assert [number for number in lanes[0] if number < 100] == lanes[1] == lanes[2], "a multicast was torn"
        assert {int(word) for word in said} <= set(lanes[0])
        # Whoever looks while a call is under way may see of it what is flushed already, never what is not promised.
        for peer, lane in zip(PEERS, lanes, strict=True):
            batch = store.outbox.take(Lane(peer, "orders", 5), 100, 1 << 30, mark_in_flight=False)
            seen = [] if batch is None else [int.from_bytes(entry.id, "big") for entry in batch.entries]
            assert seen == lane[: len(seen)]
            assert {int(word) for word in said} & set(lane) <= set(seen)
        depths = {stats.lane.peer: stats.depth for stats in store.outbox.lanes()}
        assert depths == {peer: len(lane) for peer, lane in zip(PEERS, lanes, strict=True) if lane}


class Mixing:
    """A push that carries two lanes is one promise."""

    def prepare(self, store):
        """Nothing."""

    @staticmethod
    def _parts(number):
        one = arrival(number, number)
        other = one._replace(source=one.source._replace(priority=1))
        return [one, other]

    def act(self, store, say):
        """Three pushes, the second of them alone."""
        for word, parts in (
            ("1", self._parts(1)), ("2", self._parts(2)[:1]), ("", [arrival(3, 3)]), ("3", self._parts(2)[1:]),
            ("4", [*self._parts(3)[1:], arrival(4, 4)]),
        ):  # fmt: skip
            assert all(answer.taken for answer in store.inbox.accept(parts))
            if word:
                say(word)

    def check(self, store, said):
        """Heads and messages agree in both lanes; what was one push is there as one."""
        heads = {source.priority: head for source, head in store.inbox.heads("shop").items()}
        counted = {}
        for info in store.inbox.scan(Selection(), 0, 1000):
            counted.setdefault(info.priority, []).append(int.from_bytes(info.id, "big"))
        for priority in (1, 5):
            head = heads.get(priority, START)
            assert counted.get(priority, []) == list(range(1, head.sequence + 1)), "head and messages differ"
        one, five = (heads.get(priority, START).sequence for priority in (1, 5))
        assert (five >= 1) == (one >= 1), "a push with two lanes was torn"
        assert (five >= 4) == (one >= 3), "a push with two lanes was torn"
        least = {"1": (1, 1), "2": (1, 2), "3": (2, 3), "4": (3, 4)}
        for word in said:
            assert (one, five) >= least[word]
            assert five >= least[word][1]


class Rolling:
    """Segments fill up, journals are rewritten, old segments go: all in the middle of work."""

    def prepare(self, store):
        """A few that came and a few to go."""
        append(store, *range(1, 11), receipt=True)
        store.inbox.accept([arrival(1, 10)])

    def act(self, store, say):
        """Ship, settle, consume and acknowledge while more comes and goes."""
        consumer = store.inbox.register()
        for step in range(3):
            first = 11 + 3 * step
            append(store, *range(first, first + 3), receipt=True)
            say(f"appended {first + 2}")
            batch = store.outbox.take(scenes.LANE, 4, 1 << 30)
            say(f"offered {batch.entries[-1].sequence}")
            store.outbox.settle(scenes.LANE, batch.upto)
            assert store.inbox.accept([arrival(first, first + 2)])[0].taken
            say(f"accepted {first + 2}")
            store.inbox.settle([Ack(claim) for claim in store.inbox.claim(["orders"], 5, consumer)])
            store.inbox.flush()
            say(f"done {5 * step + 5}")
            store.outbox.sweep(1e9)
            store.inbox.sweep()

    def check(self, store, said):
        """All accounts are right."""
        last = {word.split()[0]: int(word.split()[1]) for word in said}
        page = store.outbox.scan(Selection(states=frozenset({State.QUEUED})), limit=1000)
        there = [int.from_bytes(delivery.id, "big") for _, delivery in page]
        sent = store.outbox.counts()["ware", "orders"]["sent"]
        assert sent >= last.get("appended", 10)
        assert there == list(range(sent - len(there) + 1, sent + 1))
        assert set(range(last.get("offered", 0) + 1, sent + 1)) <= set(there)
        for number in range(1, sent + 1):
            assert state(store, number) == (State.QUEUED if number in there else State.ACCEPTED)
            assert store.outbox.envelope(identity(number)) == b"body %d" % number * 20
        head = store.inbox.heads("shop")[scenes.SOURCE].sequence
        assert head >= last.get("accepted", 10)
        rest = jobs(store)
        assert sorted(rest) == list(range(head - len(rest) + 1, head + 1))
        assert head - len(rest) >= last.get("done", 0)
        finished = len(store.inbox.outcomes("shop", None, 0, 100)[1])
        assert finished == head - len(rest)
        assert store.inbox.counts()["orders"].get("processed", 0) == finished


class Straggling:
    """A few old messages are still needed: they are copied forward, and the rest of their segments goes."""

    def prepare(self, store):
        """One that is awaited, one that is dead, one that is buried, and many that are done."""
        append(store, 1, receipt=True)
        append(store, 2)
        store.outbox.dead_letter(scenes.LANE, 2, "poison")
        store.inbox.accept([arrival(1, 1)])
        assert store.inbox.bury(identity(1), "test")
        for first in range(3, 33, 5):
            append(store, *range(first, first + 5))
        for first in (2, 7):
            store.inbox.accept([arrival(first, first + 4, receipt=False)])

    @staticmethod
    def _stranger():
        """A push of another sender, of whom nothing is left but the head."""
        source, head = scenes.SOURCE._replace(sender="stranger"), Head(1, identity(900))
        return Arrival(source, START, head, [Job(head.id, b"strange" * 20, 1)])

    def act(self, store, say):
        """Everything plain is delivered and processed; sweeps make room; then something new comes."""
        consumer = store.inbox.register()
        assert store.inbox.accept([self._stranger()])[0].taken
        say("stranger")
        for first in (12, 17, 22, 27):
            assert store.inbox.accept([arrival(first, first + 4, receipt=False)])[0].taken
        batch = store.outbox.take(scenes.LANE, 1000, 1 << 30)
        while batch is not None:
            store.outbox.settle(scenes.LANE, batch.upto)
            batch = store.outbox.take(scenes.LANE, 1000, 1 << 30)
        while claims := store.inbox.claim(["orders"], 100, consumer):
            store.inbox.settle([Ack(claim) for claim in claims])
        for _ in range(3):
            store.outbox.sweep(1e9)
            store.inbox.sweep()
        say("done")
        append(store, 33)
        assert store.inbox.accept([arrival(32, 32)])[0].taken
        say("33")

    def check(self, store, said):
        """The old ones are known and whole, heads stand, and done is done."""
        assert (state(store, 1), state(store, 2)) in ((State.ACCEPTED, State.DEAD), (State.QUEUED, State.DEAD))
        for number in (1, 2):
            assert store.outbox.envelope(identity(number)) == b"body %d" % number * 20
        assert store.inbox.envelope(identity(1)) == b"body 1" * 20
        assert jobs(store)[1] == State.BURIED
        head = store.inbox.heads("shop")[scenes.SOURCE].sequence
        assert head >= (32 if "33" in said else 31 if "done" in said else 11)
        assert len(store.inbox.heads("stranger")) == 1 or "stranger" not in said, "a head went with its segment"
        if "done" in said:
            assert state(store, 1) == State.ACCEPTED
            assert set(jobs(store)) <= {1, 32}, "what was processed came back"
            assert set(queued(store)) <= {33}
        if "33" in said:
            assert queued(store) == [33]
            assert jobs(store)[32] == State.READY


class Mending:
    """The power fails again while what the last cut left torn is mended and written on."""

    def prepare(self, store):
        """Three to go, three that came."""
        append(store, 1, 2, 3)
        store.inbox.accept([arrival(1, 3)])

    def wreck(self, directory):
        """What a cut may leave: half of a frame behind every log, half of a commit behind every journal."""
        for place in [*directory.glob("*/logs/*/*.seg"), *directory.glob("*/journal.*")]:
            data = place.read_bytes()
            place.write_bytes(data + data[-150:-50])

    def act(self, store, say):
        """Opening has mended it; now both halves go on."""
        append(store, 4)
        say("4")
        assert store.inbox.accept([arrival(4, 5)])[0].taken
        say("5")

    def check(self, store, said):
        """Nothing is missing, and no half of anything came back."""
        there = queued(store)
        assert there in ([1, 2, 3], [1, 2, 3, 4])
        assert "4" not in said or 4 in there
        head = store.inbox.heads("shop")[scenes.SOURCE].sequence
        assert sorted(jobs(store)) == list(range(1, head + 1))
        assert head == 5 or "5" not in said


class Remembering:
    """What was processed goes out of memory, into files that the next journal refers to."""

    log = StoreId(b"log----1")

    def prepare(self, store):
        """One that was processed before."""
        self._process(store, 1, 1)

    def _process(self, store, first, last):
        append(store, *range(first, last + 1), receipt=True)
        store.outbox.settle(scenes.LANE, store.outbox.take(scenes.LANE, 100, 1 << 30).upto)
        rows = [Outcome(number, identity(number), State.PROCESSED) for number in range(first, last + 1)]
        store.outbox.receipts(scenes.LANE.peer, self.log, rows, last)

    def act(self, store, say):
        """Some more, and one that only waits between them; a part of them is wiped."""
        for first in (2, 4, 6):
            self._process(store, first, first + 1)
            say(f"processed {first + 1}")
        assert store.outbox.wipe(Selection(ids=(identity(2),))) == 1
        say("wiped 2")
        self._process(store, 8, 9)
        say("processed 9")

    def check(self, store, said):
        """Whatever was said to be processed is known as such, once; what was wiped is not known."""
        last = max([1, *(int(word.split()[1]) for word in said if word.startswith("processed"))])
        page = store.outbox.scan(Selection(states=frozenset({State.PROCESSED})), limit=100)
        there = [int.from_bytes(delivery.id, "big") for _, delivery in page]
        assert there == sorted(set(there)), "something is remembered twice"
        assert set(range(1, last + 1)) - set(there) <= {2}, "something that was processed is not remembered"
        assert 2 not in there or "wiped 2" not in said
        assert store.outbox.counts()[scenes.LANE.peer, "orders"]["processed"] == len(there)
        for number in there:
            assert state(store, number) == State.PROCESSED


class Ending:
    """What is buried, kept, refused or not fetched goes into files, and comes back when something happens to it."""

    log = StoreId(b"log----1")

    def prepare(self, store):
        """One of each."""
        self._end(store, 1, 1)

    def _end(self, store, first, last):
        """The messages between: refused by the peer; the odd ones buried, the even ones kept and told of."""
        append(store, *range(first, last + 1))
        batch = store.outbox.take(scenes.LANE, 100, 1 << 30)
        refused = [Rejection(entry.sequence, "no", "test") for entry in batch.entries]
        store.outbox.settle(scenes.LANE, batch.upto, refused)
        assert store.inbox.accept([arrival(first, last)])[0].taken
        claims = store.inbox.claim(["orders"], 100, store.inbox.register())
        kept = [Ack(claim, b"result", "", 1e9) for claim in claims]
        store.inbox.settle([Bury(ack.claim, "test") if ack.claim.id[-1] % 2 else ack for ack in kept])
        store.inbox.flush()

    def act(self, store, say):
        """Some more; two begin again, two are forgotten."""
        for first in (2, 4):
            self._end(store, first, first + 1)
            say(f"ended {first + 1}")
        assert store.outbox.redrive(Selection(ids=(identity(2),))) == 1
        say("redriven 2")
        assert store.inbox.kick(Selection(ids=(identity(1),))) == 1
        say("kicked 1")
        assert store.outbox.wipe(Selection(ids=(identity(3),))) == store.inbox.wipe(Selection(ids=(identity(3),))) == 1
        say("wiped 3")
        store.inbox.outcomes("shop", store.inbox.store_id, 2, 10)
        say("told 2")
        append(store, 6)
        say("sent 6")

    def check(self, store, said):
        """Everything is in the state that it was said to be in, once, with its bytes; counts and outcomes agree."""
        last = max([1, *(int(word.split()[1]) for word in said if word.startswith("ended"))])
        page = store.outbox.scan(Selection(states=frozenset({State.FAILED})), limit=100)
        failed = [int.from_bytes(delivery.id, "big") for _, delivery in page]
        inside = jobs(store)
        for number in range(1, last + 1):
            again = number == 2 and 2 in queued(store)
            assert again or number in failed or number == 3
            assert number in inside or number == 3
            assert number == 3 or store.outbox.envelope(identity(number)) == b"body %d" % number * 20
            assert number == 3 or store.inbox.envelope(identity(number)) == b"body %d" % number * 20
        assert failed == sorted(set(failed))
        assert 2 not in failed or "redriven 2" not in said
        assert inside[1] == (State.READY if "kicked 1" in said else inside[1])
        assert "wiped 3" not in said or (3 not in failed and 3 not in inside)
        assert store.outbox.counts()[scenes.LANE.peer, "orders"]["failed"] == len(failed)
        counts = store.inbox.counts()["orders"]
        for name in (State.BURIED, State.DONE):
            assert counts.get(name, 0) == list(inside.values()).count(name)
        rows = [(row.number, int.from_bytes(row.id, "big")) for row in store.inbox.outcomes("shop", None, 0, 100)[1]]
        first = rows[0][0]
        assert rows == [(number, number) for number in range(first, first + len(rows))]
        assert first in (1, 3)
        assert first == 3 or "told 2" not in said
        assert rows[-1][0] >= last


OWN = (Multicasting, Mixing, Rolling, Straggling, Mending, Remembering, Ending)
SCENES = scenes.SCENES | {scene.__name__.lower(): scene for scene in OWN}
SMALL = ("rolling", "straggling", "remembering", "ending")


def shrink(name):
    """Small segments and journals, so that few messages fill them."""
    log.SEGMENT_SIZE, log.AHEAD = 1500, 0
    if name in {"remembering", "ending"}:
        remembered.SET_DOWN_AT = remembered.RUN_LEAST = 1
    if name == "rolling":
        generations.JOURNAL_MIN, generations.CHECK_BYTES = 1500, 200


def main(name, directory, words, *switches):
    """Act out one scene on a disk."""
    if name in SMALL:
        shrink(name)
    if "off" in switches:  # the negative control: promises without flushes
        disk.flush_file = disk.flush_cut = disk.flush_directory = lambda _what: None
    out = os.open(words, os.O_WRONLY | os.O_APPEND)
    store = open_store(directory)
    SCENES[name]().act(store, lambda word: os.write(out, word.encode() + b"\n"))
    os._exit(0)  # without closing: a power cut closes nothing


if __name__ == "__main__":
    main(*sys.argv[1:])
