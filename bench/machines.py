"""What each machine more costs that uses one PostgreSQL store: `PYTHONPATH=tests .venv/bin/python bench/machines.py`.

A machine is a process with a data directory of its own. One, two and three of them send into one store, and then take
from it, in batches, each as fast as it can. On few cores the rate says little; what a message costs the database's
processes and those of the machines says how far one database goes (docs/scale.md). Takes about two minutes.
"""

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dropr_storage_postgres import Options, dropr_storage
from postgres_rig import PostgresServer

from dropr_core.contracts.context import Context
from dropr_core.system.clock import SystemClock
from dropr_core.testing.builders import SENDER, job, make_context, outgoing

SECONDS, BATCH, EACH = 5.0, 100, 20_000
CHANNEL = "orders"
TICK = os.sysconf("SC_CLK_TCK")


def machine(url: str, directory: Path, line: Connection) -> None:
    """One machine: what it is told to do, and what that cost it."""
    directory.mkdir(mode=0o700, exist_ok=True)
    context: Context = make_context(directory, SystemClock())
    storage = dropr_storage(Options(url=url, schema="dropr_bench"), context)
    consumer = storage.inbox.consumers.register("bench")
    line.send("ready")
    while (order := line.recv()) != "end":
        began, spent, count = time.monotonic(), time.process_time(), 0
        if order == "send":
            while time.monotonic() - began < SECONDS:
                storage.outbox.append([outgoing(bytes(200)) for _ in range(BATCH)])
                count += BATCH
        elif order == "fill":
            for _ in range(EACH // 1000):
                storage.inbox.put(CHANNEL, 5, SENDER, [job(bytes(200)) for _ in range(1000)])
        else:
            while claims := storage.inbox.claim([CHANNEL], BATCH, consumer):
                count += sum(storage.inbox.acknowledge(claims, 0.0))
        line.send((count, time.monotonic() - began, time.process_time() - spent))
    storage.inbox.retire(consumer)
    storage.close()


def processor_of(server: PostgresServer) -> float:
    """Processor seconds that the server's living processes have used."""
    used, process = 0, server._process  # noqa: SLF001 - the rig keeps it
    assert process is not None
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == process.pid:  # its children
                used += int(fields[11]) + int(fields[12])
    return used / TICK


def measure(server: PostgresServer, number: int, home: Path) -> None:
    """The figures of so many machines."""
    spawn: Any = multiprocessing.get_context("spawn")
    url, lines, processes = server.url(server.database()), [], []
    for index in range(number):
        mine, theirs = spawn.Pipe()
        processes.append(spawn.Process(target=machine, args=(url, home / f"{number}-{index}", theirs)))
        processes[-1].start()
        mine.recv()
        lines.append(mine)
    for order in ("send", "fill", "take"):
        before = processor_of(server)
        for line in lines:
            line.send(order)
        results = [line.recv() for line in lines]
        count = sum(one[0] for one in results)
        if count:
            database, own = (processor_of(server) - before) / count, sum(one[2] for one in results) / count
            rate = sum(one[0] / one[1] for one in results)
            sys.stdout.write(
                f"{number} machines {order}: {rate:8,.0f} a second; processor a message: database "
                f"{database * 1e6:5.1f} µs, machine {own * 1e6:5.1f} µs\n"
            )
            sys.stdout.flush()
    for line in lines:
        line.send("end")
    for process in processes:
        process.join(60)


def main() -> None:
    """One, two and three machines."""
    home = Path(tempfile.mkdtemp(prefix="dropr-machines-"))
    server = PostgresServer(shared_buffers="256MB", max_wal_size="1GB")
    try:
        for number in (1, 2, 3):
            measure(server, number, home)
    finally:
        server.remove()
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
