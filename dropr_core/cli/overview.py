"""A snapshot as lines and tables for people: what `status` prints and `top` redraws.

Owns the words, columns and colours. Must not know how a snapshot is taken, nor who draws the tables.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from dropr_core.cli.output import say_age, say_count, say_size, say_wall

if TYPE_CHECKING:
    from dropr_core.monitor.rates import Rates
    from dropr_core.monitor.snapshot import Channel, Peer, Process, Snapshot

COLOURS = {
    "up": "green",
    "idle": "dim",
    "resting": "red",
    "refused": "red",
    "held": "yellow",
    "unknown": "dim",
    "calls": "dim",
}
"""State of a peer → how it is shown on a terminal."""
LOST = frozenset({"dead", "buried"})
"""Columns of which anything but 0 wants a person."""


class Table(NamedTuple):
    """Columns (those that end in ``>`` stand to the right), rows, and a line of its own after each row, or none."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    notes: Sequence[str]


def shown_state(peer: "Peer", seen: "Snapshot") -> str:
    """The state of a peer in one word; of one that is never called from here: that it calls."""
    only_calls = peer.url is None and peer.mode is not None and seen.processes.daemon is not None
    return "calls" if peer.state == "unknown" and only_calls else peer.state


def style_of(column: str, cell: str) -> str:
    """How a cell looks on a terminal; empty: as it is."""
    name = column.rstrip(">")
    if name == "state":
        return COLOURS.get(cell, "")
    return "bold red" if name in LOST and cell not in {"0", "-"} else ""


def say_rate(speed: float | None) -> str:
    """A speed a second, in few signs: ``0``, ``0.3``, ``12``, ``4.2k``."""
    if speed is None:
        return "-"
    if speed >= 10_000:
        return f"{speed / 1000:.0f}k"
    if speed >= 1000:
        return f"{speed / 1000:.1f}k"
    return f"{speed:.0f}" if speed >= 10 or speed == 0 else f"{speed:.1f}"


def title(seen: "Snapshot") -> str:
    """Which node this is."""
    return f"node {seen.node}, {seen.storage} in {seen.data}"


# ── processes ────────────────────────────────────────────────────────────────────────────────────


def running(seen: "Snapshot") -> str:
    """Who runs, in one line."""
    words = []
    for role, one in seen.processes.all():
        number = f"{one.name if role in {'worker', 'server', 'gateway', 'monitor'} else role} {one.pid or 'starting'}"
        words.append(f"{number} ({doors})" if (doors := _doors(role, one)) else number)
    if pages := seen.processes.pages:
        words.append(f"page at {', '.join(pages)} ('dropr dashboard')")
    return f"running: {', '.join(words)}" if words else "nothing runs here: 'dropr up' starts everything"


def _doors(role: str, one: "Process") -> str:
    if role == "server":
        return ", ".join(getattr(one, "urls", ())) or "no doors"
    if role == "gateway":
        return "; ".join(f"{name}: {', '.join(urls)}" for name, urls in getattr(one, "urls", {}).items())
    return ""


def processes(seen: "Snapshot", rates: "Rates | None" = None) -> Table:
    """A row for each living process."""
    cpu = {} if rates is None else rates.cpu
    rows = []
    for _, one in seen.processes.all():
        share = cpu.get(one.pid) if one.pid is not None else None
        rows.append([
            one.name, one.pid or "-", say_age(one.since), "-" if one.memory is None else say_size(one.memory),
            "-" if share is None else f"{share:.0%}",
        ])  # fmt: skip
    return Table(["process", "pid>", "age>", "memory>", "cpu>"], rows, [""] * len(rows))


def about_processes(seen: "Snapshot") -> Iterator[str]:
    """What else is to be said of them."""
    for worker in seen.processes.workers:
        places = " and ".join(
            say_count(number, one) for number, one in ((worker.threads, "thread"), (worker.tasks, "task")) if number
        )
        line = f"  {worker.name}: {worker.at_work} at work, {places}"
        if longest := worker.longest:
            line += f"; {longest.id} on {longest.channel} for {say_age(longest.seconds)}"
        yield line
    daemon = seen.processes.daemon
    if daemon is not None and daemon.waits_for:
        yield f"  daemon: waits for its turn; the one that was elected works on {daemon.waits_for}"
    if daemon is not None and daemon.store:
        yield f"  daemon: the store is in trouble: {daemon.store}"
    for name, why in daemon.outboxes.items() if daemon is not None else ():
        if why:
            yield f"  outbox {name}: its messages wait: {why}"
    for child in seen.processes.angel.children if seen.processes.angel is not None else ():
        if child.state != "running" or child.restarts:
            last = f", last {child.last_exit}" if child.last_exit else ""
            again = "" if child.next_start_in is None else f", starts again in {say_age(child.next_start_in)}"
            yield f"  {child.name}: {child.state}, {say_count(child.restarts, 'restart')}{last}{again}"


# ── peers ────────────────────────────────────────────────────────────────────────────────────────


def peers(seen: "Snapshot", rates: "Rates | None" = None) -> Table:
    """A row for each peer, and why it is as it is."""
    columns = ["peer", "state", "waiting>", "size>", "oldest>", "receipts>", "dead>", "next try>"]
    rows = []
    for peer in seen.peers:
        row: list[object] = [
            peer.peer, shown_state(peer, seen), peer.waiting, say_size(peer.bytes), say_age(peer.oldest), peer.awaiting,
            peer.dead + peer.failed, say_age(peer.next_try_in),
        ]  # fmt: skip
        if rates is not None:
            speed = rates.peers.get(peer.peer)
            row.insert(5, say_rate(None if speed is None else speed.shipped))
        rows.append(row)
    if rates is not None:
        columns.insert(5, "out/s>")
    return Table(columns, rows, [_why(peer) for peer in seen.peers])


def _why(peer: "Peer") -> str:
    """What explains a peer's state, on a line of its own."""
    words = [peer.reason] if peer.reason else []
    if peer.state in {"resting", "refused"} and peer.state_for is not None:
        words = [f"for {say_age(peer.state_for)}: {peer.reason}"]
    if peer.last_error and peer.last_error_age is not None and peer.last_error != peer.reason:
        words.append(f"last error {say_age(peer.last_error_age)} ago: {peer.last_error}")
    if peer.last_contact is not None:
        words.append(f"last heard of {say_age(peer.last_contact)} ago")
    return "; ".join(words)


def about_peers(seen: "Snapshot") -> Iterator[str]:
    """Large bodies on their way, and those that cannot go."""
    for peer in seen.peers:
        if body := peer.body:
            share = f"{say_size(body.bytes)} of {say_size(body.of)} ({body.bytes / max(1, body.of):.0%})"
            yield f"  to {peer.peer}: body of {body.id}, {share}"
        for message in peer.unreadable:
            yield f"  to {peer.peer}: {message.id} waits, and what is behind it: {message.reason}"


# ── channels ─────────────────────────────────────────────────────────────────────────────────────


def channels(seen: "Snapshot", rates: "Rates | None" = None) -> Table:
    """A row for each channel of the inbox."""
    columns = ["channel", "ready>", "leased>", "delayed>", "blocked>", "buried>", "processed>", "oldest>"]
    rows = []
    for one in seen.channels:
        row: list[object] = [
            one.channel, one.ready, one.leased, one.delayed, one.blocked, one.buried, one.processed,
            say_age(one.oldest),
        ]  # fmt: skip
        if rates is not None:
            speed = rates.channels.get(one.channel)
            row.insert(7, say_rate(None if speed is None else speed.shipped))
        rows.append(row)
    if rates is not None:
        columns.insert(7, "done/s>")
    return Table(columns, rows, [_at_rest(one) for one in seen.channels])


def _at_rest(channel: "Channel") -> str:
    """That consumers of a channel get nothing, on a line of its own."""
    if not channel.paused:
        return ""
    until = "" if channel.paused_for is None else f" for {say_age(channel.paused_for)} more"
    return f"paused{until}: {channel.paused_because} ('dropr unpause {channel.channel}')"


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────


def disk(seen: "Snapshot") -> str:
    """The disk in one line."""
    one = seen.disk
    more = "" if one.whole else "at least "
    short = one.free < one.floor
    line = f"disk: {more}{say_size(one.used)} used here, {say_size(one.free)} of {say_size(one.total)} free"
    if short:
        return f"{line}: too little, {say_size(one.floor)} have to stay free, and nothing more is taken in (min_free)"
    return line


def dead_letters(seen: "Snapshot") -> str:
    """What needs a person, with the commands that he needs; empty if nothing does."""
    dead = seen.dead_letters
    if not dead.outbox and not dead.inbox:
        return ""
    return (
        f"dead letters: {dead.outbox} going out ('dropr list --state dead --state failed', 'dropr redrive'), "
        f"{dead.inbox} buried here ('dropr list --state buried', 'dropr kick')"
    )


def moment(seen: "Snapshot") -> str:
    """When it was so, by the wall clock."""
    return say_wall(seen.wall)
