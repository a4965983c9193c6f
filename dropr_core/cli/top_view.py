"""What `dropr top` shows: the state of the view, what a key does to it, and the lines of a screen.

Owns nothing that moves: pictures and sizes go in, lines come out. Must not know terminals' ways of reading keys.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
from rich.text import Text

from dropr_core.cli import overview
from dropr_core.cli.logs import one_line
from dropr_core.cli.output import say_age, say_size
from dropr_core.cli.top_inside import channel_lines, peer_lines, shipped
from dropr_core.cli.top_table import SPARK, sparkline, table

if TYPE_CHECKING:
    from dropr_core.monitor.history import History
    from dropr_core.monitor.rates import Rates
    from dropr_core.monitor.snapshot import Channel, Peer, Snapshot

SORTS = ("name", "waiting", "speed", "oldest", "dead")
PARTS = ("peers", "channels")
HELP = (
    ("↑ ↓ j k", "choose a row"), ("tab", "peers or channels"), ("enter →", "look into it"), ("esc ←", "back"),
    ("s", "sort by: " + ", ".join(SORTS)), ("r", "the other way round"), ("space", "stand still"), ("?", "this"),
    ("q", "quit"),
)  # fmt: skip


@attrs.frozen
class View:
    """What a person has chosen."""

    part: str = "peers"
    """One of `PARTS`: where the chosen row is."""
    row: int = 0
    """The chosen row, as sorted."""
    into: str | None = None
    """The peer or channel that is looked into; None: the table."""
    sort: str = "waiting"
    down: bool = True
    """The largest first."""
    still: bool = False
    help: bool = False
    over: bool = False
    """The person has had enough."""


def press(view: View, key: str, seen: "Snapshot", rates: "Rates | None") -> View:
    """The view after a key; an unknown key changes nothing."""
    names = ordered(view, seen, rates)
    last = max(0, len(names) - 1)
    match key:
        case "q" | "ctrl-c":
            return attrs.evolve(view, over=True)
        case "?" | "h":
            return attrs.evolve(view, help=not view.help)
        case "esc" | "left" | "backspace":
            return attrs.evolve(view, into=None, help=False)
        case "up" | "k":
            return attrs.evolve(view, row=max(0, min(view.row, last) - 1))
        case "down" | "j":
            return attrs.evolve(view, row=min(last, view.row + 1))
        case "tab":
            return attrs.evolve(view, part=PARTS[1 - PARTS.index(view.part)], row=0, into=None)
        case "enter" | "right" if names and view.into is None:
            return attrs.evolve(view, into=names[min(view.row, last)])
        case "s":
            return attrs.evolve(view, sort=SORTS[(SORTS.index(view.sort) + 1) % len(SORTS)], row=0)
        case "r":
            return attrs.evolve(view, down=not view.down, row=0)
        case "space":
            return attrs.evolve(view, still=not view.still)
        case _:
            return view


def ordered(view: View, seen: "Snapshot", rates: "Rates | None", part: str = "") -> list[str]:
    """The names of a part's rows in the order of the view."""
    part = part or view.part
    if part == "peers":
        peers = {one.peer: one for one in seen.peers}
        keys: dict[str, Callable[[str], float]] = {
            "waiting": lambda name: peers[name].waiting,
            "speed": lambda name: shipped(None if rates is None else rates.peers.get(name)),
            "oldest": lambda name: peers[name].oldest or 0.0,
            "dead": lambda name: peers[name].dead + peers[name].failed,
        }
        names = list(peers)
    else:
        channels = {one.channel: one for one in seen.channels}
        keys = {
            "waiting": lambda name: channels[name].ready,
            "speed": lambda name: shipped(None if rates is None else rates.channels.get(name)),
            "oldest": lambda name: channels[name].oldest or 0.0,
            "dead": lambda name: channels[name].buried,
        }
        names = list(channels)
    names.sort()
    if view.sort == "name":
        return names if view.down else names[::-1]
    return sorted(names, key=keys[view.sort], reverse=view.down)


def _chosen(view: View, part: str) -> int | None:
    return view.row if view.part == part else None


# ── the screen ───────────────────────────────────────────────────────────────────────────────────


def screen(view: View, history: "History", width: int, height: int, trouble: str = "") -> list[Text]:
    """The lines of a screen, as many as it has, none longer than it is wide."""
    seen, rates = history.last, history.rates
    foot = [_footer(view, width)]
    if seen is None:
        body = [Text(trouble or "looking …")]
    elif view.help:
        body = [Text(f"  {key:<10}{what}") for key, what in HELP]
    else:
        head = _header(seen, history, width, trouble)
        note = _note(view, seen, rates)
        foot = [Text(note, "yellow"), *foot] if note and view.into is None else foot
        room = height - len(head) - len(foot)
        inside = _inside(view, history, width) if view.into is not None else None
        body = head + (inside if inside is not None else _tables(view, history, width, room))
    body = body[: max(0, height - len(foot))]
    body += [Text("")] * (height - len(foot) - len(body))
    lines = [*body, *foot][-height:] if height < len(foot) else [*body, *foot]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _header(seen: "Snapshot", history: "History", width: int, trouble: str) -> list[Text]:
    rates = history.rates
    total = None if rates is None else rates.total
    room = max(6, min(40, (width - 58) // 2))
    gone = history.series(lambda one: one.total.shipped)
    done = history.series(lambda one: one.total.processed)
    handled = None if total is None else total.processed
    waits, ready = sum(peer.waiting for peer in seen.peers), sum(one.ready for one in seen.channels)
    lines = [
        Text.assemble((one_line(seen.node), "bold"), f"  {overview.moment(seen)}  {overview.disk(seen)}"),
        Text.assemble(
            "out ", (f"{overview.say_rate(None if total is None else total.shipped):>6}/s ", "bold"),
            (sparkline(gone, room), "cyan"), f"  waiting {waits:<8}  ",
            "done ", (f"{overview.say_rate(handled):>6}/s ", "bold"), (sparkline(done, room), "green"),
            f"  ready {ready}",
        ),
        _processes(seen, rates),
    ]  # fmt: skip
    dead = seen.dead_letters
    if dead.outbox or dead.inbox:
        lines.append(Text(f"dead letters: {dead.outbox} going out, {dead.inbox} buried here", "bold red"))
    if trouble:
        lines.append(Text(trouble, "bold red"))
    return lines


def _processes(seen: "Snapshot", rates: "Rates | None") -> Text:
    cpu = {} if rates is None else rates.cpu
    words = []
    for role, one in seen.processes.all():
        share = cpu.get(one.pid) if one.pid is not None else None
        parts = ["" if share is None else f"{share:.0%}", "" if one.memory is None else say_size(one.memory)]
        told = " ".join(part for part in parts if part)
        name = role if role in {"angel", "daemon"} else one.name
        words.append(f"{one_line(name)} {told}".rstrip())
    return Text(" · ".join(words) or "nothing runs here: 'dropr up' starts everything", "" if words else "yellow")


def _note(view: View, seen: "Snapshot", rates: "Rates | None") -> str:
    """What explains the chosen row."""
    names = ordered(view, seen, rates)
    if not names:
        return ""
    chosen = names[min(view.row, len(names) - 1)]
    table = overview.peers(seen) if view.part == "peers" else overview.channels(seen)
    notes = {str(row[0]): note for row, note in zip(table.rows, table.notes, strict=True)}
    note = notes.get(chosen, "")
    return f"{one_line(chosen)}: {one_line(note)}" if note else ""


def _footer(view: View, width: int) -> Text:
    arrow = "↓" if view.down else "↑"
    keys = "q quit  ↑↓ tab enter esc  s sort  r reverse  space still  ? help"
    if view.into is not None:
        keys = "esc back  space still  q quit"
    state = f"by {view.sort} {arrow}" + ("  STANDING STILL" if view.still else "")
    return Text(f"{keys}  [{state}]".ljust(width), "reverse")


def _tables(view: View, history: "History", width: int, room: int) -> list[Text]:
    seen, rates = history.last, history.rates
    assert seen is not None
    peers, channels = len(seen.peers), len(seen.channels)
    if not channels:
        share = room
    elif not peers:
        share = 0
    else:  # two headings and a line between them
        rows = max(2, room - 4)
        share = 2 + max(rows - channels, min(peers, rows // 2))
    lines: list[Text] = []
    if peers:
        lines += _peer_table(view, history, seen, rates, width, min(peers, max(1, share - 2)))
    if channels:
        lines += _channel_table(view, history, seen, rates, width, max(1, room - len(lines) - 2))
    if not lines:
        lines = [Text(""), Text("no peers, and nothing came yet")]
    return lines


def _peer_table(
    view: View, history: "History", seen: "Snapshot", rates: "Rates | None", width: int, room: int
) -> list[Text]:
    found = {peer.peer: peer for peer in seen.peers}
    columns = ["PEER", "STATE", "WAITING>", "SIZE>", "OLDEST>", "OUT/S>", "IN/S>", "DEAD>", "NEXT>", ""]

    def row(name: str) -> list[tuple[str, str]]:
        peer: Peer = found[name]
        speed = None if rates is None else rates.peers.get(name)
        dead, state = peer.dead + peer.failed, overview.shown_state(peer, seen)
        series = history.series(lambda one: shipped(one.peers.get(name)))
        return [
            (name, ""), (state, overview.COLOURS.get(state, "")), (str(peer.waiting), ""),
            (say_size(peer.bytes), "dim"), (say_age(peer.oldest), ""),
            (overview.say_rate(None if speed is None else speed.shipped), "cyan"),
            (overview.say_rate(None if speed is None else speed.received), ""),
            (str(dead), "bold red" if dead else "dim"), (say_age(peer.next_try_in), "dim"),
            (sparkline(series, SPARK), "cyan"),
        ]  # fmt: skip

    return table(columns, ordered(view, seen, rates, "peers"), row, width, room, _chosen(view, "peers"))


def _channel_table(
    view: View, history: "History", seen: "Snapshot", rates: "Rates | None", width: int, room: int
) -> list[Text]:
    found = {one.channel: one for one in seen.channels}
    columns = ["CHANNEL", "READY>", "LEASED>", "DELAYED>", "BURIED>", "OLDEST>", "IN/S>", "DONE/S>", ""]

    def row(name: str) -> list[tuple[str, str]]:
        one: Channel = found[name]
        speed = None if rates is None else rates.channels.get(name)
        series = history.series(lambda old: shipped(old.channels.get(name)))
        return [
            (name, "yellow" if one.paused else ""), (str(one.ready), ""), (str(one.leased), ""),
            (str(one.delayed + one.blocked), ""), (str(one.buried), "bold red" if one.buried else "dim"),
            (say_age(one.oldest), ""), (overview.say_rate(None if speed is None else speed.sent), ""),
            (overview.say_rate(None if speed is None else speed.shipped), "green"), (sparkline(series, SPARK), "green"),
        ]  # fmt: skip

    return table(columns, ordered(view, seen, rates, "channels"), row, width, room, _chosen(view, "channels"))


def _inside(view: View, history: "History", width: int) -> list[Text] | None:
    """What there is of the peer or channel that is looked into; None: it is gone."""
    seen = history.last
    assert seen is not None
    if view.part == "peers":
        peer = next((one for one in seen.peers if one.peer == view.into), None)
        return None if peer is None else peer_lines(peer, history, seen, width)
    channel = next((one for one in seen.channels if one.channel == view.into), None)
    return None if channel is None else channel_lines(channel, history, width)
