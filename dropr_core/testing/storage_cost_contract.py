"""Contract tests of what a storage's calls cost where little waits and where much does.

Owns the rule of contracts/storage.py that the cost of a call does not grow with the backlog: it is counted
(`cost.py`), so that a busy machine changes nothing. Must not know any storage by name.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from dropr_core.contracts.inbox import Inbox
from dropr_core.contracts.outbox import Outbox
from dropr_core.contracts.storage import Ack, Bury, Release, Storage
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import Head, Lane, MessageId, StoreId
from dropr_core.testing.bench import Bench, StorageCase, StorageTests
from dropr_core.testing.builders import CHANNEL, LANE, SENDER, Source, Worker, job, new_id, outgoing
from dropr_core.testing.cost import Counter, cost

FEW, MANY = 60, 2400
"""Rows of each kind. They come in portions of `FEW`: what a call costs may grow with its own batch."""
TIMES = 3
"""How often each call is measured: one may do work that was put off, or have it done by another thread."""
ALLOWED = 1.5, 1500
"""A call may cost that many times as much, and so many instructions or steps more: less than one for each row."""
AWAITING = Lane("awaits", "orders", 5)
LOG = StoreId(b"log----1")
DUE, LONG = "delayed", 1e6


class Backlog:
    """A store in which so much waits, and the next call of each kind."""

    def __init__(self, storage: Storage, many: int) -> None:
        """Fill it: deliveries to send, those that await a receipt, messages to claim, delayed ones, and outcomes."""
        self.storage, self.many, self.ended = storage, many, 0
        self.waiting: list[MessageId] = []
        self.awaited: list[MessageId] = []
        outbox, inbox = storage.outbox, storage.inbox
        self.source, self.worker = Source(inbox), Worker(inbox)
        asked, asking = Source(inbox, "asked"), Worker(inbox, "asked")
        for _ in range(0, many, FEW):
            plain, receipts = [outgoing() for _ in range(FEW)], [self._awaits() for _ in range(FEW)]
            outbox.append([*plain, *receipts])
            self.waiting += [one.id for one in plain]
            self.awaited += [one.id for one in receipts]
            arrivals = [
                self.source.arrival(*(job() for _ in range(FEW))),
                asked.arrival(*(job(receipt=True) for _ in range(FEW))),
            ]
            inbox.accept(arrivals)
            self.source.head, asked.head = (arrival.upto for arrival in arrivals)
            inbox.put(DUE, 5, SENDER, [job(due_in=LONG) for _ in range(FEW)])
        inbox.settle([Ack(claim) for claim in asking.claim(many)])
        outbox.settle(AWAITING, Head(many, self.awaited[-1]))

    @staticmethod
    def _awaits() -> Any:
        return outgoing(channel=AWAITING.channel, peers=(AWAITING.peer,), receipt=True)

    def costs(self, make: Callable[["Backlog"], Callable[[], Any]], work: Counter) -> list[tuple[int, int]]:
        """What a call costs, each time."""
        return [cost(make(self), work) for _ in range(TIMES)]

    def settle(self) -> Callable[[], Any]:
        """One batch that was taken."""
        batch = self.storage.outbox.take(LANE, 5, 1 << 30)
        assert batch is not None
        return lambda: self.storage.outbox.settle(LANE, batch.upto)

    def receipts(self) -> Callable[[], Any]:
        """One that comes home."""
        self.ended += 1
        outcome = Outcome(self.ended, self.awaited[-self.ended], State.PROCESSED)
        return lambda: self.storage.outbox.receipts(AWAITING.peer, LOG, [outcome], outcome.number)

    def accept(self) -> Callable[[], Any]:
        """One that arrives."""
        arrival = self.source.arrival(job())
        self.source.head = arrival.upto
        return lambda: self.storage.inbox.accept([arrival])

    def acknowledge(self) -> Callable[[], Any]:
        """Some messages of one claim."""
        claims = self.worker.claim(2)
        return lambda: self.storage.inbox.acknowledge(claims)

    def holds(self) -> Callable[[], Any]:
        """One lease."""
        claim = self.worker.one()
        return lambda: self.storage.inbox.holds(claim)

    def change(self, kind: Callable[[Any], Any]) -> Callable[[], Any]:
        """One settlement."""
        claim = self.worker.one()
        return lambda: self.storage.inbox.settle([kind(claim)])


CALLS: dict[str, Callable[[Backlog], Callable[[], Any]]] = {
    "outbox.append": lambda b: lambda: b.storage.outbox.append([outgoing()]),
    "outbox.lanes": lambda b: b.storage.outbox.lanes,
    "outbox.take": lambda b: lambda: b.storage.outbox.take(LANE, 5, 1 << 30),
    "outbox.settle": Backlog.settle,
    "outbox.clear_in_flight": lambda b: lambda: b.storage.outbox.clear_in_flight(LANE),
    "outbox.locate": lambda b: lambda: b.storage.outbox.locate(LANE, b.many - 3),
    "outbox.receipts": Backlog.receipts,
    "outbox.peers": lambda b: b.storage.outbox.peers,
    "outbox.status": lambda b: lambda: b.storage.outbox.status(b.waiting[-7]),
    "outbox.envelope": lambda b: lambda: b.storage.outbox.envelope(b.waiting[-7]),
    "outbox.cancel": lambda b: lambda: b.storage.outbox.cancel(b.waiting.pop()),
    "outbox.sweep": lambda b: lambda: b.storage.outbox.sweep(LONG),
    "outbox.counts": lambda b: b.storage.outbox.counts,
    "inbox.heads": lambda b: lambda: b.storage.inbox.heads(SENDER),
    "inbox.accept": Backlog.accept,
    "inbox.put": lambda b: lambda: b.storage.inbox.put(CHANNEL, 5, SENDER, [job()]),
    "inbox.claim": lambda b: lambda: b.worker.claim(2),
    "inbox.acknowledge": Backlog.acknowledge,
    "inbox.settle acknowledged": lambda b: b.change(Ack),
    "inbox.settle kept": lambda b: b.change(lambda claim: Ack(claim, keep=60.0)),
    "inbox.settle released": lambda b: b.change(Release),
    "inbox.settle buried": lambda b: b.change(lambda claim: Bury(claim, "no")),
    "inbox.outcomes": lambda b: lambda: b.storage.inbox.outcomes(SENDER, b.storage.inbox.store_id, 0, 5),
    "inbox.status": lambda b: lambda: b.storage.inbox.status(new_id()),
    "inbox.holds": Backlog.holds,
    "inbox.next_due": lambda b: lambda: b.storage.inbox.next_due([CHANNEL, DUE]),
    "inbox.reap": lambda b: lambda: b.storage.inbox.reap({}),
    "inbox.sweep": lambda b: b.storage.inbox.sweep,
    "inbox.counts": lambda b: b.storage.inbox.counts,
    "inbox.oldest": lambda b: b.storage.inbox.oldest,
    "inbox.flush": lambda b: b.storage.inbox.flush,
}
"""One call of each kind; where it needs something, that is not measured."""
SCANS = {
    "outbox.sweep": Outbox.sweep, "outbox.counts": Outbox.counts, "inbox.next_due": Inbox.next_due,
    "inbox.reap": Inbox.reap, "inbox.sweep": Inbox.sweep, "inbox.counts": Inbox.counts, "inbox.oldest": Inbox.oldest,
}  # fmt: skip
"""What scans by default, and says so: measured where a storage overrides it."""


class StorageCostContract(StorageTests):
    """What a storage's calls may cost."""

    @pytest.mark.timeout(300)
    def test_what_a_call_costs_does_not_grow(self, bench: Bench, storage_case: StorageCase | None) -> None:
        """Where forty times as much waits a call takes as many instructions, and a library as many steps."""
        case = StorageCase(bench.make) if storage_case is None else storage_case  # type: ignore[arg-type]
        assert not (unknown := case.grows - set(CALLS)), f"StorageCase.grows names no calls: {sorted(unknown)}"
        counting = nullcontext(lambda: 0) if case.work is None else case.work()
        with counting as work:
            few, many = Backlog(bench.open("few"), FEW), Backlog(bench.open("many"), MANY)
            wrong = [words for what in CALLS if (words := self._compare(what, few, many, work, case.grows))]
        listed = "".join(f"\n- {words}" for words in wrong)
        assert not wrong, f"calls that cost more where {MANY} wait instead of {FEW}:{listed}"

    @staticmethod
    def _compare(what: str, few: Backlog, many: Backlog, work: Counter, grows: frozenset[str]) -> str:
        """How a call costs too much, in words; empty if it does not, or may."""
        half, _, method = what.partition(" ")[0].partition(".")
        default = SCANS.get(what)
        if what in grows or (default and getattr(type(getattr(few.storage, half)), method) is default):
            return ""
        small = map(max, zip(*few.costs(CALLS[what], work), strict=True))
        large = map(min, zip(*many.costs(CALLS[what], work), strict=True))
        units = ("instructions of Python", "steps of its library")
        more = [f"{b} {unit} instead of {a}" for a, b, unit in zip(small, large, units, strict=True)
                if b > ALLOWED[0] * a + ALLOWED[1]]  # fmt: skip
        return f"{what}: {' and '.join(more)}" if more else ""


__all__ = ["CALLS", "StorageCostContract"]
