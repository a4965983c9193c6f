"""What one message costs that comes through an idle system, up to where it is handed on: each call there is time that
its consumer waits, on processors that have just slept.

In the daemon from its wake-up until the request is with the transport, in the server from there until the consumers are
woken, in a consumer its claim.
"""

import itertools
import logging
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import apsw
import pytest

from budgets.counting import Functions, Statements
from dropr_core.angel.heartbeat import UNWATCHED_INTERVAL, Heartbeat
from dropr_core.api.node import Node
from dropr_core.api.prefetching import PrefetchingConsumer
from dropr_core.builtin.loopback import LoopbackConnection
from dropr_core.config.node import from_mapping
from dropr_core.contracts.transport import Caller
from dropr_core.processes.daemon import Daemon
from dropr_core.processes.mainloop import MainLoop
from dropr_core.processes.server import make_dispatcher
from dropr_core.serving.at_once import AtOnce
from dropr_core.system.notifier import Notifier

FORGIVEN = 1.1
BUDGETS = {
    "daemon": (252, 6),
    "server": (312, 10),
    "claim": (158, 7),
}
"""Calls of functions, and statements. Counted, not written: what fails says the number."""


def open_node(directory: Path, name: str, peer: dict[str, object]) -> Node:
    return Node.open(from_mapping({
        "node": name, "data": str(directory / name), "storage": {"use": "sqlite", "flush": "1h"},
        "limits": {"min_free": 0}, "peers": peer,
        "channels": {"orders": {"to": "ware"}} if name == "shop" else {"own": {}},
    }, directory))  # fmt: skip


class Road:
    """Two nodes, and between them a transport that keeps each request until it is brought to the other side."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[bytes, Future[bytes]]] = []
        self.stage, self.stop = "", lambda: None
        """What is counted, and what is called where it ends."""
        monkeypatch.setattr(LoopbackConnection, "ask", self._ask)
        notify = Notifier.notify
        monkeypatch.setattr(Notifier, "notify", lambda mine, topic: (self._reached("server"), notify(mine, topic))[1])
        self.shop = open_node(directory, "shop", {"ware": {"url": "loopback://ware", "key": "k" * 40, "fetch": False}})
        self.ware = open_node(directory, "ware", {"shop": {"mode": "pull", "key": "k" * 40}})
        ticks = itertools.count()
        self.loop = MainLoop(Heartbeat(None, None, UNWATCHED_INTERVAL))
        self.daemon = Daemon(self.shop.runtime, self.loop)
        self.dispatcher = make_dispatcher(
            self.ware.runtime, logging.getLogger("test"), None, AtOnce(lambda: next(ticks) / 1000)
        )
        self.consumer = PrefetchingConsumer(self.ware.runtime, ["orders"], clock=lambda: 0.0)
        # On a busy machine it would look after the dead, and what has expired, within what is counted.
        self.consumer._next_reap = self.consumer._next_sweep = float("inf")

    def _ask(self, request: bytes, *, idle: float) -> "Future[bytes]":
        self._reached("daemon")
        self.asked.append((request, Future()))
        return self.asked[-1][1]

    def _reached(self, stage: str) -> None:
        if stage == self.stage:
            self.stop()

    def turn(self) -> None:
        """The daemon was woken."""
        self.daemon._carrier.subscription.prepare()
        self.daemon.turn()

    def answer(self) -> None:
        """The server reads what was asked last, and the daemon what it says."""
        request, future = self.asked.pop()
        caller = Caller("somebody")
        self.dispatcher.admit(request[: self.dispatcher.head_size], caller)
        future.set_result(self.dispatcher.answer(request, caller).result(60))

    def take(self) -> None:
        """A consumer gets it, and is done with it."""
        received = self.consumer.take()
        self._reached("claim")
        self.consumer.done(received)
        assert self.consumer.take() is None

    def bring(self, stage: str = "", count: Callable[[Callable[[], None]], object] | None = None) -> None:
        """One message; the stage is done by whoever counts it."""
        self.shop.send(bytes(200), channel="orders")
        self.stage = stage
        for name, do in (("daemon", self.turn), ("server", self.answer), ("claim", self.take)):
            if count is not None and name == stage:
                count(do)
            else:
                do()
        self.stage = ""
        self.turn()

    def close(self) -> None:
        self.consumer.close()
        self.dispatcher.close()
        self.daemon.close()
        self.loop.close()
        self.shop.close()
        self.ware.close()


@pytest.fixture
def statements():
    """What SQLite does for the nodes of the test."""
    statements = Statements()
    apsw.connection_hooks.append(statements.install)
    yield statements
    apsw.connection_hooks.remove(statements.install)


@pytest.fixture
def road(tmp_path, monkeypatch, statements):
    """The nodes, after some messages."""
    road = Road(tmp_path, monkeypatch)
    road.shop.send(bytes(200), channel="orders")
    road.turn()  # which greets first
    while road.asked:
        road.answer()
        road.turn()
    road.take()
    for _ in range(3):
        road.bring()
    yield road
    road.close()


@pytest.mark.parametrize("stage", BUDGETS)
def test_no_stage_of_a_lone_message_costs_more_than_its_budget(road, statements, stage):
    """Neither more is called than was recorded, nor is the store asked more."""
    functions = Functions()
    road.stop = lambda: sys.setprofile(None)
    road.bring(stage, functions.count)
    road.stop = statements.stop
    road.bring(stage, statements.count)
    calls, asked = BUDGETS[stage]
    assert functions.calls.total() <= calls * FORGIVEN, shown(functions.calls)
    assert statements.calls.total() <= asked, shown(statements.calls)


def shown(count: "Counter[str]") -> str:
    """All of it, the most frequent first."""
    return "\n".join([f"{count.total()} in all", *(f"{number:4d} × {text}" for text, number in count.most_common())])
