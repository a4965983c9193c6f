"""The verbs that show how a node does: status, count.

Owns how a snapshot (dropr_core/monitor/) is shown. Must not know where its numbers come from.
"""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dropr_core.cli.common import opened, verb
from dropr_core.cli.output import echo, echo_json, echo_table, say_age, say_count, say_size

QUEUES = ("ready", "blocked", "delayed", "leased", "buried")


COMMON = (
    "`pid`, `name`, `since` (seconds of its life), `memory` (bytes), `cpu` (seconds of a processor), `last_report` "
    "(seconds since it wrote something about itself)"
)
KEYS = (
    "`node`, `data`, `storage`, `at` (node time in seconds, for differences), `wall` (seconds since the epoch); "
    f"`processes`: each with {COMMON}; what nobody can tell is null; `daemon` (or null; `store`: what is wrong "
    "with it), `servers` (a list: `urls`), `gateways` (a list: `urls`: name of the gateway → list), `workers` (a "
    "list: `channels`, `threads` and `tasks` (most that functions and async ones handle at once), `at_work` "
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
    "free), `reserve`."
)


@verb("status", keys=KEYS)
def status_verb(config_file: Path | None, as_json: bool) -> None:
    """Show the node at a glance: processes, peers, channels, dead letters."""
    from dropr_core.monitor.gathering import take_snapshot

    with opened(config_file) as node:
        document = take_snapshot(node).as_dict()
    if as_json:
        echo_json(document)
    else:
        show(document)


# ── showing ──────────────────────────────────────────────────────────────────────────────────────


def show(document: Mapping[str, Any]) -> None:
    """The same for people."""
    echo(f"node {document['node']}, {document['storage']} in {document['data']}")
    _show_processes(document["processes"])
    if document["peers"]:
        echo("")
        rows = [
            (
                peer["peer"], peer["state"], peer["waiting"], say_size(peer["bytes"]), say_age(peer["oldest"]),
                peer["awaiting"], peer["dead"], peer["failed"], say_age(peer["next_try_in"]),
            )
            for peer in document["peers"]
        ]  # fmt: skip
        names = ["peer", "state", "waiting>", "size>", "oldest>", "awaiting>", "dead>", "failed>", "next try>"]
        echo_table(names, rows, notes=[_why(peer) for peer in document["peers"]])
        for peer in document["peers"]:
            if body := peer["body"]:
                share = body["bytes"] / body["of"]
                echo(
                    f"  to {peer['peer']}: body of {body['id']}, {say_size(body['bytes'])} of {say_size(body['of'])} "
                    f"({share:.0%})"
                )
            for message in peer["unreadable"]:
                echo(f"  to {peer['peer']}: {message['id']} waits, and what is behind it: {message['reason']}")
    if document["channels"]:
        echo("")
        echo_table(
            ["channel", *(f"{state}>" for state in QUEUES), "processed>", "size>", "oldest>"],
            [
                [
                    channel["channel"], *(channel[state] for state in QUEUES), channel["processed"],
                    say_size(channel["bytes"]), say_age(channel["oldest"]),
                ]
                for channel in document["channels"]
            ],
            notes=[_at_rest(channel) for channel in document["channels"]],
        )  # fmt: skip
    dead = document["dead_letters"]
    if dead["outbox"] or dead["inbox"]:
        echo("")
        echo(
            f"dead letters: {dead['outbox']} going out ('dropr list --state dead --state failed', 'dropr redrive'), "
            f"{dead['inbox']} buried here ('dropr list --state buried', 'dropr kick')"
        )


def _at_rest(channel: Mapping[str, Any]) -> str:
    """That consumers of a channel get nothing, on a line of its own."""
    if not channel["paused"]:
        return ""
    until = "" if channel["paused_for"] is None else f" for {say_age(channel['paused_for'])} more"
    return f"paused{until}: {channel['paused_because']} ('dropr unpause {channel['channel']}')"


def _why(peer: Mapping[str, Any]) -> str:
    """What explains a peer's state, on a line of its own."""
    seen = [] if peer["last_contact"] is None else [f"last heard of {say_age(peer['last_contact'])} ago"]
    return "; ".join([*filter(None, [peer["reason"]]), *seen])


def _show_processes(processes: Mapping[str, Any]) -> None:
    words = []
    if processes["angel"]:
        words.append(f"angel {processes['angel']['pid']}")
    if processes["daemon"]:
        words.append(f"daemon {processes['daemon']['pid'] or 'starting'}")
    for server in processes["servers"]:
        words.append(f"server {server['pid']} ({', '.join(server.get('urls', [])) or 'no doors'})")
    for gateway in processes["gateways"]:
        doors = "; ".join(f"{name}: {', '.join(urls)}" for name, urls in gateway.get("urls", {}).items())
        words.append(f"gateway {gateway['pid']} ({doors})")
    words += [f"{worker.get('name', 'worker')} {worker['pid']}" for worker in processes["workers"]]
    echo(f"running: {', '.join(words)}" if words else "nothing runs here: 'dropr up' starts everything")
    for worker in processes["workers"]:
        places = " and ".join(say_count(worker[kind], kind[:-1]) for kind in ("threads", "tasks") if worker.get(kind))
        longest = worker.get("longest")
        echo(
            f"  {worker.get('name', 'worker')}: {worker.get('at_work', 0)} at work, {places}"
            + (f"; {longest['id']} on {longest['channel']} for {say_age(longest['seconds'])}" if longest else "")
        )
    for child in (processes["angel"] or {}).get("children", []):
        if child["state"] != "running" or child["restarts"]:
            last = f", last {child['last_exit']}" if child["last_exit"] else ""
            echo(f"  {child['name']}: {child['state']}, {say_count(child['restarts'], 'restart')}{last}")


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
