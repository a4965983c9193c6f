"""P16 and P17: a node with nothing to do, and `dropr send` from the shell."""

import subprocess
import sys
import time
from pathlib import Path

import dropr_core as dropr
from bench.backlog import Peer, send_many
from bench.figure import Figure, Run, at_most
from bench.nodes import Pair, node_file
from dropr_core.bench.samples import in_turns
from dropr_core.bench.usage import threads_of

ROLES = ("daemon", "server", "worker")
HANDLED = {"channels": {"orders": {}, "work": {"handler": "python:builtins:repr"}}}


def measure_idle(run: Run) -> None:
    seconds = run.seconds(2.0)
    for storage in run.storages:
        with Pair(run.directory("pair"), storage=storage, store=HANDLED) as pair:
            ready = {}
            for role in ROLES:
                started = time.perf_counter()
                pair.start(role, pair.store)
                ready[role] = time.perf_counter() - started
            time.sleep(1)
            shares: list[float] = []
            for _ in range(run.rounds):
                before = [threads_of(one.pid) for one in pair.processes.values()]
                time.sleep(seconds)
                after = [threads_of(one.pid) for one in pair.processes.values()]
                shares.append((sum(after) - sum(before)) / seconds * 100)
            run.read(f"{storage}, all three", "% of a core", shares, at_most(0.2))
            for role, process in zip(ROLES, pair.processes.values(), strict=True):
                run.read(f"{storage}, memory of the {role}", "MB", process.memory / 1e6, at_most(60))
                run.read(f"{storage}, {role} up after", "s", ready[role], at_most(0.7))


def measure_start(run: Run) -> None:
    """Start to ready with 1,000,000 waiting in each half, five times each."""
    count = run.count(1_000_000, 5000)
    for storage in run.storages:
        with Pair(run.directory("pair"), storage=storage, store={**HANDLED}) as pair:
            with dropr.open(pair.store) as there:
                Peer(there).push(count)
            with dropr.open(pair.shop) as here:
                send_many(here, count)
            for role, file in (("daemon", pair.shop), ("server", pair.store), ("worker", pair.store)):
                times = []
                for _ in range(run.rounds):
                    started = time.perf_counter()
                    process = pair.start(role, file)
                    times.append(time.perf_counter() - started)
                    process.stop()
                run.read(f"{storage}, {role} up, {count:,} waiting", "s", times, at_most(1.0))


def measure_shell(run: Run) -> None:
    rounds = run.rounds * 2
    for storage in run.storages:
        file = node_file(run, storage)
        dropr.open(file).close()
        words = [str(Path(sys.executable).parent / "dropr"), "send", "-c", str(file), "--channel", "orders", "hello"]
        bare = [sys.executable, "-c", "pass"]
        times, base = in_turns([lambda: timed(words, run.home), lambda: timed(bare, run.home)], rounds)  # noqa: B023
        run.read(storage, "s", times, at_most(0.25, 0.1), raw=base, raw_label="s python -c pass")


def timed(words: list[str], where: Path) -> float:
    """Seconds from the start of a program to its end."""
    started = time.perf_counter()
    subprocess.run(words, check=True, cwd=where, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


FIGURES = (
    Figure("P16", "idle", "an idle node, daemon + server + worker: CPU; memory of each; start to ready",
           "≤ 0.2 %; ≤ 60 MB; ≤ 0.7 s", "", "Three processes of a node without traffic, watched for two seconds in "
           "each round; ready is when the log says so.", measure_idle, 25),
    Figure("P16-waiting", "start", "start to ready with 1,000,000 waiting in each half", "≤ 1 s", "",
           "Both halves are filled, then each process is started and stopped, five times.", measure_start, 42),
    Figure("P17", "shell", "`dropr send` from the shell, process start included", "≤ 0.25 s", "0.1 s",
           "`dropr send -c FILE --channel orders hello`, in turns with `python -c pass`.", measure_shell, 8),
)  # fmt: skip
