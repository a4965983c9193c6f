"""The verbs that show how a node does: status, count.

Owns what is measured for them, and the reference of their JSON; `overview.py` has the words. Must not know where the
numbers of a snapshot (dropr_core/monitor/) come from.
"""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dropr_core.cli.common import DURATION, opened, verb
from dropr_core.cli.output import echo, echo_json, echo_table, on_terminal

if TYPE_CHECKING:
    from dropr_core.cli.overview import Table
    from dropr_core.monitor.rates import Rates
    from dropr_core.monitor.snapshot import Snapshot

LOOK = 0.5
"""Seconds between two looks, where a person waits for the rates."""
LONGEST = 3600.0
"""Seconds between two looks at most."""
COMMON = (
    "`pid`, `name`, `since` (seconds of its life), `memory` (bytes), `cpu` (seconds of a processor), `last_report` "
    "(seconds since it wrote something about itself)"
)
KEYS = (
    "`node`, `data`, `storage`, `at` (node time in seconds, for differences), `wall` (seconds since the epoch); "
    f"`processes`: each with {COMMON}; what nobody can tell is null; `daemon` (or null; `store`: what is wrong "
    "with it; `outboxes`: name → why its messages wait), `servers` (a list: `urls`), `gateways` (a list: `urls`: name "
    "of the gateway → list), `pages` (a "
    "list: where the monitor listens), `monitors` (a list: `urls`; those that are a process of "
    "their own), `workers` (a list: `channels`, `threads` and `tasks` (most that functions and async ones handle at "
    "once), `at_work` "
    "(messages at this moment), `longest` (null, or of the one that takes longest: `id`, `channel`, `seconds`)), "
    "`angel` (or null; `children`: a list: `name`, `state`, `pid`, `restarts`, `last_exit`, `next_start_in` "
    "(seconds or null)); `peers`, a list: `peer`, `mode` (`push`, `pull`, or null: not in the configuration), "
    "`url` (without password, or null), `state` (`up`, `idle` (not greeted), `resting`, `refused`, `held`, or "
    "`unknown`: no daemon runs, or it only calls), `state_for` (seconds or null), `reason`, `waiting` "
    "(deliveries), `bytes`, `oldest` (seconds or null), `in_flight` (of them, sent and not answered), `awaiting` "
    "(receipts), `held`, `failures`, `next_try_in` (seconds or null), `last_error` and `last_error_age` (seconds "
    "or null), `last_answer` (seconds since it last answered, or null), `last_contact` (seconds since it last "
    "asked here, or null), `body` (a large body on its way: `id`, `bytes`, `of`; or null), `unreadable` (messages "
    "whose large body cannot be read here, a list: `id`, `lane`, `reason`), `dead`, `failed` (kept), and ever: "
    "`sent`, `shipped` (they do not wait any more), `received` (positions); `flows`, a list: `peer`, `channel`, "
    "`waiting`, `awaiting`, `oldest`, `bytes`, `sent`, `shipped`, `ended` (state → number kept); `lanes` with "
    "something unsent, a list: `peer`, `channel`, `priority`, `large`, `waiting`, `bytes`, `oldest`; `channels`, "
    "a list: `channel`, `ready`, `blocked`, `delayed`, `leased`, `buried`, `processed` (ever), `received` "
    "(processed and kept), `bytes`, `oldest` (seconds or null), `paused`, `paused_for` (seconds; null: until "
    "'dropr unpause'), `paused_because`; `dead_letters`: `outbox` (dead and failed), `inbox` (buried); `disk`: "
    "`used` (bytes of the data directory), `whole` (false: so many at least), `free`, `total`, `floor` (must stay "
    "free), `reserve`. `rates` (null without --rates): `seconds`, `peers` and `channels` (name → speeds), `flows` "
    "(a list: `peer`, `channel` and speeds), `total` (also `processed`), `cpu` (process → share of a processor); "
    "speeds are `sent`, `shipped`, `received` and `backlog` (by how much it grows) a second; of a channel `sent` "
    "is what came in and `shipped` what was processed."
)


@verb("status", keys=KEYS)
@click.option(
    "--rates", "over", type=DURATION, metavar="DURATION",
    help="Measure for so long how fast it goes; 0: do not. Default: 0.5s on a terminal, else 0.",
)  # fmt: skip
def status_verb(config_file: Path | None, as_json: bool, over: float | None) -> None:
    """Show the node at a glance: processes, peers, channels, dead letters, disk."""
    from dropr_core.monitor.gathering import take_snapshot

    if over is None:
        over = LOOK if on_terminal() and not as_json else 0.0
    speeds = None
    with opened(config_file) as node:
        seen = take_snapshot(node)
        if over > 0:
            from dropr_core.monitor.rates import rates

            time.sleep(min(over, LONGEST))
            before, seen = seen, take_snapshot(node)
            speeds = rates(before, seen)
    if as_json:
        echo_json({**seen.as_dict(), "rates": None if speeds is None else speeds.as_dict()})
    else:
        show(seen, speeds)


def show(seen: "Snapshot", speeds: "Rates | None") -> None:
    """The same for people."""
    from dropr_core.cli import overview

    echo(overview.title(seen))
    echo(overview.running(seen))
    for line in overview.about_processes(seen):
        echo(line)
    if seen.peers:
        echo("")
        _show_table(overview.peers(seen, speeds), overview.style_of)
        for line in overview.about_peers(seen):
            echo(line)
    if seen.channels:
        echo("")
        _show_table(overview.channels(seen, speeds), overview.style_of)
    echo("")
    echo(overview.disk(seen))
    if dead := overview.dead_letters(seen):
        echo(dead)


def _show_table(table: "Table", style: Callable[[str, str], str]) -> None:
    echo_table(table.columns, table.rows, notes=table.notes, style=style)


# ── counting ─────────────────────────────────────────────────────────────────────────────────────


@verb(
    "count",
    keys="`outbox`, a list: `peer`, `channel`, then a number for each state that occurs and `sent` (ever); "
    "`inbox`, a list: `channel`, then a number for each state that occurs, `processed` (ever) and `bytes`.",
)
def count_verb(config_file: Path | None, as_json: bool) -> None:
    """Count messages for each channel: waiting, sent ever, processed ever. Cheap, whatever the backlog."""
    with opened(config_file) as node:
        out = [{"peer": p, "channel": c, **dict(n)} for (p, c), n in sorted(node.outbox.counts().items())]
        came = [{"channel": c, **dict(n)} for c, n in sorted(node.inbox.counts().items())]
    if as_json:
        echo_json({"outbox": out, "inbox": came})
        return
    _show_counts("going out", out, ("peer", "channel"))
    _show_counts("come in", came, ("channel",))
    if not out and not came:
        echo(f"no messages yet ({time.strftime('%Y-%m-%d %H:%M:%S')})")


def _show_counts(title: str, rows: list[dict[str, Any]], names: Iterable[str]) -> None:
    if not rows:
        return
    echo(f"{title}:")
    names = list(names)
    found = dict.fromkeys(key for row in rows for key in row if key not in names and key != "bytes")
    ever = [key for key in ("sent", "processed") if key in found]
    states = [*(key for key in found if key not in ever), *ever]
    cells = [[row.get(column, 0) for column in [*names, *states]] for row in rows]
    echo_table([*names, *(f"{state}>" for state in states)], cells)
