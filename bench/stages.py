"""Where the time of one message goes: from `send` through an idle system to the consumer's hands, stage by stage.

    PYTHONPATH=. .venv/bin/python bench/stages.py [zmq]           sqlite; docs/performance.md has the budget

Owns the places at which the time is noted: methods of dropr that each message passes once, wrapped in the processes of
both nodes. All read the clock of the machine. On a busy machine look at the lower quartile: it is what the code and
the disk take, the median is what others leave.
"""

import atexit
import bisect
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dropr_core as dropr
from bench.figures.waiting import times_of
from bench.nodes import Pair, Process

COUNT = 300
Events = list[tuple[float, str]]

STAGES = (
    ("sender: compose", "send<", "append<"),
    ("sender: commit", "append<", "wake<"),
    ("daemon: wake-up", "wake<", "sleep>"),
    ("daemon: what waits, and for whom", "sleep>", "take<"),
    ("daemon: read it, mark it as under way", "take<", "take>"),
    ("daemon: pack and sign", "take>", "submit<"),
    ("transport: to the wire, to the server", "submit<", "data<"),
    ("server: transport, admission", "data<", "answer<"),
    ("server: verify, decode", "answer<", "accept<"),
    ("server: commit", "accept<", "tell<"),
    ("consumer: wake-up", "tell<", "wait>"),
    ("consumer: claim", "wait>", "claim>"),
    ("all of it", "send<", "claim>"),
)
"""Stage, where it begins, where it ends: before (<) and after (>) a call."""

BESIDE = (
    ("beside them: until `send` returned", "send<", "send>"),
    ("beside them: until the server had stored it", "send<", "accept>"),
)
"""What goes on while others are at work already."""
AFTER = {"sleep>": "wake<", "take<": "sleep>", "tell<": "accept<", "wait>": "tell<", "claim>": "tell<"}
"""Places that count only behind another one: before it they belong to the last message."""


def note(events: Events, owner: type, method: str, label: str) -> None:
    """Have each call of a method noted."""
    original: Callable[..., Any] = getattr(owner, method)

    def noted(*arguments: Any, **named: Any) -> Any:
        events.append((time.perf_counter(), label + "<"))
        try:
            return original(*arguments, **named)
        finally:
            events.append((time.perf_counter(), label + ">"))

    setattr(owner, method, noted)


def note_role(events: Events, role: str) -> None:
    """The places that a process of one kind passes."""
    from dropr_storage_sqlite.inbox.inbox import SqliteInbox
    from dropr_storage_sqlite.outbox.outbox import SqliteOutbox

    from dropr_core.system.notifier import Notifier

    if role == "daemon":
        from dropr_transport_curl.client import Client
        from dropr_transport_zmq.engine import Engine

        from dropr_core.processes.mainloop import MainLoop

        note(events, MainLoop, "sleep", "sleep")
        note(events, SqliteOutbox, "take", "take")
        note(events, Client, "submit", "submit")
        note(events, Engine, "post", "submit")
    elif role == "server":
        from dropr_transport_curl.guard import GuardedProtocol
        from dropr_transport_zmq.answering import Answering

        from dropr_core.serving.dispatcher import Dispatcher

        note(events, GuardedProtocol, "data_received", "data")
        note(events, Answering, "read", "data")
        note(events, Dispatcher, "answer", "answer")
        note(events, SqliteInbox, "accept_telling", "accept")
        note(events, Notifier, "notify", "tell")
    else:
        from dropr_core.api.consumer import Consumer
        from dropr_core.api.node import Node
        from dropr_core.system.notifier import Subscription

        note(events, Node, "send", "send")
        for method in ("append", "append_telling"):
            note(events, SqliteOutbox, method, "append")
        note(events, Notifier, "notify", "wake")
        note(events, Subscription, "wait", "wait")
        note(events, Consumer, "claim", "claim")


def run_role(role: str, config: str, out: str) -> None:
    """A daemon or a server that leaves what it noted in a file."""
    events: Events = []
    note_role(events, role)
    atexit.register(lambda: Path(out).write_text(json.dumps(events)))
    sys.argv = ["dropr", role, "-c", config]
    from dropr_core.cli import main as dropr_main

    dropr_main()


def durations(events: Events, sends: list[float]) -> dict[str, list[float]]:
    """Milliseconds of each stage for each message that passed all places in their order."""
    found: dict[str, list[float]] = {name: [] for name, _, _ in (*STAGES, *BESIDE)}
    times = [at for at, _ in events]
    for begin, end in zip(sends, [*sends[1:], float("inf")], strict=True):
        places: dict[str, float] = {}
        for at, label in events[bisect.bisect_left(times, begin) : bisect.bisect_left(times, end)]:
            if label not in places and AFTER.get(label, label) in {label, *places}:
                places[label] = at
        if all(first in places and last in places for _, first, last in (*STAGES, *BESIDE)):
            for name, first, last in (*STAGES, *BESIDE):
                found[name].append(max(0.0, places[last] - places[first]) * 1000)
    return found


def main() -> None:
    if sys.argv[1:2] == ["role"]:
        run_role(*sys.argv[2:5])
        return
    mine: Events = []
    note_role(mine, "programs")
    with tempfile.TemporaryDirectory() as home:
        pair = Pair(Path(home), storage="sqlite", transport=(sys.argv[1:2] or ["curl"])[0])
        outs = {role: Path(home, f"{role}.json") for role in ("server", "daemon")}
        processes = [
            Process(role, [__file__, "role", role, str(file), str(outs[role])], Path(home, f"{role}.log"))
            for role, file in (("server", pair.store), ("daemon", pair.shop))
        ]
        try:
            for process, word in zip(processes, ("listens on", "daemon of"), strict=True):
                process.await_ready(word)
            with dropr.open(pair.store) as there, dropr.open(pair.shop) as here:
                times_of(here, there, 20)
                mine.clear()
                times_of(here, there, COUNT)
        finally:
            for process in processes:
                process.stop()
        events = mine + [(at, label) for out in outs.values() for at, label in json.loads(out.read_text())]
    found = durations(sorted(events), sorted(at for at, label in mine if label == "send<"))
    total = sum(statistics.median(found[name]) for name, _, _ in STAGES[:-1])
    print(f"{'ms, of ' + str(len(found['all of it'])) + ' messages':50}  lower quartile  median")
    for name, values in found.items():
        lower, median, _ = statistics.quantiles(values, n=4)
        print(f"{name:50}{lower:16.2f}{median:8.2f}")
    print(f"{'the medians of the stages, which leave no gap':50}{'':16}{total:8.2f}")


if __name__ == "__main__":
    main()
