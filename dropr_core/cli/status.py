"""The verbs that show how a node does: status, count.

Owns what is gathered (stores, and the reports that processes leave in the run directory) and how it
is shown. A report is believed only while the process that wrote it holds its lock.
"""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dropr_core.cli.common import opened, verb
from dropr_core.cli.output import echo, echo_json, echo_table, say_age, say_count, say_size
from dropr_core.cli.peers import daemon_report

if TYPE_CHECKING:
    from dropr_core.api.runtime import Runtime

QUEUES = ("ready", "blocked", "delayed", "leased", "buried")


@verb(
    "status",
    keys="`node`, `data`, `storage`; `processes`: `daemon` (`pid`, or null), `servers` (a list: `pid`, `urls`), "
    "`gateways` (a list: `pid`, `urls`: name of the gateway → list), "
    "`workers` (a list, one for each process: `pid`, `name`, `channels`, `threads` and `tasks` (most that functions "
    "and async ones handle at once), `at_work` (messages at this moment), `longest` (null, or of the one that takes "
    "longest: `id`, `channel`, `seconds`)), `angel` (null, or `pid`, `children`: a list: `name`, `state`, `pid`, "
    "`restarts`, `last_exit`); "
    "`peers`, a list: `peer`, `mode` (`push`, `pull`, or null: not in the configuration), `state` (`up`, `idle`, "
    "`resting`, `refused`, `held`, or `unknown`: no daemon runs), `reason`, `waiting` (deliveries), `bytes`, `oldest` "
    "(seconds or null), `awaiting` (receipts), `held`, `failures`, `next_try_in` (seconds or null), `body` "
    "(a large body on its way: `id`, `bytes`, `of`; or null), `last_contact` (seconds since it last asked "
    "here, or null), `unreadable` (messages whose large body cannot be read here, a list: `id`, `lane`, `reason`), "
    "`dead`, `failed`; "
    "`channels`, a list: `channel`, `ready`, `blocked`, `delayed`, `leased`, `buried`, `processed` (ever), "
    "`bytes`, `oldest` (seconds or null), `paused`, `paused_for` (seconds; null: until 'dropr unpause'), "
    "`paused_because`; `dead_letters`: `outbox` (dead and failed), `inbox` (buried).",
)
def status_verb(config_file: Path | None, as_json: bool) -> None:
    """Show the node at a glance: processes, peers, channels, dead letters."""
    with opened(config_file) as node:
        document = gather(node)
    if as_json:
        echo_json(document)
    else:
        show(document)


def gather(node: "Runtime") -> dict[str, Any]:
    """Everything that status tells, as its JSON has it."""
    channels = _channels(node)
    peers = _peers(node)
    return {
        "node": node.name,
        "data": str(node.config.data),
        "storage": node.config.storage.use,
        "processes": _processes(node),
        "peers": peers,
        "channels": channels,
        "dead_letters": {
            "outbox": sum(peer["dead"] + peer["failed"] for peer in peers),
            "inbox": sum(channel["buried"] for channel in channels),
        },
    }


# ── gathering ────────────────────────────────────────────────────────────────────────────────────


def _processes(node: "Runtime") -> dict[str, Any]:
    from dropr_core.angel.status_file import read_state
    from dropr_core.system.locks import is_held
    from dropr_core.system.os_errors import store_errors
    from dropr_core.system.presence import living

    directory = node.run_directory
    daemon = daemon_report(node)
    found: dict[str, Any] = {"daemon": None if daemon is None else {"pid": daemon.get("pid")}}
    with store_errors(directory):
        for name in ("server", "worker", "gateway"):
            found[f"{name}s"] = list(living(directory, name))
        angel = read_state(directory / "angel.json") if is_held(directory / "angel.lock") else None
    for worker in found["workers"]:
        if longest := worker.get("longest"):
            longest["seconds"] = round(max(0.0, time.time() - longest.pop("since")), 1)
    found["angel"] = None
    if angel is not None:
        children = [
            {"name": c.name, "state": c.state, "pid": c.pid, "restarts": c.restarts, "last_exit": c.last_exit}
            for c in angel.children
        ]
        found["angel"] = {"pid": angel.pid, "children": children}
    return found


def _peers(node: "Runtime") -> list[dict[str, Any]]:
    daemon = daemon_report(node) or {}
    seen: Mapping[str, Mapping[str, Any]] = daemon.get("peers", {})
    oldest: dict[str, float] = {}
    for lane in node.outbox.lanes():
        oldest[lane.lane.peer] = max(oldest.get(lane.lane.peer, 0.0), lane.oldest)
    ended: dict[str, dict[str, int]] = {}
    for (peer, _channel), counts in node.outbox.counts().items():
        mine = ended.setdefault(peer, {"dead": 0, "failed": 0})
        for end in mine:
            mine[end] += counts.get(end, 0)
    kept, configured = node.outbox.peers(), node.config.peers
    from dropr_core.serving.contacts import read_contacts

    heard = read_contacts(node.run_directory)
    now, rows = node.clock.now(), []
    for name in [*configured, *sorted({*kept, *ended} - {*configured})]:
        state, report = kept.get(name), seen.get(name, {})
        if report.get("state") == "idle":  # nothing to ship: what the fetching side says is the news
            report = report.get("fetch", report)
        held = state is not None and state.held
        next_try = report.get("next_try")
        rows.append(
            {
                "peer": name,
                "mode": configured[name].mode if name in configured else None,
                "state": "held" if held else report.get("state", "unknown"),
                "reason": state.reason if held and state else report.get("reason", ""),
                "waiting": state.waiting if state else 0,
                "bytes": state.bytes if state else 0,
                "oldest": round(oldest[name], 3) if name in oldest else None,
                "awaiting": state.awaiting if state else 0,
                "held": held,
                "failures": report.get("failures", 0),
                "next_try_in": None if next_try is None or held else round(max(0.0, next_try - now), 3),
                "body": report.get("body"),
                "unreadable": report.get("unreadable", []),
                "last_contact": round(heard[name], 3) if name in heard else None,
                **ended.get(name, {"dead": 0, "failed": 0}),
            }
        )
    return rows


def _channels(node: "Runtime") -> list[dict[str, Any]]:
    counts, oldest, paused = node.inbox.counts(), node.inbox.oldest(), node.pauses.now()
    now, rows = node.clock.now(), []
    for channel in sorted({*counts, *oldest, *paused}):
        pause = paused.get(channel)
        mine = counts.get(channel, {})
        rows.append(
            {
                "channel": channel,
                **{state: mine.get(state, 0) for state in QUEUES},
                "processed": mine.get("processed", 0),
                "bytes": mine.get("bytes", 0),
                "oldest": round(oldest[channel], 3) if channel in oldest else None,
                "paused": pause is not None,
                "paused_for": None if pause is None or pause.until is None else round(pause.until - now, 3),
                "paused_because": "" if pause is None else pause.reason,
            }
        )
    return rows


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
