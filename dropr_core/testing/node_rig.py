"""Two real nodes in one process, a bad road between them, and a note of everything that happens.

Owns `NodeCase` (a storage and a transport), `Rig` (node ``shop`` sends, node ``ware`` receives) and
the history that the checker judges. The nodes are those of production: links, dispatcher, consumer; only their
processes are threads here. Must not know any storage or transport by name.
"""

import logging
import select
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from dropr_core.angel.heartbeat import UNWATCHED_INTERVAL, Heartbeat
from dropr_core.api.node import Node
from dropr_core.api.runtime import Runtime
from dropr_core.config.node import from_mapping
from dropr_core.contracts.context import Context
from dropr_core.contracts.storage import Selection, Storage
from dropr_core.contracts.transport import Transport
from dropr_core.delivery.links import Links
from dropr_core.errors import LeaseLost
from dropr_core.model import topics
from dropr_core.model.names import parse_id
from dropr_core.model.states import JOB, SETTLED
from dropr_core.processes.mainloop import MainLoop
from dropr_core.processes.server import make_dispatcher
from dropr_core.serving.dispatcher import Dispatcher
from dropr_core.testing.bad_road import BadRoad, Faults
from dropr_core.testing.checker import Event, History, digest
from dropr_core.testing.contract import within
from dropr_core.testing.payloads import payload

KEY = "the-key-of-shop-and-ware-0123456789abcdef"
LOG = logging.getLogger("dropr.kit")
ENDS = 60.0
"""Seconds in which a part must have closed."""
LOOK_AGAIN = 0.2
"""Seconds. What a killed process stored notifies nobody."""


@attrs.frozen
class NodeCase:
    """Which storage and which transport to test together."""

    make_storage: Callable[[Context], Storage]
    """Opens a store in ``context.data``."""
    make_transport: Callable[[], Transport]
    """A new transport, as one process of one node has it."""
    listen: str
    """A url to listen on that asks for a free address."""
    between_processes: bool = True
    """Whether that address can be reached from another process of this machine."""


def open_node(case: NodeCase, directory: Path, name: str, **more: Any) -> Node:
    """A node over the case's storage; used by one process, like any other."""
    peer = {"shop": "ware", "ware": "shop"}[name]
    mapping: Mapping[str, Any] = {
        "node": name,
        "data": str(directory / name),
        "limits": {"min_free": 0},
        "delivery": {"backoff_min": "10ms", "backoff_max": "50ms"},
        "channels": {"orders": {"receipt": True, "attempts": 1000}, "plain": {"attempts": 1000}},
        "peers": {peer: {"key": KEY, "mode": "pull"}},
        **more,
    }
    config = from_mapping(mapping, directory)
    return Node(Runtime.open(config, log=LOG, make_storage=case.make_storage))


class Daemon:
    """What ships the mail of a node, in a thread."""

    def __init__(self, node: Node, road: BadRoad) -> None:
        self._runtime, self._road = node.runtime, road
        self._loop = MainLoop(Heartbeat(None, None, UNWATCHED_INTERVAL))
        self._links = Links(node.runtime, road, self._loop.post, LOG)  # type: ignore[arg-type]  # the road stands for all
        self._subscription = node.runtime.notifier.subscribe(topics.OUTBOX, topics.CONTROL, *self._links.topics)
        self.broken: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="dropr-kit-daemon", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._loop.stopping:
                self._subscription.prepare()
                self._loop.run_posts()
                wake = self._links.turn()
                pause = LOOK_AGAIN if wake is None else min(LOOK_AGAIN, wake - self._runtime.clock.now())
                self._loop.sleep(max(0.0, pause), self._subscription.fileno())
        except BaseException as error:
            self.broken = error

    def report(self, peer: str) -> object:
        """The state of a peer, as `dropr status` would show it."""
        return self._links.report()[peer]["state"]

    def close(self) -> None:
        """Stop at once: what is under way is given up."""
        self._loop.stopping = True
        self._loop.wake()
        self._thread.join(30)
        assert not self._thread.is_alive(), "the daemon does not stop: something below it blocks"
        self._links.close()
        self._road.close()
        self._subscription.close()
        self._loop.close()


class Door:
    """What answers for a node."""

    def __init__(self, node: Node, transport: Transport, url: str) -> None:
        self._transport = transport
        self._dispatcher: Dispatcher = make_dispatcher(node.runtime, LOG)
        self._listener = transport.listen(url, self._dispatcher)
        self.url = self._listener.url

    def close(self) -> None:
        """Stop at once."""
        self._dispatcher.close_waiting()
        self._listener.close()
        self._dispatcher.close()
        self._transport.close()


class Reader:
    """What consumes the mail of a node, in a thread; notes what it is given."""

    def __init__(self, node: Node, note: Callable[..., None], channels: tuple[str, ...], who: str) -> None:
        self._node, self._note, self._channels, self._who = node, note, channels, who
        self._stopping = threading.Event()
        self.broken: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="dropr-kit-reader", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        consumer = self._node.consumer(*self._channels)
        try:
            while not self._stopping.is_set():
                consumer.prepare()
                found = consumer.claim(5)
                if not found:
                    consumer.wait(0.05)
                for received in found:
                    self._note(received, "given", self._who)
                    try:
                        received.ack(result=received.body[:1000])
                    except LeaseLost:
                        self._note(received, "returned", self._who)
                    else:
                        self._note(received, "acked", self._who)
        except BaseException as error:
            self.broken = error
        finally:
            consumer.close()

    def close(self) -> None:
        """Stop, with what it has in hand done."""
        self._stopping.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "the consumer does not stop: something below it blocks"


class Rig:
    """Both nodes, what runs for them, and the history. Everything may be closed and opened again."""

    def __init__(self, case: NodeCase, directory: Path) -> None:
        self.case, self.directory = case, directory
        self.history = History()
        self.faults = Faults()
        self.url = ""
        self._lock = threading.Lock()
        self._parts: dict[str, Any] = {}
        self._seen: set[bytes] = set()
        self._batch = 0
        self.sent: list[bytes] = []
        """Ids that `send` returned, in order."""

    def __getitem__(self, name: str) -> Any:
        return self._parts[name]

    def open(self, *names: str) -> None:
        """Open parts: ``ware``, ``door``, ``reader``, ``shop``, ``daemon`` (all of them, without names)."""
        for name in names or ("ware", "door", "reader", "shop", "daemon"):
            self._parts[name] = getattr(self, f"_open_{name}")()

    def _open_ware(self) -> Node:
        return open_node(self.case, self.directory, "ware")

    def _open_shop(self) -> Node:
        assert self.url, "open the door first: the sender must know the address"
        return open_node(self.case, self.directory, "shop", peers={"ware": {"url": self.url, "key": KEY}})

    def _open_door(self) -> Door:
        door = Door(self["ware"], self.case.make_transport(), self.url or self.case.listen)
        self.url = door.url
        return door

    def _open_reader(self) -> Reader:
        return Reader(self["ware"], self.note_received, ("orders", "plain"), "reader")

    def _open_daemon(self) -> Daemon:
        return Daemon(self["shop"], BadRoad(self.case.make_transport(), lambda: self.faults))

    def close(self, *names: str) -> None:
        """Close parts (all, without names); safe twice."""
        with ExitStack() as stack:
            for name in reversed(names or ("daemon", "shop", "reader", "door", "ware")):
                part = self._parts.pop(name, None)
                if part is not None:
                    stack.callback(within, ENDS, part.close, f"close of the node's {name}")

    @property
    def durable(self) -> bool:
        """Whether a store may be closed and opened again."""
        node = self._parts.get("shop") or self._parts["ware"]
        return "durable" in node.runtime.storage.abilities

    # ── what happens, noted ──────────────────────────────────────────────────────────────────────

    def note(self, kind: Any, identity: bytes, **fields: Any) -> None:
        """Write down one thing."""
        with self._lock:
            self.history.note(Event(kind, identity, **fields))

    def note_received(self, received: Any, kind: str, who: str) -> None:
        """What a consumer saw; what it sees for the first time has entered the queue."""
        identity = bytes(received.message.id)
        if kind == "given":
            flagged = received.possible_duplicate
            if identity not in self._seen or flagged:
                self._seen.add(identity)
                place = int(received.headers.get("number", 0))
                # Large bodies travel beside the lanes: they keep their order among each other.
                size = "large" if received.large else "small"
                lane = f"{received.channel}/{received.priority}/{size}" if place else ""
                self.note("entered", identity, who="ware", flagged=flagged, lane=lane, place=place)
            self.note("given", identity, who=who, digest=digest(received.body))
        else:
            self.note(kind, identity, who=who)

    def send(self, count: int, *, channel: str = "orders", priority: int = 5, size: int = 20) -> None:
        """Send messages with unique ids and numbered in their lane."""
        for _ in range(count):
            self._batch += 1
            body = payload(self._batch, size)
            sent = self["shop"].send(
                body, to="ware", channel=channel, priority=priority, headers={"number": str(self._batch)}
            )
            identity = parse_id(sent.id)
            self.note_sent(identity, body)

    def note_sent(self, identity: bytes, body: bytes) -> None:
        """A `send` of that body has returned."""
        self.sent.append(identity)
        with self._lock:
            # Noted in one go before anything else of it: the consumer may have been faster than this thread.
            events = [Event("attempted", identity, digest=digest(body), batch=len(self.sent)),
                      Event("acknowledged", identity, batch=len(self.sent))]  # fmt: skip
            self.history.events[:0] = events

    # ── waiting and judging ──────────────────────────────────────────────────────────────────────

    def healthy(self) -> None:
        """Raise what ended a thread of a node, if anything did."""
        for name in ("daemon", "reader"):
            part = self._parts.get(name)
            if part is not None and part.broken is not None:
                raise AssertionError(f"the {name} broke: {part.broken!r}") from part.broken

    def until(self, condition: Callable[[], Any], seconds: float, what: str) -> None:
        """Ask until the answer is yes; AssertionError when it takes too long, or a node broke."""
        ends = time.monotonic() + seconds
        while not condition():
            self.healthy()
            if time.monotonic() > ends:
                raise AssertionError(f"not within {seconds:g} s: {what}; the road did {self.faults.done}")
            select.select([], [], [], 0.005)

    @property
    def arrived(self) -> set[bytes]:
        """Ids that were acknowledged by a consumer of the receiver."""
        with self._lock:
            return {event.id for event in self.history.events if event.kind == "acked"}

    def settled(self) -> bool:
        """Whether everything that was sent was consumed, and neither node has anything left to do."""
        if not set(self.sent) <= self.arrived or self._queued():
            return False
        return not any(state.waiting or state.awaiting for state in self["shop"].outbox.peers().values())

    def _queued(self) -> bool:
        """Whether a consumer of the receiver would still find something, be it a second copy."""
        live = Selection(states=frozenset(JOB) - SETTLED)
        return bool(self["ware"].inbox.scan(live, limit=1))

    def look(self) -> None:
        """Note what the sender's store knows, and what receipts it has."""
        outbox = self["shop"].outbox
        for _, delivery in outbox.scan(Selection(), limit=100_000):
            self.note("listed", delivery.id)
            if delivery.receipt and str(delivery.state) in {"processed", "failed"}:
                self.note("receipted", delivery.id, state=str(delivery.state))
        self.note("looked", b"")


__all__ = ["Daemon", "Door", "NodeCase", "Reader", "Rig", "open_node"]
