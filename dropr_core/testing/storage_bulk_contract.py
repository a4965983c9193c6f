"""Contract tests of a storage that is given much: thousands at once, pages of every size, large envelopes.

Owns one test for each way in which rows go in and come out in numbers: none may be lost, given twice or in another
place at the edge of a page, a power of two or a limit. Must not know any storage by name.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any

import pytest

from dropr_core.contracts.outbox import PAGE
from dropr_core.contracts.records import PlainMessages
from dropr_core.contracts.storage import Ack, Bury, Claim, Entry, Selection, Storage
from dropr_core.model.limits import MAX_ENVELOPE
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import Head, MessageId, StoreId
from dropr_core.testing.bench import Bench, StorageTests
from dropr_core.testing.builders import CHANNEL, LANE, PEER, SENDER, Source, Worker, job, outgoing, send, taken
from dropr_core.testing.likeness import strayed
from dropr_core.testing.payloads import difference, payload

EDGES = tuple(size + beside for size in (64, 100, 128, 256, 512, 1000, 1024, 2048) for beside in (-1, 0, 1))
"""How many come at once: around powers of two, around 100 and 1000."""
ALL = sum(EDGES)
LIFE = 1000.0
PLENTY = 1 << 40
"""Bytes: no limit."""
ENVELOPES = (0, 1, 255, 256, 257, 4095, 4096, 4097, 65_535, 65_536, 65_537, (1 << 20) + 1, MAX_ENVELOPE)
"""Bytes of an envelope: around what fits into one, two or three bytes of a length, a page, 64 KiB; the largest."""


def parts(ids: Sequence[MessageId]) -> Iterator[Sequence[MessageId]]:
    """The same, cut into as many as each of `EDGES` says."""
    begin = 0
    for size in EDGES:
        yield ids[begin : begin + size]
        begin += size


def same(got: Iterable[bytes], wanted: Sequence[bytes], what: str) -> None:
    """AssertionError that names what is missing, extra, twice or in another place."""
    wrong = strayed(list(got), wanted)
    assert not wrong, f"{what}: {wrong}"


class StorageBulkContract(StorageTests):
    """What a storage must do with many rows and with large ones."""

    # ── the outbox ───────────────────────────────────────────────────────────────────────────────

    def _fill(self, storage: Storage, **fields: Any) -> list[MessageId]:
        """A lane, in batches of all sizes."""
        ids: list[MessageId] = []
        for size in EDGES:
            messages = [outgoing(b"%d" % number, **fields) for number in range(len(ids), len(ids) + size)]
            placed = storage.outbox.append(messages)
            same([one.id for one in placed], [one.id for one in messages], f"what append of {size} returns")
            places = [one.sequences for one in placed]
            assert places == [(number,) for number in range(len(ids) + 1, len(ids) + size + 1)], f"append of {size}"
            ids += [one.id for one in messages]
        return ids

    def test_batches_of_any_size_are_appended_taken_and_settled(self, storage: Storage) -> None:
        """Each message of a lane is given once and in its place, whatever came, goes and ends at once."""
        ids = self._fill(storage)
        for part in parts(ids):
            batch = taken(storage.outbox, count=len(part), size=PLENTY)
            same([entry.id for entry in batch.entries], part, f"take of {len(part)}")
            first = ids.index(part[0])
            for at, entry in enumerate(batch.entries, first):
                assert (entry.sequence, entry.envelope) == (at + 1, b"%d" % at), f"entry {at} of take of {len(part)}"
            storage.outbox.settle(LANE, batch.upto)
            left = [stats.depth for stats in storage.outbox.lanes()]
            assert left == [ALL - first - len(part)][: bool(ALL - first - len(part))], f"after settle of {len(part)}"
        assert storage.outbox.take(LANE, 1, PLENTY) is None

    def test_messages_in_columns_are_stored_like_those_of_a_list(self, storage: Storage) -> None:
        """`PlainMessages` of any number, with what all of them want: each stands in its place as it was given."""
        ids: list[MessageId] = []
        for size in (1, 2, *EDGES[:6]):
            like = outgoing(b"", receipt=True, delayed=True)
            mine = [outgoing().id for _ in range(size)]
            envelopes = [b"%d" % number * (1 + number % 3) for number in range(len(ids), len(ids) + size)]
            placed = storage.outbox.append(PlainMessages(like, mine, envelopes))
            assert [(one.id, one.sequences, one.existed) for one in placed] == [
                (one, (number,), False) for number, one in enumerate(mine, len(ids) + 1)
            ], f"append of {size}"
            batch = taken(storage.outbox, count=size, size=PLENTY)
            same([entry.id for entry in batch.entries], mine, f"take of {size}")
            same([entry.envelope for entry in batch.entries], envelopes, f"envelopes of {size}")
            assert {entry.age >= 0 for entry in batch.entries} == {True}
            storage.outbox.settle(LANE, batch.upto)
            ids += mine
        found = {one.id: (one.receipt, one.state) for one in storage.outbox.status(ids[0])}
        assert found == {ids[0]: (True, State.ACCEPTED)}

    def test_pages_of_deliveries_of_any_size(self, storage: Storage) -> None:
        """`scan` shows each delivery once and in its place, whatever the size of a page; ids by thousands are found."""
        ids = self._fill(storage)
        self._pages(ids, lambda after, limit: storage.outbox.scan(Selection(), after, limit), (0, 0),
                    lambda row: (row[1].id, row[0]))  # fmt: skip
        some = tuple(ids[: EDGES[-1]])
        found = storage.outbox.scan(Selection(ids=some), limit=len(some))
        same([one.id for _, one in found], some, f"scan of {len(some)} ids")

    def test_receipts_by_thousands_end_each_delivery(self, storage: Storage) -> None:
        """Whatever comes home at once, each delivery ends by its own receipt, once."""
        ids = self._fill(storage, receipt=True)
        storage.outbox.settle(LANE, Head(ALL, ids[-1]))
        numbers, log = count(1), StoreId(b"log----1")
        for part in parts(ids):
            page = [Outcome(next(numbers), one, State.PROCESSED) for one in part]
            ended = storage.outbox.receipts(PEER, log, page, page[-1].number)
            same(ended, part, f"what receipts of {len(part)} ended")
        assert storage.outbox.peers()[PEER].awaiting == 0

    def test_what_ends_by_thousands_is_sent_again_and_forgotten(self, storage: Storage, bench: Bench) -> None:
        """Sweeping, redriving and wiping mean each delivery, however many there are."""
        ids = send(storage.outbox, EDGES[-1])
        bench.clock.advance(LIFE + 1)
        same(self._all_swept(storage), ids, "what sweep ended")
        assert storage.outbox.redrive(Selection()) == len(ids), "redrive of so many"
        batch = taken(storage.outbox, count=len(ids), size=PLENTY)
        same([entry.id for entry in batch.entries], ids, "what is to be sent after a redrive")
        bench.clock.advance(LIFE + 1)
        storage.outbox.clear_in_flight(LANE)
        same(self._all_swept(storage), ids, "what sweep ended the second time")
        assert storage.outbox.wipe(Selection()) == len(ids), "wipe of so many"
        assert storage.outbox.scan(Selection()) == []

    def _all_swept(self, storage: Storage) -> list[MessageId]:
        """What ends by sweeps: each does bounded work, so there are several."""
        ended: list[MessageId] = []
        for _ in range(EDGES[-1]):
            more, _due = storage.outbox.sweep(LIFE)
            if not more:
                break
            ended += more
        return ended

    # ── the inbox ────────────────────────────────────────────────────────────────────────────────

    def _arrive(self, storage: Storage, **fields: Any) -> list[MessageId]:
        """A channel, by arrivals of all sizes."""
        source = Source(storage.inbox)
        ids = [one for size in EDGES for one in source.fill(size, **fields)]
        assert storage.inbox.heads(SENDER) == {source.lane: Head(ALL, ids[-1])}
        return ids

    def test_batches_of_any_size_are_accepted_claimed_and_settled(self, storage: Storage) -> None:
        """Each message of a channel is leased once and in its place, and its lease ends, whatever comes at once."""
        ids = self._arrive(storage)
        worker = Worker(storage.inbox)
        for number, part in enumerate(parts(ids)):
            claims = worker.claim(len(part))
            same([claim.id for claim in claims], part, f"claim of {len(part)}")
            if number % 2:
                done = storage.inbox.acknowledge(claims)
            else:
                done = storage.inbox.settle([Ack(claim) for claim in claims])
            same([c.id for c, well in zip(claims, done, strict=True) if well], part, f"acknowledged of {len(part)}")
        assert worker.claim() == []
        assert storage.inbox.counts()[CHANNEL]["processed"] == ALL, "messages that count as processed"

    def test_pages_of_messages_of_any_size(self, storage: Storage) -> None:
        """`scan` shows each message once and in its place, whatever the size of a page; ids by thousands are found."""
        ids = self._arrive(storage)
        self._pages(ids, lambda after, limit: storage.inbox.scan(Selection(), after, limit), 0,
                    lambda row: (row.id, row.number))  # fmt: skip
        some = tuple(ids[: EDGES[-1]])
        found = storage.inbox.scan(Selection(ids=some), limit=len(some))
        same([one.id for one in found], some, f"scan of {len(some)} ids")

    def test_outcomes_by_thousands_go_home(self, storage: Storage) -> None:
        """Each end of a message is in its sender's log once, with the number that follows, whatever the page."""
        ids = self._arrive(storage, receipt=True)
        worker = Worker(storage.inbox)
        for part in parts(ids):
            claims = worker.claim(len(part))
            storage.inbox.settle([Ack(one) if at % 3 else Bury(one, "no") for at, one in enumerate(claims)])
        log, after = storage.inbox.store_id, 0
        for part in parts(ids):
            _, rows = storage.inbox.outcomes(SENDER, log, after, len(part), PLENTY)
            same([row.id for row in rows], part, f"outcomes of {len(part)}")
            assert [row.number for row in rows] == list(range(after + 1, after + len(part) + 1)), "their numbers"
            after += len(part)
        assert storage.inbox.outcomes(SENDER, log, after, 10) == (log, [])

    def test_leases_by_thousands_are_given_back(self, storage: Storage, bench: Bench) -> None:
        """A consumer that leaves or dies gives back each message, however many it had."""
        storage.inbox.put(CHANNEL, 5, SENDER, jobs := [job() for _ in range(EDGES[-1])])
        ids = [one.id for one in jobs]
        for attempt, end in ((1, storage.inbox.retire), (1, lambda name: bench.kill(storage, name))):
            worker = Worker(storage.inbox)
            claims = worker.claim(len(ids))
            same([claim.id for claim in claims], ids, "claim of so many")
            assert {claim.attempt for claim in claims} == {attempt}
            end(worker.name)
        storage.inbox.reap({})
        claims = Worker(storage.inbox).claim(len(ids))
        same([claim.id for claim in claims], ids, "what a reap gave back")
        assert {claim.attempt for claim in claims} == {2}

    def test_what_waits_by_thousands_is_kicked_expires_and_is_forgotten(self, storage: Storage, bench: Bench) -> None:
        """Kicking, sweeping and wiping mean each message, however many there are; delayed ones become due together."""
        many = EDGES[-1]
        mortal = frozenset(range(many, 2 * many, 2))
        jobs = [job(due_in=100.0, expires_in=500.0 if at in mortal else None) for at in range(2 * many)]
        storage.inbox.put(CHANNEL, 5, SENDER, jobs)
        ids = [one.id for one in jobs]
        assert storage.inbox.kick(Selection(ids=tuple(ids[:many]))) == many, "kick of so many ids"
        worker = Worker(storage.inbox)
        claims = worker.claim(2 * many)
        same([claim.id for claim in claims], ids[:many], "what was kicked")
        storage.inbox.settle([Bury(claim) for claim in claims])
        bench.clock.advance(101)
        claims = []
        while more := worker.claim(2 * many):  # it may take in steps what became due
            claims += more
        same([claim.id for claim in claims], ids[many:], "what became due")
        storage.inbox.retire(worker.name)
        bench.clock.advance(400)
        for _ in range(many):
            due = storage.inbox.sweep()
            if due is None or due > bench.clock.now():
                break
        left = [ids[at] for at in range(many, 2 * many) if at not in mortal]
        same([claim.id for claim in Worker(storage.inbox).claim(2 * many)], left, "what had not expired")
        assert storage.inbox.kick(Selection()) == many, "kick of everything that was buried"
        waiting = Worker(storage.inbox).claim(2 * many)
        same([claim.id for claim in waiting], ids[:many], "what was buried and kicked")
        storage.inbox.settle([Bury(claim) for claim in waiting])
        assert storage.inbox.wipe(Selection(states=frozenset({State.BURIED}))) == many, "wipe of so many"

    # ── both ─────────────────────────────────────────────────────────────────────────────────────

    def _pages(self, ids: Sequence[MessageId], page: Callable[[Any, int], list[Any]], start: Any,
               tell: Callable[[Any], tuple[MessageId, Any]]) -> None:  # fmt: skip
        """Go through everything once by pages of all sizes, and once by those of the second tier."""
        after = start
        for part in parts(ids):
            rows = [tell(row) for row in page(after, len(part))]
            same([identity for identity, _ in rows], part, f"a page of {len(part)}")
            after = rows[-1][1]
        assert page(after, 10) == []
        seen: list[MessageId] = []
        after = start
        while rows := [tell(row) for row in page(after, PAGE)]:
            seen += [identity for identity, _ in rows]
            after = rows[-1][1]
        same(seen, ids, f"pages of {PAGE}")

    @pytest.mark.parametrize("again", [False, True])
    def test_envelopes_of_any_size_stay_as_they_are(self, storage: Storage, bench: Bench, again: bool) -> None:
        """Byte for byte, through both halves, also after the store was opened anew."""
        bodies = [payload(size, size)[:size] for size in ENVELOPES]
        messages = [outgoing(body) for body in bodies]
        storage.outbox.append(messages)
        jobs = [job(body) for body in bodies]
        Source(storage.inbox).push(*jobs)
        if again:
            storage = bench.reopen(storage)
        worker, claims = Worker(storage.inbox), list[Claim]()
        while more := worker.claim():
            claims += more
        kept = [storage.outbox.envelope(message.id) for message in messages]
        entries = list[Entry]()
        while (batch := storage.outbox.take(LANE, 100, PLENTY)) is not None:
            entries += batch.entries  # it may end a batch earlier than it must
            storage.outbox.settle(LANE, batch.upto)
        same([entry.id for entry in entries], [one.id for one in messages], "take of large ones")
        same([claim.id for claim in claims], [one.id for one in jobs], "claim of large ones")
        for at, body in enumerate(bodies):
            for what, got in {
                "take": entries[at].envelope, "the outbox's envelope": kept[at],
                "claim": claims[at].envelope, "the inbox's envelope": storage.inbox.envelope(jobs[at].id),
            }.items():  # fmt: skip
                wrong = difference(got or b"", body)
                assert not wrong, f"{what} gave {wrong}"


__all__ = ["StorageBulkContract"]
