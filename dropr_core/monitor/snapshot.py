"""One picture of a node: immutable values that can be kept, compared, and sent as JSON.

Owns the shapes and what each number means. A duration or an age is in seconds, a size in bytes; `rates.py` makes speeds
of two pictures. Must not know how one is taken (`gathering.py`) nor how it is shown.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the picture."""

    def as_dict(self) -> dict[str, Any]:
        """The same in mappings, lists and plain values, as JSON has it."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return document


# ── processes ────────────────────────────────────────────────────────────────────────────────────


class Process(Part, frozen=True, kw_only=True):
    """A living process of the node."""

    pid: int | None
    """None: it holds its lock, and has not told its number yet."""
    name: str = ""
    """What the angel calls it (``daemon``, ``worker-2`` …); its role where no angel runs."""
    since: float | None = None
    """Seconds that it has lived; None where the system does not tell (it tells on Linux)."""
    memory: int | None = None
    """Bytes of main memory that it holds; None where the system does not tell."""
    cpu: float | None = None
    """Seconds of a processor that it has used in its life; None where the system does not tell."""
    last_report: float | None = None
    """Seconds since it last wrote down something about itself. An idle one writes nothing."""


class Daemon(Process, frozen=True, kw_only=True):
    """It carries what waits to the peers."""

    store: str = ""
    """What is wrong with the store, as the daemon sees it; empty: nothing."""
    outboxes: Mapping[str, str] = {}
    """Table of messages in a database of the application's → why its messages wait; empty: they do not."""
    waits_for: str = ""
    """Where the daemon works that was elected among those of a shared store; empty: this one works."""


class Server(Process, frozen=True, kw_only=True):
    """It answers peers."""

    urls: tuple[str, ...] = ()
    """Where it listens."""


class Gateway(Process, frozen=True, kw_only=True):
    """It answers programs on this machine in foreign dialects."""

    urls: Mapping[str, tuple[str, ...]] = {}
    """Name of the gateway → where it listens."""


class Monitor(Process, frozen=True, kw_only=True):
    """It shows the page, where no server does."""

    urls: tuple[str, ...] = ()
    """Where it listens."""


class Longest(Part, frozen=True, kw_only=True):
    """The message whose handler takes longest."""

    id: str
    channel: str
    seconds: float
    """How long by now."""


class Worker(Process, frozen=True, kw_only=True):
    """It calls handlers."""

    channels: tuple[str, ...] = ()
    threads: int = 0
    """Most messages that functions handle at once."""
    tasks: int = 0
    """Most messages that async functions handle at once."""
    at_work: int = 0
    """Messages that are being handled now."""
    longest: Longest | None = None


class Child(Part, frozen=True, kw_only=True):
    """What the angel says of one of its processes."""

    name: str
    state: str
    """``running``, ``waiting`` (for its next start), ``stopped`` … (angel/policy.py)."""
    pid: int | None
    restarts: int
    last_exit: str
    """How it ended last; empty: it never did."""
    next_start_in: float | None = None
    """Seconds until it is started again; None: it runs, or is left down."""


class Angel(Process, frozen=True, kw_only=True):
    """It keeps the others alive."""

    children: tuple[Child, ...] = ()


class Processes(Part, frozen=True, kw_only=True):
    """Those that live now."""

    daemon: Daemon | None = None
    servers: tuple[Server, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    pages: tuple[str, ...] = ()
    """Where the monitor listens, in the server or in a process of its own."""
    monitors: tuple[Monitor, ...] = ()
    """Those of them that are a process of their own."""
    workers: tuple[Worker, ...] = ()
    angel: Angel | None = None

    def all(self) -> Iterator[tuple[str, Process]]:
        """(role, process) of each."""
        if self.angel is not None:
            yield "angel", self.angel
        if self.daemon is not None:
            yield "daemon", self.daemon
        for role, group in (
            ("server", self.servers), ("gateway", self.gateways), ("monitor", self.monitors), ("worker", self.workers)
        ):  # fmt: skip
            for one in group:
                yield role, one


# ── what goes out ────────────────────────────────────────────────────────────────────────────────


class Body(Part, frozen=True, kw_only=True):
    """A large body on its way to a peer."""

    id: str
    bytes: int
    """Those that the peer has."""
    of: int
    """Those that there are."""


class Unreadable(Part, frozen=True, kw_only=True):
    """A message that cannot go because its large body cannot be read here; those behind it wait for it."""

    id: str
    lane: str
    reason: str


class Peer(Part, frozen=True, kw_only=True):
    """Another node, as this one sees it."""

    peer: str
    mode: str | None
    """``push``: it is called from here. ``pull``: it calls. None: it is no longer in the configuration."""
    url: str | None
    """Where it is called, without user and password; None: it is never called."""
    state: str
    """``up``: it answered, and nothing failed since. ``idle``: not greeted, since nothing is to be said to it.
    ``resting``: it failed, and is tried again later. ``held``: by hand or by the configuration. ``refused``: it cannot
    be served. ``unknown``: no daemon runs that could tell, or the peer is one that only calls."""
    state_for: float | None
    """Seconds since the daemon saw it come into this state; None where no daemon tells."""
    reason: str
    """Why it is in this state; empty if there is nothing to explain."""
    waiting: int
    """Deliveries queued."""
    bytes: int
    """Their size."""
    oldest: float | None
    """Seconds that the first of them has waited; None: none waits."""
    in_flight: int
    """Deliveries in requests that were sent and not answered yet; they are among those that wait."""
    awaiting: int
    """Deliveries that the peer accepted, whose receipt has not come home."""
    held: bool
    failures: int
    """Failed tries in a row."""
    next_try_in: float | None
    """Seconds until it is tried again; None: there is nothing to wait for."""
    last_error: str
    """The last thing that went wrong with it in the life of this daemon, though it may be up again; else empty."""
    last_error_age: float | None
    """Seconds since then."""
    last_answer: float | None
    """Seconds since it last answered this node; None: not in the life of this daemon."""
    last_contact: float | None
    """Seconds since it last asked this node for something; None: never."""
    body: Body | None = None
    unreadable: tuple[Unreadable, ...] = ()
    dead: int = 0
    """Kept dead letters: deliveries given up here."""
    failed: int = 0
    """Kept dead letters: deliveries that the peer refused or could not process."""
    sent: int = 0
    """Deliveries ever sent to it by programs here; only grows."""
    shipped: int = 0
    """Those of them that do not wait any more: accepted by the peer, or ended otherwise. Goes back when a delivery is
    sent again (a redrive, a peer that lost what it had)."""
    received: int = 0
    """Positions ever taken from it, over all its lanes: messages, and numbers that it left out. Only grows."""


class Flow(Part, frozen=True, kw_only=True):
    """What goes to one peer on one channel."""

    peer: str
    channel: str
    waiting: int
    """Deliveries queued (or held)."""
    awaiting: int
    """Accepted by the peer; their receipt has not come home."""
    oldest: float | None
    """Seconds that the first that waits has waited."""
    bytes: int
    """Size of what waits."""
    sent: int
    """As `Peer.sent`."""
    shipped: int
    """As `Peer.shipped`."""
    ended: Mapping[str, int]
    """State → ended deliveries that are still kept (``delivery.remember``): no counter, it goes down."""


class LaneBacklog(Part, frozen=True, kw_only=True):
    """A lane with something unsent: what goes to one peer on one channel with one priority, in order."""

    peer: str
    channel: str
    priority: int
    """0 (first) to 9."""
    large: bool
    """Whether it is the lane of messages with large bodies."""
    waiting: int
    bytes: int
    oldest: float


# ── what came in ─────────────────────────────────────────────────────────────────────────────────


class Channel(Part, frozen=True, kw_only=True):
    """A queue of this node's inbox."""

    channel: str
    ready: int
    blocked: int
    """They wait for another one with the same ordering key."""
    delayed: int
    leased: int
    buried: int
    """Kept dead letters."""
    processed: int
    """Acknowledged ever; only grows."""
    received: int
    """Those that were processed and those that are here. Grows as messages come; goes back when buried ones are wiped
    or some expire."""
    bytes: int
    """Size of what is kept."""
    oldest: float | None
    """Seconds that the first ready message has waited; None: none is ready."""
    paused: bool
    paused_for: float | None
    """Seconds until that ends; None: until somebody ends it, or it is not paused."""
    paused_because: str


class DeadLetters(Part, frozen=True, kw_only=True):
    """What ended and needs a person."""

    outbox: int
    """Deliveries dead or failed."""
    inbox: int
    """Messages buried."""


class Disk(Part, frozen=True, kw_only=True):
    """Where the data of this node lies."""

    used: int
    """Bytes that the data directory takes on the disk; where ``whole`` is false, at least so many."""
    whole: bool
    """Whether all of its files were looked at: of very many (large bodies) only the first thousand are."""
    free: int
    """Bytes that are free for this user."""
    total: int
    floor: int
    """Bytes that have to stay free: below, nothing more is taken in (``limits.min_free``)."""
    reserve: int
    """Bytes of the reserve with which a full disk can still be cleaned up; 0 when it was used up."""


class Snapshot(Part, frozen=True, kw_only=True):
    """A node at one moment."""

    node: str
    data: str
    """Its data directory."""
    storage: str
    at: float
    """Node time in seconds: the difference of two snapshots is the time between them, whatever the wall clock does."""
    wall: float
    """Seconds since the epoch, by the wall clock."""
    processes: Processes
    peers: tuple[Peer, ...]
    flows: tuple[Flow, ...]
    lanes: tuple[LaneBacklog, ...]
    channels: tuple[Channel, ...]
    dead_letters: DeadLetters
    disk: Disk

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Snapshot":
        """The snapshot of which `as_dict` made this. Raises msgspec.ValidationError."""
        return msgspec.convert(document, cls)
