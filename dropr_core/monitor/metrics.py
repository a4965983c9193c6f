"""A snapshot as metrics for Prometheus: families with names, types and help, and bounded numbers of series.

Owns the names (docs/guide/monitoring.md lists them; the dashboard and the alert rules in contrib/ use them) and the
bounds: of more peers, channels or flows than `Bounds` allows the rest stands together under ``(other)``, which no name
can be. Must not know how a snapshot is taken, nor how metrics are written or served.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Generic, Literal, NamedTuple, TypeVar

import attrs

from dropr_core.monitor.snapshot import Channel, Flow, Peer, Process, Snapshot, Worker

OTHER = "(other)"
"""Stands for all that are beyond a bound: names have no parentheses."""
PEER_STATES = ("up", "idle", "resting", "held", "refused", "unknown")
NOBODY: Mapping[int, float] = MappingProxyType({})
QUEUES = ("ready", "blocked", "delayed", "leased", "buried")

T = TypeVar("T")
Labels = tuple[str, ...]
Values = Sequence[tuple[Labels, float]]


@attrs.frozen
class Bounds:
    """How many peers, channels and flows have series of their own."""

    peers: int = 500
    channels: int = 500
    flows: int = 2000
    """Pairs of peer and channel."""


class Family(NamedTuple):
    """One metric: its name (without the ``_total`` of a counter), what it is, and a value for each set of labels."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    labels: Labels
    values: Values


def families(
    snapshot: Snapshot, version: str, bounds: Bounds | None = None, silent: Mapping[int, float] = NOBODY
) -> list[Family]:
    """Every metric of a node, each with the label ``node`` first. One without a value is left out.

    ``silent``: process id → seconds for which its main loop is silent though it should have turned.
    """
    bounds = bounds or Bounds()
    found = [
        *_node(snapshot, version, bounds), *_peers(snapshot, bounds), *_flows(snapshot, bounds),
        *_channels(snapshot, bounds), *_processes(snapshot, silent),
    ]  # fmt: skip
    return [
        family._replace(
            name=f"dropr_{family.name}",
            labels=("node", *family.labels),
            values=[((snapshot.node, *labels), float(value)) for labels, value in family.values],
        )
        for family in found
        if family.values
    ]


def _gauge(name: str, text: str, labels: Labels, values: Iterable[tuple[Labels, float | None]]) -> Family:
    return Family(name, "gauge", text, labels, [(at, value) for at, value in values if value is not None])


def _counter(name: str, text: str, labels: Labels, values: Iterable[tuple[Labels, float | None]]) -> Family:
    return Family(name, "counter", text, labels, [(at, value) for at, value in values if value is not None])


class _Folded(Generic[T]):
    """Things with a name, those beyond a bound under ``(other)``: their numbers are added, of ages the largest counts.

    The first ones keep their places, in the order of the snapshot (configured ones, then by name).
    """

    def __init__(self, things: Sequence[T], bound: int, name_of: Callable[[T], Labels]) -> None:
        self._shown = [(name_of(thing), thing) for thing in things[:bound]]
        self._rest = list(things[bound:])
        self._other = tuple(OTHER for _ in name_of(things[0])) if things else ()
        self.hidden = len(self._rest)

    def sums(self, number: Callable[[T], float | None]) -> list[tuple[Labels, float | None]]:
        """A number of each; of the rest the sum."""
        return self._of(number, sum)

    def largest(self, number: Callable[[T], float | None]) -> list[tuple[Labels, float | None]]:
        """A number of each; of the rest the largest."""
        return self._of(number, max)

    def _of(
        self, number: Callable[[T], float | None], fold: Callable[[list[float]], float]
    ) -> list[tuple[Labels, float | None]]:
        found: list[tuple[Labels, float | None]] = [(name, number(thing)) for name, thing in self._shown]
        rest = [value for thing in self._rest if (value := number(thing)) is not None]
        return [*found, (self._other, fold(rest))] if rest else found

    def each(self, label: Sequence[str], number: Callable[[T, str], float | None]) -> list[tuple[Labels, float | None]]:
        """As `sums`, for each value of one label more."""
        return [((*name, value), one) for value in label for name, one in self.sums(partial(_swapped, number, value))]


def _swapped(number: Callable[[T, str], float | None], value: str, thing: T) -> float | None:
    return number(thing, value)


# ── the node ─────────────────────────────────────────────────────────────────────────────────────


def _node(snapshot: Snapshot, version: str, bounds: Bounds) -> Iterable[Family]:
    disk = snapshot.disk
    none: Labels = ()
    yield _gauge("node_info", "The node; always 1.", ("storage", "version"), [((snapshot.storage, version), 1)])
    yield _gauge(
        "snapshot_timestamp_seconds", "When these figures were taken, in seconds since the epoch.", none,
        [(none, snapshot.wall)],
    )  # fmt: skip
    yield _gauge(
        "dead_letters", "Messages that ended and need a person: dead or failed in the outbox, buried in the inbox.",
        ("half",), [(("outbox",), snapshot.dead_letters.outbox), (("inbox",), snapshot.dead_letters.inbox)],
    )  # fmt: skip
    for name, text, value in (
        ("disk_free_bytes", "Bytes that are free for this node where its data lies.", disk.free),
        ("disk_size_bytes", "Size of the file system where its data lies.", disk.total),
        ("disk_floor_bytes", "Bytes that stay free: below, nothing more is taken in.", disk.floor),
        ("data_bytes", "Bytes that the data directory takes on the disk.", disk.used),
        ("reserve_bytes", "Bytes of the reserve with which a full disk is cleaned up.", disk.reserve),
    ):
        yield _gauge(name, text, none, [(none, value)])
    hidden = {
        "peer": len(snapshot.peers) - bounds.peers, "channel": len(snapshot.channels) - bounds.channels,
        "flow": len(snapshot.flows) - bounds.flows,
    }  # fmt: skip
    yield _gauge(
        "metrics_folded", "Peers, channels and flows without series of their own: they stand together under (other).",
        ("kind",), [((kind,), max(0, count)) for kind, count in hidden.items()],
    )  # fmt: skip


# ── going out ────────────────────────────────────────────────────────────────────────────────────


def _peers(snapshot: Snapshot, bounds: Bounds) -> Iterable[Family]:
    peers = _Folded(snapshot.peers, bounds.peers, lambda peer: (peer.peer,))
    names = ("peer",)

    def sums(name: str, text: str, number: Callable[[Peer], float | None]) -> Family:
        return _gauge(name, text, names, peers.sums(number))

    yield _gauge(
        "peer_state", "1 for the state in which the peer is, 0 for the others.", ("peer", "state"),
        peers.each(PEER_STATES, lambda peer, state: float(peer.state == state)),
    )  # fmt: skip
    yield _gauge("peer_state_seconds", "How long the peer is in its state.", names, peers.largest(_state_for))
    yield sums("peer_waiting_messages", "Deliveries that wait for the peer.", lambda peer: peer.waiting)
    yield sums("peer_waiting_bytes", "Their size.", lambda peer: peer.bytes)
    yield _gauge(
        "peer_oldest_waiting_seconds", "How long the first of them has waited; 0: none waits.", names,
        peers.largest(lambda peer: peer.oldest or 0.0),
    )  # fmt: skip
    yield sums("peer_in_flight_messages", "Deliveries in requests without an answer yet.", lambda peer: peer.in_flight)
    yield sums("peer_awaiting_receipt_messages", "Accepted, and no receipt yet.", lambda peer: peer.awaiting)
    yield _gauge(
        "peer_consecutive_failures", "Failed tries in a row.", names, peers.largest(lambda peer: peer.failures)
    )
    yield _gauge(
        "peer_last_answer_seconds", "Seconds since the peer answered.", names,
        peers.largest(lambda peer: peer.last_answer),
    )  # fmt: skip
    yield _gauge(
        "peer_last_contact_seconds", "Seconds since the peer asked this node for something.", names,
        peers.largest(lambda peer: peer.last_contact),
    )  # fmt: skip
    yield _gauge(
        "peer_dead_letters", "Kept deliveries that the sender gave up (dead) or the peer refused (failed).",
        ("peer", "state"), peers.each(("dead", "failed"), lambda peer, state: float(getattr(peer, state))),
    )  # fmt: skip
    yield _counter("peer_sent_messages", "Deliveries ever sent by programs.", names, peers.sums(lambda one: one.sent))
    yield _counter(
        "peer_received_messages", "Positions ever taken from the peer: messages, and numbers it left out.", names,
        peers.sums(lambda peer: peer.received),
    )  # fmt: skip


def _state_for(peer: Peer) -> float | None:
    return peer.state_for


def _flows(snapshot: Snapshot, bounds: Bounds) -> Iterable[Family]:
    flows = _Folded(snapshot.flows, bounds.flows, lambda flow: (flow.peer, flow.channel))
    names = ("peer", "channel")

    def waiting(flow: Flow) -> float:
        return flow.waiting

    yield _gauge("flow_waiting_messages", "Deliveries that wait for a peer on a channel.", names, flows.sums(waiting))
    yield _gauge("flow_waiting_bytes", "Their size.", names, flows.sums(lambda flow: flow.bytes))
    yield _gauge(
        "flow_oldest_waiting_seconds", "How long the first of them has waited; 0: none waits.", names,
        flows.largest(lambda flow: flow.oldest or 0.0),
    )  # fmt: skip
    yield _counter(
        "flow_sent_messages", "Deliveries ever sent to a peer on a channel.", names, flows.sums(lambda one: one.sent)
    )


# ── come in ──────────────────────────────────────────────────────────────────────────────────────


def _channels(snapshot: Snapshot, bounds: Bounds) -> Iterable[Family]:
    channels = _Folded(snapshot.channels, bounds.channels, lambda channel: (channel.channel,))
    names = ("channel",)

    def count(channel: Channel, state: str) -> float:
        return float(getattr(channel, state))

    yield _gauge("channel_messages", "Messages in the queue of a channel.", ("channel", "state"),
                 channels.each(QUEUES, count))  # fmt: skip
    yield _gauge("channel_bytes", "Their size.", names, channels.sums(lambda channel: channel.bytes))
    yield _gauge(
        "channel_oldest_ready_seconds", "How long the first ready message has waited; 0: none is ready.", names,
        channels.largest(lambda channel: channel.oldest or 0.0),
    )  # fmt: skip
    yield _gauge(
        "channel_paused", "1: its consumers get nothing for now.", names,
        channels.largest(lambda channel: float(channel.paused)),
    )  # fmt: skip
    yield _counter(
        "channel_processed_messages", "Messages ever acknowledged.", names,
        channels.sums(lambda channel: channel.processed),
    )  # fmt: skip


# ── processes ────────────────────────────────────────────────────────────────────────────────────


def _processes(snapshot: Snapshot, silent: Mapping[int, float]) -> Iterable[Family]:
    running = list(snapshot.processes.all())
    names = ("role", "process")

    def of(number: Callable[[Process], float | None]) -> list[tuple[Labels, float | None]]:
        return list({(role, one.name or role): number(one) for role, one in running}.items())

    yield _gauge(
        "process_uptime_seconds", "How long a process of the node has lived.", names, of(lambda one: one.since)
    )
    yield _gauge("process_resident_memory_bytes", "Main memory that it holds.", names, of(lambda one: one.memory))
    yield _counter("process_cpu_seconds", "Time of a processor that it has used.", names, of(lambda one: one.cpu))
    yield _gauge(
        "process_silent_seconds", "How long its main loop should have turned and has not; 0: it makes progress.", names,
        of(lambda one: silent.get(one.pid or 0)),
    )  # fmt: skip
    angel = snapshot.processes.angel
    children = angel.children if angel is not None else ()
    yield _gauge(
        "process_running", "1: the angel's process runs; 0: it starts, waits for its next start, or is left down.",
        ("process",), [((child.name,), float(child.state == "running")) for child in children],
    )  # fmt: skip
    yield _counter(
        "process_restarts", "Times that the angel has started it again.", ("process",),
        [((child.name,), child.restarts) for child in children],
    )  # fmt: skip
    workers: tuple[Worker, ...] = snapshot.processes.workers
    yield _gauge(
        "worker_busy_messages", "Messages that are being handled.", ("process",),
        [((one.name or "worker",), one.at_work) for one in workers],
    )  # fmt: skip
    yield _gauge(
        "worker_longest_handling_seconds", "How long the handler that takes longest is at its message; 0: none works.",
        ("process",), [((one.name or "worker",), one.longest.seconds if one.longest else 0.0) for one in workers],
    )  # fmt: skip
    daemon = snapshot.processes.daemon
    if daemon is not None:
        yield _gauge(
            "store_trouble", "1: the store fails, as the daemon sees it.", (), [((), float(bool(daemon.store)))]
        )
