"""What this node knows of one message: its deliveries to peers, and its stay in the queue.

Owns the shapes, and what is read for them: two look-ups by id, the lanes, and the daemon's report. The same shapes hold
what a peer tells (`asking.py`). Times are seconds since the epoch by this node's wall clock. Must not know payloads.
"""

from collections.abc import Mapping
from typing import Any

from dropr_core.api.runtime import Runtime
from dropr_core.contracts.storage import Delivery, Inbox, JobInfo, LaneStats, Outbox, Selection
from dropr_core.model.envelope import body_size, header_of
from dropr_core.model.names import Lane, MessageId, format_id, priority_of
from dropr_core.model.states import SETTLED
from dropr_core.monitor.process_reports import daemon_report
from dropr_core.monitor.snapshot import Part


class Facts(Part, frozen=True, kw_only=True):
    """What the sender fixed, as the envelope has it."""

    sender: str
    channel: str
    created_at: float
    """Seconds since the epoch, by the sender's clock."""
    priority: int
    content_type: str
    size: int
    """Bytes of the body."""
    receipt: bool
    key: str | None
    delay: float | None
    expires_in: float | None


class Sent(Part, frozen=True, kw_only=True):
    """A delivery, as its sender has it."""

    peer: str
    channel: str
    priority: int
    state: str
    sequence: int
    """Its number in its lane."""
    sent_at: float | None
    """When it was sent, or sent again; None where only the end is known."""
    ended_at: float | None
    """When it came into its last state; None: something is still done with it."""
    reason: str
    receipt: bool
    """Whether the sender wants to know that it was processed."""
    result: int | None = None
    """Bytes of the result that came home; None: none."""
    possible_duplicate: bool = False
    before: int | None = None
    """Deliveries of its lane that go before it; None: it does not wait."""
    link: str = ""
    """How the peer is, while the delivery waits: the state of `snapshot.Peer`."""
    failures: int = 0
    """Failed tries in a row to reach the peer, while it waits."""
    next_try_in: float | None = None
    """Seconds until the peer is tried again; None: nothing is waited for, or it is not known."""
    last_error: str = ""
    """What went wrong with the peer last, while it waits."""
    last_error_at: float | None = None


class Queued(Part, frozen=True, kw_only=True):
    """A message in the queue of its receiver."""

    sender: str
    channel: str
    priority: int
    state: str
    arrived_at: float | None
    """None once it has ended: then `ended_at` is known."""
    ended_at: float | None
    """When it was done, buried or expired."""
    attempts: int
    errors: tuple[str, ...]
    """One line for each attempt that failed, the newest last."""
    consumer: str = ""
    """Who has it: the name of the worker or consumer, and its process."""
    due_in: float | None = None
    """Seconds until it may be leased, while it is delayed."""
    possible_duplicate: bool = False


class Story(Part, frozen=True, kw_only=True):
    """What one node knows."""

    id: str
    node: str
    message: Facts | None
    """None once the envelope is no longer kept."""
    deliveries: tuple[Sent, ...]
    inbox: tuple[Queued, ...]

    @property
    def known(self) -> bool:
        """Whether this node knows anything of it."""
        return bool(self.message or self.deliveries or self.inbox)


def local_story(node: Runtime, identity: MessageId) -> Story:
    """What this node knows now. Raises StoreError."""
    outbox, inbox = node.outbox, node.inbox
    deliveries = list(outbox.all(Selection(ids=(identity,))))
    jobs = list(inbox.all(Selection(ids=(identity,))))
    waiting = {one.peer for one in deliveries if not one.over}
    lanes = {stats.lane: stats for peer in waiting for stats in outbox.lanes(peer)}
    report = (daemon_report(node) or {}) if waiting else {}
    held = {name: state.reason for name, state in outbox.peers().items() if state.held} if waiting else {}
    now, wall = node.clock.now(), node.clock.wall()
    return Story(
        id=format_id(identity),
        node=node.name,
        message=_facts(outbox, inbox, identity),
        deliveries=tuple(
            _sent(one, now, wall, lanes, held, report.get("peers", {}).get(one.peer, {})) for one in deliveries
        ),
        inbox=tuple(_queued(one, wall) for one in jobs),
    )


def _facts(outbox: Outbox, inbox: Inbox, identity: MessageId) -> Facts | None:
    data = outbox.envelope(identity)
    if data is None:
        data = inbox.envelope(identity)
    if not data:
        return None
    one = header_of(data)
    return Facts(
        sender=one.sender, channel=one.channel, created_at=one.created_at, priority=one.priority,
        content_type=one.content_type, size=body_size(data), receipt=one.receipt, key=one.key, delay=one.delay,
        expires_in=one.expires_in,
    )  # fmt: skip


def _sent(
    one: Delivery, now: float, wall: float, lanes: Mapping[Lane, LaneStats], held: Mapping[str, str],
    report: Mapping[str, Any],
) -> Sent:  # fmt: skip
    queued = not one.over and str(one.state) in {"queued", "held"}
    state = "held" if queued and one.peer in held else str(one.state)
    stats = lanes.get(Lane(one.peer, one.channel, one.priority)) if queued else None
    moving: Mapping[str, Any] = report.get("moving", {}) if queued else {}
    next_try, failed = report.get("next_try"), moving.get("failed_at")
    stuck = [str(other["reason"]) for other in report.get("unreadable", ()) if other["id"] == format_id(one.id)]
    return Sent(
        peer=one.peer, channel=one.channel, priority=priority_of(one.priority), state=state, sequence=one.sequence,
        sent_at=wall - (now - one.sent) if one.sent else None, ended_at=wall - one.age if one.over else None,
        reason=held.get(one.peer, "") if state == "held" else one.reason or (stuck[0] if queued and stuck else ""),
        receipt=one.receipt, result=None if one.result is None else len(one.result),
        possible_duplicate=one.possible_duplicate,
        before=max(0, one.sequence - stats.head.sequence - 1) if stats is not None else None,
        link=str(report.get("state", "unknown")) if queued else "", failures=report.get("failures", 0) if queued else 0,
        next_try_in=None if not queued or next_try is None else round(max(0.0, next_try - now), 3),
        last_error=str(moving.get("error", "")), last_error_at=None if failed is None else wall - (now - failed),
    )  # fmt: skip


def _queued(one: JobInfo, wall: float) -> Queued:
    ended = one.state in SETTLED
    return Queued(
        sender=one.sender, channel=one.channel, priority=one.priority, state=str(one.state),
        arrived_at=None if ended else wall - one.age, ended_at=wall - one.age if ended else None,
        attempts=one.attempts, errors=tuple(one.reason.splitlines()), consumer=one.consumer,
        due_in=None if one.due_in is None else round(max(0.0, one.due_in), 3),
        possible_duplicate=one.possible_duplicate,
    )  # fmt: skip
