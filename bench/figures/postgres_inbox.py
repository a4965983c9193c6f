"""the inbox in PostgreSQL beside a queue that somebody writes by hand, and beside itself when much waits."""

import importlib
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.figure import Figure, Run, at_least, at_most
from dropr_core.bench.samples import Samples
from dropr_core.contracts.context import Context
from dropr_core.contracts.inbox import Inbox
from dropr_core.contracts.records import Arrival, PlainJobs
from dropr_core.contracts.storage import Storage
from dropr_core.model.names import START, Head, MessageId, SourceLane, StoreId
from dropr_core.system.clock import SystemClock

BODY = b"x" * 100
FEW, MANY, MOST = 10_000, 1_000_000, 10_000_000
TABLE = (
    "CREATE TABLE by_hand(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, vt timestamptz NOT NULL DEFAULT now(), "
    "n integer NOT NULL DEFAULT 0, body bytea NOT NULL)"
)
INSERT = "INSERT INTO by_hand(body) SELECT unnest(%b::bytea[])"
CLAIM = (
    "WITH m AS (SELECT id FROM by_hand WHERE vt <= clock_timestamp() ORDER BY id LIMIT %b::bigint "
    "FOR UPDATE SKIP LOCKED) "
    "UPDATE by_hand q SET vt = clock_timestamp() + interval '30 s', n = n + 1 FROM m WHERE q.id = m.id "
    "RETURNING q.id, q.n, q.body"
)
DELETE = "DELETE FROM by_hand WHERE id = ANY(%b::bigint[])"
FILL = (
    "INSERT INTO in_job(place, arrived, sender, size, id, envelope) "
    "SELECT (q.queue::bigint << 44) + g, 0, s.sender, 100, int8send(g) || int8send(-g), %b "
    "FROM in_queue q, in_sender s, generate_series(%b::bigint, %b::bigint) g"
)


class Feeder:
    """Pushes one lane."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox, self.lane, self.head = inbox, SourceLane("shop", StoreId(b"bench---"), "orders", 5), START

    def push(self, count: int) -> None:
        """So many plain messages in one arrival."""
        ids = [(self.head.sequence + at).to_bytes(16, "big") for at in range(1, count + 1)]
        upto = Head(self.head.sequence + count, MessageId(ids[-1]))
        (word,) = self.inbox.accept([Arrival(self.lane, self.head, upto, PlainJobs(list(ids), [BODY] * count))])
        assert word.taken
        self.head = upto


def rig(base: Path) -> Any:
    """A server of our own; the tests' way to start one."""
    tests = str(Path(__file__).resolve().parents[2] / "tests")
    sys.path.append(tests)
    try:
        module = importlib.import_module("postgres_rig")
    finally:
        sys.path.remove(tests)
    return module.PostgresServer(base=base, shared_buffers="256MB", max_wal_size="4GB")


def opened(run: Run, server: Any, schema: str) -> Storage:
    """A store in a schema of its own."""
    from dropr_storage_postgres import Options, dropr_storage

    context = Context("store", run.directory(schema), SystemClock(), logging.getLogger("bench"))
    return dropr_storage(Options(url=server.url(), schema=schema), context)


def ours(storage: Storage, size: int) -> Callable[[], int]:
    """One batch through the inbox: pushed, claimed, acknowledged."""
    feeder, consumer = Feeder(storage.inbox), storage.inbox.register("bench")

    def work() -> int:
        feeder.push(size)
        claims = storage.inbox.claim(["orders"], size, consumer)
        assert storage.inbox.acknowledge(claims) == [True] * size
        return size

    return work


def by_hand(connection: Any, size: int) -> Callable[[], int]:
    """One batch through a table, as queues in PostgreSQL are written: insert, SKIP LOCKED, delete."""
    bodies = [BODY] * size

    def work() -> int:
        connection.execute(INSERT, (bodies,))
        rows = connection.execute(CLAIM, (size,)).fetchall()
        assert len(rows) == size
        connection.execute(DELETE, ([row[0] for row in rows],))
        return size

    return work


def rate(work: Callable[[], int], seconds: float) -> float:
    """Messages a second."""
    begun, done = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < seconds or not done:
        done += work()
    return done / spent


def measure(run: Run) -> None:
    """Batches and one by one, ours and by hand in turn."""
    for directory in (run.home.parent, run.home):
        directory.chmod(0o711)  # the server runs as another user
    server = rig(run.directory("server"))
    try:
        for size, least in ((1000, 2.0), (100, 2.0), (1, 1.0)):
            storage = opened(run, server, f"batch_{size}")
            try:
                with server.connect() as connection:
                    connection.prepare_threshold = 0
                    connection.execute("DROP TABLE IF EXISTS by_hand", prepare=False)
                    connection.execute(TABLE, prepare=False)
                    connection.execute("CREATE INDEX ON by_hand(vt)", prepare=False)
                    works = (ours(storage, size), by_hand(connection, size))
                    found: tuple[list[float], list[float]] = ([], [])
                    for round_ in range(run.rounds + 1):
                        for rates, work in zip(found, works, strict=True):
                            now = rate(work, run.seconds(1.0))
                            if round_:
                                rates.append(now)
            finally:
                storage.close()
            raw = Samples(found[1])
            run.read(f"in batches of {size}", "msg/s", found[0], at_least(raw.median * least, raw.median), raw=raw,
                     raw_label="by hand")  # fmt: skip
        waits(run, server)
    finally:
        server.remove()


def waits(run: Run, server: Any) -> None:
    """How long a claim takes where so many wait."""
    storage = opened(run, server, "waits")
    try:
        there, made, first = 0, 1_000_000, 0.0
        ours(storage, 100)()
        consumer = storage.inbox.register("bench")
        for wanted in (run.count(one, 2000) for one in (FEW, MANY, *([MOST] if run.big else []))):
            with server.connect() as connection:
                connection.execute("SET search_path = waits")
                while there < wanted:
                    more = min(500_000, wanted - there)
                    connection.execute(FILL, (BODY, made, made + more - 1))
                    there, made = there + more, made + more
            times = []
            for _ in range(run.rounds * 5):
                begun = time.perf_counter()
                claims = storage.inbox.claim(["orders"], 100, consumer)
                times.append((time.perf_counter() - begun) * 1000)
                assert storage.inbox.acknowledge(claims) == [True] * 100
            there -= len(times) * 100
            median = Samples(times).median
            run.read(f"claim of 100 of {wanted:,}", "ms", times, at_most(first * 1.5, first) if first else None)
            first = first or median
    finally:
        storage.close()


FIGURES = (
    Figure("postgres-inbox", "postgres-inbox", "the inbox in PostgreSQL beside a queue by hand, and beside a backlog",
           "≥ 2 × by hand in batches; a claim's time flat to ten million", "as fast",
           "One process, one consumer, one server of its own. By hand: a table, INSERT, UPDATE … FOR UPDATE SKIP "
           "LOCKED, DELETE, each statement a commit on the disk; in the inbox the arrival is, the rest within 20 ms. "
           "In turn, in one run. With --big ten million wait.", measure, 120, only_if_named=True),
)  # fmt: skip
