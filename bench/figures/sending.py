"""P1 and P4: sending, durable, against the raw commits or appends of the same run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import apsw

import dropr_core as dropr
from bench.figure import Figure, Run, Series, at_least
from bench.nodes import BODY, node_file
from dropr_core.bench import raw
from dropr_core.bench.samples import Samples, in_turns, rate_of

PIECE = 0.3
"""Seconds of one measurement."""


@contextmanager
def raw_limit(run: Run, storage: str, batch: int = 1) -> Iterator[raw.Step]:
    """What the disk does without us: SQLite commits by the library that the storage uses, or appends."""
    file = run.directory("raw") / "raw"
    if storage == "fs":
        with raw.appends(file, BODY, batch) as step:
            yield step
        return
    database = apsw.Connection(str(file))
    try:
        for words in (*raw.PRAGMAS, raw.SCHEMA):
            database.execute(words).fetchall()
        yield raw.commit_step(database.execute, BODY, batch)
    finally:
        database.close()


def raw_name(storage: str, batch: int = 1) -> str:
    """What the raw limit is called."""
    one = "" if batch == 1 else f" of {batch}"
    return f"appends{one} + fdatasync /s" if storage == "fs" else f"commits{one} /s"


def send_one(node: dropr.Node) -> Callable[[], int]:
    """A step that sends one message."""

    def step() -> int:
        node.send(BODY, channel="orders")
        return 1

    return step


def send_batch(node: dropr.Node, size: int, body: bytes = BODY) -> Callable[[], int]:
    """A step that sends a batch."""

    def step() -> int:
        with node.batch() as batch:
            for _ in range(size):
                batch.send(body, channel="orders")
        return size

    return step


def measure_one(run: Run) -> None:
    piece = run.seconds(PIECE)
    for storage in run.storages:
        with raw_limit(run, storage) as raw_step, dropr.open(node_file(run, storage)) as node:
            step = send_one(node)
            base, ours = in_turns([lambda: rate_of(raw_step, piece), lambda: rate_of(step, piece)], run.rounds * 2)  # noqa: B023
        run.read(f"{storage}, ÷ raw", "×", ours.over(base), at_least(0.7, 0.9))
        run.read(storage, "/s", ours, raw=base, raw_label=raw_name(storage))


def measure_batches(run: Run) -> None:
    piece = run.seconds(PIECE)
    for storage in run.storages:
        with raw_limit(run, storage, 1000) as raw_step, dropr.open(node_file(run, storage)) as node:
            step = send_batch(node, 1000)
            base, ours = in_turns([lambda: rate_of(raw_step, piece), lambda: rate_of(step, piece)], run.rounds)  # noqa: B023
        goal = at_least(150_000 if storage == "sqlite" else 250_000, base.median / 2)
        run.read(storage, "/s", ours, goal, raw=base, raw_label=raw_name(storage, 1000))


def measure_shapes(run: Run) -> None:
    """Batch sizes and payloads, for the pictures."""
    piece = run.seconds(0.15)
    shapes = [("batch-size", size, 200) for size in (1, 10, 100, 1000, 10_000)]
    shapes += [("payload", 100, payload) for payload in (10, 100, 1000, 10_000, 60_000)]
    for storage in run.storages:
        points: dict[str, list[tuple[float, float]]] = {"batch-size": [], "payload": []}
        with dropr.open(node_file(run, storage)) as node:
            for picture, size, payload in shapes:
                step = send_batch(node, size, bytes(payload))
                (rates,) = in_turns([lambda: rate_of(step, piece)], 3 if run.scale < 1 else run.rounds)  # noqa: B023
                points[picture].append((size if picture == "batch-size" else payload, rates.median))
        for picture, axis in (("batch-size", "messages in a batch"), ("payload", "bytes of a message, 100 in a batch")):
            title = f"send, durable: throughput against {picture.replace('-', ' ')}"
            run.draw(Series(f"send-{picture}", title, axis, "messages a second", storage, points[picture]))
        run.read(f"{storage}, batches of 10,000", "/s", Samples([points["batch-size"][-1][1]]))


FIGURES = (
    Figure("P1", "send", "`send` one by one, durable, one thread, ÷ raw commits of the same storage", "≥ 0.7", "≥ 0.9",
           "200 bytes, in turns of 0.3 s: `raw.commits` (SQLite, WAL, synchronous FULL) or `raw.appends` (one write, "
           "fdatasync), then `node.send`; the ratio is that of neighbours.", measure_one, 13),
    Figure("P4", "send-batches", "`send` in batches of 1000", "≥ 150,000 /s sqlite, ≥ 250,000 fs", "half of raw",
           "As P1, but 1000 messages to a commit; raw: 1000 rows to a commit, or one write of 1000 bodies.",
           measure_batches, 10),
    Figure("shapes", "shapes", "`send` in batches: throughput against batch size and payload", "", "",
           "As P4; for the pictures.", measure_shapes, 18),
)  # fmt: skip
