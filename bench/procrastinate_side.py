"""One message at a time beside procrastinate, on one PostgreSQL server: put, then take with an empty handler.

Run by itself: ``PYTHONPATH=. .venv/bin/python bench/procrastinate_side.py`` (``pip install procrastinate`` before).
Both commit each put by itself; procrastinate deletes jobs when they are done, as dropr does. Three rounds, in turns.
"""

import asyncio
import importlib
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

import dropr_core as dropr
from dropr_core.demo.postgres import Server

OURS, THEIRS, ROUNDS = 1500, 500, 3


def ours(file: Path) -> tuple[float, float]:
    """Seconds for a put, and for taking one."""
    with dropr.open(file) as node:
        started = time.perf_counter()
        for _ in range(OURS):
            node.put(b"x" * 100, channel="jobs")
        put, started = time.perf_counter() - started, time.perf_counter()
        taken = sum(1 for message in node.receive("jobs", wait=0) if message.channel)
        return put / OURS, (time.perf_counter() - started) / taken


async def theirs(app: Any, task: Any) -> tuple[float, float]:
    """The same of procrastinate."""
    async with app.open_async():
        started = time.perf_counter()
        for number in range(THEIRS):
            await task.defer_async(x=number)
        put, started = time.perf_counter() - started, time.perf_counter()
        await app.run_worker_async(wait=False, install_signal_handlers=False, delete_jobs="always")
        return put / THEIRS, (time.perf_counter() - started) / THEIRS


async def prepare(app: Any) -> None:
    """Make procrastinate's tables."""
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def work(x: int) -> None:
    """An empty task."""


def main() -> None:
    """Print a line for each round."""
    procrastinate = importlib.import_module("procrastinate")
    server = Server()
    try:
        with tempfile.TemporaryDirectory() as home:
            file = Path(home) / "node.yaml"
            storage = {"use": "postgres", "url": server.url(), "schema": "bench"}
            config = {"node": "bench", "data": "./data", "storage": storage, "limits": {"min_free": 0}}
            file.write_text(yaml.safe_dump(config), encoding="utf-8")
            app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=server.url()))
            task = app.task(name="work", queue="jobs")(work)
            asyncio.run(prepare(app))
            for _ in range(ROUNDS):
                mine, other = ours(file), asyncio.run(theirs(app, task))
                for name, (put, take) in (("dropr", mine), ("procrastinate", other)):
                    print(f"{name}: put {1 / put:,.0f}, take {1 / take:,.0f}, both {1 / (put + take):,.0f} a second")
                print(f"ratio {sum(other) / sum(mine):.2f}", flush=True)
    finally:
        server.close()


if __name__ == "__main__":
    main()
