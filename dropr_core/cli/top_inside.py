"""One peer or one channel in `dropr top`: all that is known of it, and how it went.

Owns the facts and graphs of that screen. Must not know keys.
"""

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.text import Text

from dropr_core.cli import overview
from dropr_core.cli.logs import one_line
from dropr_core.cli.output import say_age, say_size
from dropr_core.cli.top_table import SPARK, sparkline, table

if TYPE_CHECKING:
    from dropr_core.monitor.history import History
    from dropr_core.monitor.rates import Speed
    from dropr_core.monitor.snapshot import Channel, Peer, Snapshot

LABEL = 14
"""Columns of the names of facts."""
MOST_LINES = 3
"""Lines of one fact at most."""


def _graph(name: str, series: Sequence[float], width: int, style: str) -> Text:
    now, most = (series[-1] if series else None), max(series, default=0.0)
    room = max(10, min(80, width - LABEL - 28))
    return Text.assemble(
        f"  {name:<{LABEL}}", (f"{overview.say_rate(now):>6}/s ", "bold"), (sparkline(series, room), style),
        f"  most {overview.say_rate(most)}/s",
    )  # fmt: skip


def _facts(rows: Sequence[tuple[str, object]], width: int) -> list[Text]:
    lines = []
    for name, value in rows:
        if value in {"", "-"}:
            continue
        pieces = wrap(one_line(str(value)), max(20, width - LABEL - 3))[:MOST_LINES] or [""]
        for number, piece in enumerate(pieces):
            lines.append(Text.assemble((f"  {'' if number else name:<{LABEL}}", "dim"), piece))
    return lines


def shipped(speed: "Speed | None") -> float:
    """What went out, or was processed, a second; 0 where nothing is known."""
    return 0.0 if speed is None else speed.shipped


def peer_lines(peer: "Peer", history: "History", seen: "Snapshot", width: int) -> list[Text]:
    """A peer: its state and why, counters, graphs, and a table of the channels that go there."""
    name, rates = peer.peer, history.rates
    since = "" if peer.state_for is None else f" for {say_age(peer.state_for)}"
    error = f"{say_age(peer.last_error_age)} ago: {peer.last_error}" if peer.last_error else ""
    backlog = f"{peer.waiting} ({say_size(peer.bytes)}), oldest {say_age(peer.oldest)}, {peer.in_flight} in flight"
    facts: list[tuple[str, object]] = [
        ("state", f"{peer.state}{since}"), ("why", peer.reason), ("address", peer.url or "none: it calls"),
        ("waiting", backlog), ("receipts", f"{peer.awaiting} awaited"),
        ("ever", f"{peer.sent} sent, {peer.shipped} shipped, {peer.received} received"),
        ("dead letters", f"{peer.dead} dead, {peer.failed} failed"), ("last error", error),
        ("last answer", "" if peer.last_answer is None else f"{say_age(peer.last_answer)} ago"),
        ("last asked", "" if peer.last_contact is None else f"{say_age(peer.last_contact)} ago"),
        ("next try", say_age(peer.next_try_in)), ("failures", peer.failures or ""),
    ]  # fmt: skip
    lines = [Text(""), Text(f"peer {one_line(name)}", "bold"), *_facts(facts, width)]
    lines += [
        _graph("sent", history.series(lambda one: one.peers[name].sent if name in one.peers else None), width, "blue"),
        _graph("shipped", history.series(lambda one: shipped(one.peers.get(name))), width, "cyan"),
        _graph("received", history.series(
            lambda one: one.peers[name].received if name in one.peers else None), width, "green"),
        Text(""),
    ]  # fmt: skip
    columns = ["CHANNEL", "WAITING>", "SIZE>", "OLDEST>", "RECEIPTS>", "OUT/S>", ""]
    flows = {flow.channel: flow for flow in seen.flows if flow.peer == name}

    def row(channel: str) -> list[tuple[str, str]]:
        flow, at = flows[channel], (name, channel)
        speed = None if rates is None else rates.flows.get(at)
        return [
            (channel, ""), (str(flow.waiting), ""), (say_size(flow.bytes), "dim"), (say_age(flow.oldest), ""),
            (str(flow.awaiting), ""), (overview.say_rate(None if speed is None else speed.shipped), "cyan"),
            (sparkline(history.series(lambda one: shipped(one.flows.get(at))), SPARK), "cyan"),
        ]  # fmt: skip

    names = sorted(flows, key=lambda channel: -flows[channel].waiting)
    return lines + (table(columns, names, row, width, 100)[1:] if names else [])


def channel_lines(one: "Channel", history: "History", width: int) -> list[Text]:
    """A channel of the inbox: its queues, and graphs of what comes in and is processed."""
    name = one.channel
    rest = "" if one.paused_for is None else f" for {say_age(one.paused_for)} more"
    facts: list[tuple[str, object]] = [
        ("ready", f"{one.ready}, the first for {say_age(one.oldest)}"), ("leased", one.leased),
        ("delayed", one.delayed), ("blocked", f"{one.blocked} behind their ordering keys"), ("buried", one.buried),
        ("ever", f"{one.processed} processed"), ("kept", say_size(one.bytes)),
        ("paused", f"yes{rest}: {one.paused_because}" if one.paused else ""),
    ]  # fmt: skip

    def speed(what: str) -> list[float]:
        return history.series(lambda old: getattr(old.channels.get(name), what, None))

    return [
        Text(""), Text(f"channel {one_line(name)}", "bold"), *_facts(facts, width),
        _graph("come in", speed("sent"), width, "blue"), _graph("processed", speed("shipped"), width, "green"),
    ]  # fmt: skip
