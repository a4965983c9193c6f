"""Takes a picture of a node: stores, reports of processes, disk.

Owns what is read for it. Its cost grows with the number of peers, channels and lanes, and not with the messages in
them: a storage keeps its counts (contracts/outbox.py, inbox.py). Changes nothing. Must not know how it is shown.
"""

import os
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dropr_core.api.runtime import Runtime
from dropr_core.contracts.storage import LaneStats, PeerState
from dropr_core.model.names import priority_of
from dropr_core.monitor.process_reports import daemon_report, read_processes
from dropr_core.monitor.snapshot import (
    Body,
    Channel,
    DeadLetters,
    Disk,
    Flow,
    LaneBacklog,
    Peer,
    Snapshot,
    Unreadable,
)
from dropr_core.serving.contacts import read_contacts
from dropr_core.system.os_errors import store_errors
from dropr_core.system.space import floor_of

FILES = 1000
"""Files of the data directory that are looked at for its size."""
QUEUED, ACCEPTED = ("queued", "held"), "accepted"
COUNTED = (*QUEUED, ACCEPTED, "sent")
"""What `Outbox.counts` has besides deliveries that ended."""


def take_snapshot(node: Runtime) -> Snapshot:
    """The node as it is now; the node may be open only to look. Raises StoreError.

    Costs six reads of the store and one more for each peer, one read of a small file for
    each process and for the peers together, and one look at each file of the data directory, a thousand at most.
    """
    report = daemon_report(node)
    processes = read_processes(node, report)
    at, lanes, counts = node.clock.now(), node.outbox.lanes(), node.outbox.counts()
    flows = _flows(lanes, counts)
    peers = _peers(node, at, lanes, flows, report or {})
    channels = _channels(node, at)
    return Snapshot(
        node=node.name,
        data=str(node.config.data),
        storage=node.config.storage.use,
        at=at,
        wall=node.clock.wall(),
        processes=processes,
        peers=peers,
        flows=flows,
        lanes=tuple(_backlog(lane) for lane in lanes),
        channels=channels,
        dead_letters=DeadLetters(
            outbox=sum(peer.dead + peer.failed for peer in peers), inbox=sum(channel.buried for channel in channels)
        ),
        disk=_disk(node),
    )


# ── going out ────────────────────────────────────────────────────────────────────────────────────


def _backlog(stats: LaneStats) -> LaneBacklog:
    lane = stats.lane
    return LaneBacklog(
        peer=lane.peer, channel=lane.channel, priority=priority_of(lane.priority), large=lane.large,
        waiting=stats.depth, bytes=stats.bytes, oldest=round(stats.oldest, 3),
    )  # fmt: skip


def _flows(lanes: list[LaneStats], counts: Mapping[tuple[str, str], Mapping[str, int]]) -> tuple[Flow, ...]:
    waits: dict[tuple[str, str], list[LaneStats]] = {}
    for stats in lanes:
        waits.setdefault((stats.lane.peer, stats.lane.channel), []).append(stats)
    out = []
    for at in sorted({*waits, *counts}):
        mine, here = counts.get(at, {}), waits.get(at, [])
        waiting, sent = sum(mine.get(state, 0) for state in QUEUED), mine.get("sent", 0)
        out.append(
            Flow(
                peer=at[0], channel=at[1], waiting=waiting, awaiting=mine.get(ACCEPTED, 0),
                oldest=round(max(stats.oldest for stats in here), 3) if here else None,
                bytes=sum(stats.bytes for stats in here), sent=sent, shipped=max(0, sent - waiting),
                ended={state: number for state, number in mine.items() if state not in COUNTED and number},
            )
        )  # fmt: skip
    return tuple(out)


def _peers(
    node: Runtime, at: float, lanes: list[LaneStats], flows: tuple[Flow, ...], daemon: Mapping[str, Any]
) -> tuple[Peer, ...]:
    seen: Mapping[str, Mapping[str, Any]] = daemon.get("peers", {})
    oldest: dict[str, float] = {}
    for lane in lanes:
        oldest[lane.lane.peer] = max(oldest.get(lane.lane.peer, 0.0), lane.oldest)
    mine: dict[str, list[Flow]] = {}
    for flow in flows:
        mine.setdefault(flow.peer, []).append(flow)
    kept, configured, heard = node.outbox.peers(), node.config.peers, read_contacts(node.run_directory)
    out = []
    for name in [*configured, *sorted({*kept, *mine} - {*configured})]:
        known = seen.get(name, {})
        out.append(
            _peer(
                node, at, name, kept.get(name), known, mine.get(name, []), oldest=oldest.get(name),
                heard=heard.get(name), received=_received(node, name),
            )
        )  # fmt: skip
    return tuple(out)


def _peer(
    node: Runtime, at: float, name: str, state: PeerState | None, report: Mapping[str, Any], flows: list[Flow], *,
    oldest: float | None, heard: float | None, received: int,
) -> Peer:  # fmt: skip
    configured = node.config.peers.get(name)
    moving: Mapping[str, Any] = report.get("moving", {})
    body, unreadable, since = report.get("body"), report.get("unreadable", ()), report.get("since")
    if report.get("state") == "idle":  # nothing to ship: what the fetching side says is the news
        report = report.get("fetch", report)
    held = state is not None and state.held
    next_try = report.get("next_try")
    failed, answered = moving.get("failed_at"), moving.get("answered_at")
    return Peer(
        peer=name,
        mode=None if configured is None else configured.mode,
        url=None if configured is None else public_url(configured.url),
        state="held" if held else report.get("state", "unknown"),
        state_for=None if held or since is None else _age(at, since),
        reason=state.reason if held and state else report.get("reason", ""),
        waiting=state.waiting if state else 0,
        bytes=state.bytes if state else 0,
        oldest=None if oldest is None else round(oldest, 3),
        in_flight=moving.get("in_flight", 0),
        awaiting=state.awaiting if state else 0,
        held=held,
        failures=report.get("failures", 0),
        next_try_in=None if next_try is None or held else round(max(0.0, next_try - at), 3),
        last_error=moving.get("error", ""),
        last_error_age=None if failed is None else _age(at, failed),
        last_answer=None if answered is None else _age(at, answered),
        last_contact=None if heard is None else round(heard, 3),
        body=None if body is None else Body(id=body["id"], bytes=body["bytes"], of=body["of"]),
        unreadable=tuple(Unreadable(id=one["id"], lane=one["lane"], reason=one["reason"]) for one in unreadable),
        dead=sum(flow.ended.get("dead", 0) for flow in flows),
        failed=sum(flow.ended.get("failed", 0) for flow in flows),
        sent=sum(flow.sent for flow in flows),
        shipped=sum(flow.shipped for flow in flows),
        received=received,
    )


def _age(now: float, then: float) -> float:
    return round(max(0.0, now - then), 3)


def _received(node: Runtime, peer: str) -> int:
    return sum(head.sequence for head in node.inbox.heads(peer).values())


def public_url(url: str | None) -> str | None:
    """A URL without user, password and query, which may be secrets."""
    if url is None:
        return None
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return url.partition(":")[0] + ":"
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


# ── come in ──────────────────────────────────────────────────────────────────────────────────────


def _channels(node: Runtime, at: float) -> tuple[Channel, ...]:
    counts, oldest, paused = node.inbox.counts(), node.inbox.oldest(), node.pauses.now()
    out = []
    for channel in sorted({*counts, *oldest, *paused}):
        pause, mine = paused.get(channel), counts.get(channel, {})
        queues = {state: mine.get(state, 0) for state in ("ready", "blocked", "delayed", "leased", "buried")}
        processed = mine.get("processed", 0)
        out.append(
            Channel(
                channel=channel, **queues, processed=processed, received=processed + sum(queues.values()),
                bytes=mine.get("bytes", 0), oldest=round(oldest[channel], 3) if channel in oldest else None,
                paused=pause is not None,
                paused_for=None if pause is None or pause.until is None else round(pause.until - at, 3),
                paused_because="" if pause is None else pause.reason,
            )
        )  # fmt: skip
    return tuple(out)


# ── the disk ─────────────────────────────────────────────────────────────────────────────────────


def _disk(node: Runtime) -> Disk:
    data = node.config.data
    used, reserve, whole = _measure(data)
    with store_errors(data):
        found = os.statvfs(data)
    total = found.f_blocks * found.f_frsize
    return Disk(
        used=used, whole=whole, free=found.f_bavail * found.f_frsize, total=total,
        floor=floor_of(total, node.config.limits.min_free), reserve=reserve,
    )  # fmt: skip


def _measure(directory: Path) -> tuple[int, int, bool]:
    """Bytes on the disk of what is below a directory, those of reserves among them, and whether all was looked at.

    Files that come and go meanwhile are passed over.
    """
    used = reserve = seen = 0
    folders = [str(directory)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    seen += 1
                    if seen > FILES:
                        return used, reserve, False
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                        continue
                    size = entry.stat(follow_symlinks=False).st_blocks * 512
                    used += size
                    reserve += size if entry.name.endswith(".reserve") else 0
        except OSError:
            continue
    return used, reserve, True
