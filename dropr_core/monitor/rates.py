"""How fast a node goes: the difference of two snapshots.

Owns the arithmetic. Must not know how they were taken, nor who looks.
"""

from typing import Any

from dropr_core.monitor.snapshot import Part, Snapshot


class Speed(Part, frozen=True, kw_only=True):
    """Of one peer, one flow or one channel, each a second; 0 where there is nothing to compare with."""

    sent: float = 0.0
    """Deliveries that programs sent; of a channel: messages that came in."""
    shipped: float = 0.0
    """Deliveries that stopped waiting: accepted by the peer, or ended otherwise; of a channel: messages processed."""
    received: float = 0.0
    """Of a peer: positions taken from it."""
    backlog: float = 0.0
    """By how much what waits grew; below 0: it shrank."""


class Total(Part, frozen=True, kw_only=True):
    """Speeds of a whole node, each a second."""

    sent: float = 0.0
    """Deliveries that programs sent to peers."""
    shipped: float = 0.0
    """Deliveries that stopped waiting."""
    received: float = 0.0
    """Messages that came into channels."""
    processed: float = 0.0
    """Messages that were acknowledged."""


class Rates(Part, frozen=True, kw_only=True):
    """Speeds between two snapshots of one node."""

    seconds: float
    """The time between them."""
    peers: dict[str, Speed]
    flows: dict[tuple[str, str], Speed]
    """(peer, channel) → speed."""
    channels: dict[str, Speed]
    total: Total = Total()
    """All of them together."""
    cpu: dict[int, float]
    """Process → share of one processor, 1.0 is all of one."""

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON has it; flows as a list."""
        return {
            "seconds": self.seconds,
            "peers": {name: one.as_dict() for name, one in self.peers.items()},
            "flows": [{"peer": at[0], "channel": at[1], **one.as_dict()} for at, one in self.flows.items()],
            "channels": {name: one.as_dict() for name, one in self.channels.items()},
            "total": self.total.as_dict(),
            "cpu": {str(pid): share for pid, share in self.cpu.items()},
        }


def rates(before: Snapshot, after: Snapshot) -> Rates:
    """What happened between two snapshots of one node, each a second.

    A counter that went back (messages sent again, or forgotten; another store) is a speed of 0 and never a negative
    one; so is what one of both does not know. If no time passed between them everything is 0.
    """
    seconds = after.at - before.at
    if seconds <= 0:
        return Rates(seconds=0.0, peers={}, flows={}, channels={}, cpu={})

    def speed(one: float, other: float) -> float:
        return max(0.0, one - other) / seconds

    old_peers = {peer.peer: peer for peer in before.peers}
    old_flows = {(flow.peer, flow.channel): flow for flow in before.flows}
    old_channels = {channel.channel: channel for channel in before.channels}
    old_processes = {one.pid: one for _, one in before.processes.all()}
    peers = {
        new.peer: Speed(
            sent=speed(new.sent, old.sent), shipped=speed(new.shipped, old.shipped),
            received=speed(new.received, old.received), backlog=(new.waiting - old.waiting) / seconds,
        )
        for new in after.peers if (old := old_peers.get(new.peer)) is not None
    }  # fmt: skip
    flows = {
        (new.peer, new.channel): Speed(
            sent=speed(new.sent, then.sent), shipped=speed(new.shipped, then.shipped),
            backlog=(new.waiting - then.waiting) / seconds,
        )
        for new in after.flows if (then := old_flows.get((new.peer, new.channel))) is not None
    }  # fmt: skip
    channels = {
        new.channel: Speed(
            sent=speed(new.received, was.received), shipped=speed(new.processed, was.processed),
            backlog=(new.ready - was.ready) / seconds,
        )
        for new in after.channels if (was := old_channels.get(new.channel)) is not None
    }  # fmt: skip
    cpu = {
        new.pid: speed(new.cpu, process.cpu)
        for _, new in after.processes.all()
        if new.pid is not None and new.cpu is not None
        and (process := old_processes.get(new.pid)) is not None and process.cpu is not None
    }  # fmt: skip
    total = Total(
        sent=sum(one.sent for one in peers.values()), shipped=sum(one.shipped for one in peers.values()),
        received=sum(one.sent for one in channels.values()), processed=sum(one.shipped for one in channels.values()),
    )  # fmt: skip
    return Rates(seconds=seconds, peers=peers, flows=flows, channels=channels, total=total, cpu=cpu)
