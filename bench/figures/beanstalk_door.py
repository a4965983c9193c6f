"""The beanstalk door beside beanstalkd with its log synced at each write: the same clients, round by round.

Owns the comparison. In each round everybody does the same, one after the other: beanstalkd, a door on each storage, and
the bare commits of that storage; a ratio is that of its round, for the machine's speed wanders. Two clients: a lean one
(`bench/peers/lockstep.py`), so that the server is measured, and greenstalk, which programs use.
"""

import contextlib
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.figure import Figure, Run, Skipped, at_least
from bench.figures.sending import PIECE, raw_limit, raw_name
from bench.nodes import free_port, node_file
from bench.peers.beanstalkd import missing, version
from bench.peers.figure import BODY
from bench.peers.lockstep import Reply, lockstep
from bench.peers.servers import server
from dropr_core.bench.samples import Samples, rate_of

CONNECTIONS = 8
AHEAD = 100
"""Commands that are not answered yet, of a client that does not wait for each."""
PRIORITY = 1 << 16
"""That of greenstalk, if nobody says another one."""
PUT = b"put %d 0 60 %d\r\n%s\r\n" % (PRIORITY, len(BODY), BODY)
RESERVE = b"reserve\r\n"

WAYS = (
    ("one by one", 1, 1),
    (f"{CONNECTIONS} connections", CONNECTIONS, 1),
    (f"{CONNECTIONS} connections, {AHEAD} ahead", CONNECTIONS, AHEAD),
)
"""How jobs are put and taken: the name of it, connections, and commands of each that are under way."""

Work = Callable[[int, int, int, int], float]
"""Seconds that so many connections need at a port for so many jobs each, with so many commands under way."""
Conversation = Callable[[int, int], tuple[bytes, Reply]]
"""One about so many jobs, of which so many are asked for ahead."""


def putting(count: int, ahead: int = 1) -> tuple[bytes, Reply]:
    """A conversation that puts so many, of which ``ahead`` are not answered yet."""
    ahead = min(ahead, count)
    unsaid, unanswered = count - ahead, count

    def reply(answers: bytes) -> bytes | None:
        nonlocal unsaid, unanswered
        came = answers.count(b"\n")
        assert abs(answers.count(b"INSERTED") - came) <= 1, answers  # the last one may not be whole
        unanswered -= came
        more = min(came, unsaid)
        unsaid -= more
        return PUT * more if unanswered else None

    return PUT * ahead, reply


def taking(count: int, ahead: int = 1) -> tuple[bytes, Reply]:
    """A conversation that reserves and deletes so many; each job that comes is deleted at once, and ``ahead`` are
    asked for.
    """
    ahead = min(ahead, count)
    unsaid, unanswered, rest = count - ahead, count, b""

    def reply(answers: bytes) -> bytes | None:
        nonlocal unsaid, unanswered, rest
        rest += answers
        said = []
        while (end := rest.find(b"\r\n")) >= 0:
            words = rest[:end].split()
            if words[0] == b"RESERVED":
                if len(rest) < end + 4 + int(words[2]):
                    break
                end += 2 + int(words[2])
                said.append(b"delete %s\r\n" % words[1])
            else:
                assert words == [b"DELETED"], rest
                unanswered -= 1
                if unsaid:
                    unsaid -= 1
                    said.append(RESERVE)
            rest = rest[end + 2 :]
        return b"".join(said) if unanswered else None

    return RESERVE * ahead, reply


def lean(conversation: Conversation, port: int, connections: int, each: int, ahead: int = 1) -> float:
    """By the lean client: one thread for all connections."""
    return lockstep(port, [conversation(each, ahead) for _ in range(connections)])


def put_and_wait(client: Any) -> None:
    """One job by greenstalk."""
    client.put(BODY)


def take_and_delete(client: Any) -> None:
    """One job by greenstalk."""
    client.delete(client.reserve())


def greenstalk(work: Callable[[Any], None], port: int, connections: int, each: int, ahead: int) -> float:
    """By greenstalk: a thread for each connection. It waits for each answer."""
    assert ahead == 1
    from greenstalk import Client

    clients = [Client(("127.0.0.1", port), encoding=None) for _ in range(connections)]

    def many(client: Any) -> None:
        for _ in range(each):
            work(client)

    threads = [threading.Thread(target=many, args=(one,), daemon=True) for one in clients]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    for one in clients:
        one.close()
    return took


CLIENTS: dict[str, tuple[Work, Work]] = {
    "": (partial(lean, putting), partial(lean, taking)),
    "greenstalk: ": (partial(greenstalk, put_and_wait), partial(greenstalk, take_and_delete)),
}


def measure(run: Run) -> None:
    """All servers run beside each other; only one of them has work at a time."""
    if why := missing():
        raise Skipped(why)
    run.note(f"{version()}; -b DIR -f0; jobs of {len(BODY)} bytes with priority {PRIORITY}")
    with contextlib.ExitStack() as stack:
        home, theirs = run.directory("beanstalkd"), free_port()
        log = home / "binlog"
        log.mkdir()
        words = [shutil.which("beanstalkd") or "", "-l", "127.0.0.1", "-p", str(theirs), "-b", str(log), "-f0"]
        stack.enter_context(server(words, home, theirs))
        doors = {}
        for storage in run.storages:
            doors[storage] = port = free_port()
            file = node_file(run, storage, gateways={"beanstalk": {"listen": f"tcp://127.0.0.1:{port}"}})
            words = [sys.executable, "-m", "dropr_core", "gateway", "-c", str(file)]
            stack.enter_context(server(words, Path(file).parent, port))
        compare(run, theirs, doors)


def compare(run: Run, theirs: int, doors: dict[str, int]) -> None:
    """All kinds of work, in rounds, after one that warms up."""
    count = run.count(1600, 80)
    rates: dict[tuple[str, str], list[float]] = {}
    shares: dict[tuple[str, str], list[float]] = {}
    with contextlib.ExitStack() as stack:
        bare = {storage: stack.enter_context(raw_limit(run, storage)) for storage in doors}
        for turn in range(run.rounds + 1):
            now: dict[tuple[str, str], float] = {}
            for prefix, works in CLIENTS.items():
                for how, connections, ahead in WAYS[: 2 if prefix else 3]:
                    for what, work in zip(("put", "reserve + delete"), works, strict=True):
                        for name, port in {"beanstalkd -f0": theirs, **doors}.items():
                            begun = time.process_time()
                            took = work(port, connections, count // connections, ahead)
                            kind = f"{prefix}{what}, {how}"
                            now[name, kind] = count // connections * connections / took
                            shares.setdefault((kind, name), []).append((time.process_time() - begun) / took)
            for storage, step in bare.items():
                now[storage, ""] = rate_of(step, run.seconds(PIECE))
            if turn:
                for key, rate in now.items():
                    rates.setdefault(key, []).append(rate)
    for kind in dict.fromkeys(kind for kind, _ in shares):
        words = [f"{name} {statistics.median(some):.2f}" for (one, name), some in shares.items() if one == kind]
        run.note(f"the client's share of a core, {kind}: {', '.join(words)}")
    tell(run, rates, list(doors))


def tell(run: Run, rates: dict[tuple[str, str], list[float]], storages: list[str]) -> None:
    """Each kind: the original, and each door, alone and divided by it."""
    for (name, kind), original in rates.items():
        if name in storages:
            continue
        run.read(f"{name}: {kind}", "/s", original)
        bar = at_least(3.0 if str(CONNECTIONS) in kind else 1.0)
        for storage in storages:
            mine = rates[storage, kind]
            run.read(f"door on {storage}: {kind}", "/s", mine, raw=Samples(rates[storage, ""]),
                     raw_label=raw_name(storage))  # fmt: skip
            ratios = Samples([ours / theirs for ours, theirs in zip(mine, original, strict=True)])
            run.read(f"door on {storage} ÷ {name}: {kind}", "×", ratios, bar)


FIGURES = (
    Figure("beanstalk-door", "beanstalk-door", "beanstalk door ÷ beanstalkd -f0, the same clients in one run",
           "≥ 1 one by one, ≥ 3 by eight connections", "",
           "INSERTED is on stable storage on both sides; DELETED is there at once, here after the flush interval.",
           measure, 120, only_if_named=True),
)  # fmt: skip
