"""A backlog in the storage of files: how long opening takes, and how much memory, with many messages waiting.

    .venv/bin/python bench/fs_backlog.py 1000000            both halves, a million messages of 100 bytes each
    .venv/bin/python bench/fs_backlog.py 10000000 --keep DIR

Owns measuring only. Each figure is taken in a process of its own.
"""

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from dropr_storage_fs import Options, dropr_storage

from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Ack, Arrival, Job, NewMessage, Storage
from dropr_core.model.names import START, Head, IdMaker, Lane, MessageId, SourceLane, StoreId
from dropr_core.system.clock import SystemClock

LANE = Lane("there", "orders", 5)
SOURCE = SourceLane("shop", StoreId(b"store--1"), "orders", 5)
BATCH = 5000


def open_store(home: Path) -> Storage:
    context = Context(node="bench", data=home, clock=SystemClock(), log=logging.getLogger("bench"), min_free=0)
    return dropr_storage(Options(reserve=0), context)


def fill(home: Path, count: int) -> None:
    storage, make, body = open_store(home), IdMaker(), os.urandom(100)
    head = START
    for first in range(1, count + 1, BATCH):
        storage.outbox.append([NewMessage(make(), "orders", 5, ("there",), body) for _ in range(BATCH)])
        jobs = [Job(make(), body, first + index) for index in range(BATCH)]
        upto = Head(jobs[-1].sequence, MessageId(jobs[-1].id))
        assert storage.inbox.accept([Arrival(SOURCE, head, upto, jobs)])[0].taken
        head = upto
    storage.close()


def use(home: Path) -> None:
    """Open, look, ship, consume; the figures as one line of JSON."""
    started = time.perf_counter()
    storage = open_store(home)
    opened = time.perf_counter() - started
    lanes = storage.outbox.lanes()
    looked = time.perf_counter() - started
    worker = storage.inbox.register()
    for _ in range(20):
        batch = storage.outbox.take(LANE, 1000, 1 << 20)
        assert batch is not None
        storage.outbox.settle(LANE, batch.upto)
        claims = storage.inbox.claim(["orders"], 1000, worker)
        assert all(storage.inbox.settle([Ack(claim) for claim in claims]))
    storage.outbox.sweep(1e9)
    storage.inbox.sweep()
    used = time.perf_counter() - started - looked
    memory = psutil.Process().memory_info().rss
    started = time.perf_counter()
    assert storage.outbox.status(MessageId(bytes(16))) == []
    unknown = time.perf_counter() - started
    print(json.dumps({"depth": lanes[0].depth, "open_s": opened, "first_look_s": looked, "20_rounds_s": used,
                      "memory_mib": memory / 2**20, "unknown_id_s": unknown}))  # fmt: skip
    os._exit(0)  # a process that is killed: the next one has to recover


def main() -> None:
    words = argparse.ArgumentParser(description="Measure a backlog in the storage of files.")
    words.add_argument("count", type=int, nargs="?", default=1_000_000)
    words.add_argument("--keep", type=Path, help="a directory to fill once and use again")
    words.add_argument("--use", type=Path, help=argparse.SUPPRESS)
    asked = words.parse_args()
    if asked.use is not None:
        use(asked.use)
    home = asked.keep or Path(tempfile.mkdtemp(prefix="dropr-backlog-"))
    try:
        if not (home / "store-fs.json").exists():
            home.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            fill(home, asked.count)
            print(f"filled both halves with {asked.count} in {time.perf_counter() - started:.1f} s")
        for what in ("after a clean close", "after a kill"):
            command = [sys.executable, __file__, "--use", str(home)]
            said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(f"{what:20} " + ", ".join(f"{name} {value:.2f}" for name, value in said.items()))
    finally:
        if asked.keep is None:
            shutil.rmtree(home)


if __name__ == "__main__":
    main()
