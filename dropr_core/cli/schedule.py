"""The verb about schedules: schedule.

Owns its words, and how a schedule and its runs are printed. What is known of them and done to them is in
`monitor/schedules.py`, for the page as well; what is due when is decided in `schedules/`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dropr_core.cli.common import DURATION, MOMENT, opened, verb
from dropr_core.cli.failures import not_found
from dropr_core.cli.output import echo, echo_json, echo_table, say_count

if TYPE_CHECKING:
    from dropr_core.api.runtime import Runtime
    from dropr_core.model.names import MessageId

ACTIONS = ("list", "show", "add", "run", "pause", "resume", "remove")


@verb(
    "schedule",
    keys="of list `schedules`, a list, of show and add one: `name`, `rule` (text), `words` (the same as a "
    "sentence; empty: there is none), `zone` (of a cron expression, or null), `channel`, `to` (a list), "
    "`from` (`file` or `added`), `state` (`on`, `paused`, `disabled`, `over` or `broken`), `reason`, `next` and `last` "
    "(ISO 8601, or null), `last_state` (how that run ended, where this node knows it already), "
    "`skipped` (due times left out, ever); of show also `runs`, a list: `due`, `at` (when it was put), `id`, `manual`, "
    "`state`, `result`, `reason`; of run `name`, `id`, `due`; of the others `name` and whether it was `changed`.",
)
@click.argument("action", type=click.Choice(ACTIONS), default="list")
@click.argument("name", required=False)
@click.option("--cron", metavar="EXPRESSION", help="add: due by a cron expression, such as '30 4 * * mon-fri', @daily.")
@click.option("--zone", metavar="NAME", help="add: the time zone of --cron, such as Europe/Berlin. Default: UTC.")
@click.option("--every", type=DURATION, metavar="DURATION", help="add: due at each multiple of it since 1970 (UTC).")
@click.option("--at", type=MOMENT, metavar="MOMENT", help="add: due once, such as 2026-12-24T18:00+01:00.")
@click.option("--channel", metavar="NAME", help="add: where the message goes; by the channel's route, or here.")
@click.option("--to", multiple=True, metavar="NAME", help="add: a peer or group instead of the channel's; repeatable.")
@click.option("--webhook", metavar="URL", help="add: POST it there, instead of a channel; workers do.")
@click.option("--value", metavar="JSON", help="add: what is sent, through the channel's serializer.")
@click.option("--text", metavar="TEXT", help="add: what is sent, as text.")
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="add: the file whose content is sent.")
@click.option("--missed", type=click.Choice(["skip", "one", "all"]), help="add: what passed unseen. Default: one.")
@click.option("--jitter", type=DURATION, metavar="DURATION", help="add: up to so much later, by chance.")
@click.option("--priority", type=click.IntRange(0, 9), help="add: 0 (first) to 9 (last).")
@click.option("--expires-in", type=DURATION, metavar="DURATION", help="add: no consumer gets it later.")
def schedule_verb(config_file: Path | None, as_json: bool, action: str, name: str | None, **options: Any) -> None:
    """Messages at times of the clock: list, show NAME, add NAME, run NAME (now), pause, resume and remove NAME.

    The daemon makes them happen. What stands in the node's file is changed there; pause and resume take those as well.
    """
    given = {word: one for word, one in options.items() if one not in (None, ())}
    if action != "add" and given:
        raise click.UsageError(f"--{next(iter(given)).replace('_', '-')} goes with 'dropr schedule add'")
    if (name is None) != (action == "list"):
        raise click.UsageError(f"dropr schedule {action} " + ("takes no name" if name else "needs a name"))
    with opened(config_file, change=action not in ("list", "show")) as node:
        if action == "list":
            _list(node, as_json=as_json)
        elif action == "add":
            _add(node, str(name), given, as_json=as_json)
        elif action == "show":
            _show(node, str(name), as_json=as_json)
        elif action == "run":
            _run(node, str(name), as_json=as_json)
        else:
            _change(node, action, str(name), as_json=as_json)


# ── looking ──────────────────────────────────────────────────────────────────────────────────────


def _list(node: "Runtime", *, as_json: bool) -> None:
    from dropr_core.monitor.schedules import schedule_documents

    found = schedule_documents(node)
    if as_json:
        echo_json({"schedules": found})
        return
    if not found:
        echo("no schedules: name them under `schedules:`, or 'dropr schedule add'")
        return
    rows = [
        (one["name"], one["rule"], one["channel"], one["state"], one["next"] or "-", one["last"] or "-")
        for one in found
    ]
    echo_table(["schedule", "when", "channel", "state", "next", "last"], rows, notes=[one["reason"] for one in found])
    _say_who(node)


def _show(node: "Runtime", name: str, *, as_json: bool) -> None:
    from dropr_core.monitor.schedules import run_documents, schedule_documents

    one = next(iter(schedule_documents(node, name)), None)
    if one is None:
        raise _unknown(name)
    runs = run_documents(node, name)
    if as_json:
        echo_json({**one, "runs": runs})
        return
    echo(f"schedule {name}: {one['rule']}, to channel {one['channel']}, {one['state']}")
    echo(f"  next {one['next'] or 'never'}; {say_count(one['skipped'], 'due time')} left out so far")
    if one["reason"]:
        echo(f"  {one['reason']}")
    for run in runs:
        echo(f"  {run['due']}{' (by hand)' if run['manual'] else ''}: {run['state']}  {run['id']}")
        for text in (run["result"], run["reason"]):
            for line in (text or "").splitlines():
                echo(f"    {line}")
    _say_who(node)


def run_document(node: "Runtime", message_id: "MessageId", data: bytes | None) -> dict[str, Any]:
    """Of which schedule a message is a run, and what came of it."""
    from dropr_core.model.envelope import header_of
    from dropr_core.model.names import format_id
    from dropr_core.schedules.firing import DUE, HEADER
    from dropr_core.schedules.state import StateFile

    headers = {} if data is None else header_of(data).headers
    name = headers.get(HEADER, "")
    found = StateFile(node.documents, name).look().find(format_id(message_id)) if name else None
    ended = {"state": "", "result": None, "reason": ""}
    if found is not None:
        ended = {"state": found.state, "result": found.result, "reason": found.reason}
    return {"schedule": name, "due": headers.get(DUE, ""), **ended}


def _say_who(node: "Runtime") -> None:
    from dropr_core.monitor.process_reports import daemon_runs

    if not daemon_runs(node):
        echo("no daemon runs here, so nothing happens: 'dropr daemon' or 'dropr up'")


def _say_worker(node: "Runtime", channel: str) -> None:
    from dropr_core.system.presence import living

    if not any(channel in one.get("channels", ()) for one in living(node.run_directory, "worker")):
        echo("no worker calls its address yet, and its messages wait: start 'dropr worker', or send SIGHUP to one")


# ── changing ─────────────────────────────────────────────────────────────────────────────────────


def _add(node: "Runtime", name: str, given: Mapping[str, Any], *, as_json: bool) -> None:
    import json

    from dropr_core.config.units import format_duration
    from dropr_core.errors import UsageError
    from dropr_core.model import topics
    from dropr_core.model.recurrence import to_moment
    from dropr_core.monitor.schedules import schedule_documents
    from dropr_core.plugin.registry import find, read_options
    from dropr_core.schedules.definitions import Definitions
    from dropr_core.schedules.state import StateFile

    words = dict(given)
    for word in ("every", "jitter", "expires_in"):
        if word in words:
            words[word] = format_duration(words[word])
    for word, change in (("at", str), ("to", list), ("file", lambda path: str(path.absolute()))):
        if word in words:
            words[word] = change(words[word])
    if "value" in words:
        try:
            words["value"] = json.loads(words["value"])
        except (ValueError, RecursionError) as error:
            raise click.UsageError(f"--value is no JSON: {error}; for text use --text") from None
    if "webhook" in words:
        read_options(find("handler", "webhook"), {"target": words["webhook"]}, "--webhook")
    now = to_moment(node.clock.wall())
    if "at" in given and given["at"].timestamp() * 1000 <= now:
        raise UsageError(f"--at {given['at'].isoformat()} has passed; to send something now: 'dropr send'")
    made = Definitions(node.config, node.documents).add(name, words)
    with StateFile(node.documents, name).changing() as state:
        state.begin(made.rule(), now)
    node.notifier.notify(topics.CONTROL)
    (one,) = schedule_documents(node, name)
    if as_json:
        echo_json(one)
    else:
        echo(f"{name} is added; next {one['next'] or 'never'}")
        _say_who(node)
        if made.webhook is not None:
            _say_worker(node, made.target)


def _run(node: "Runtime", name: str, *, as_json: bool) -> None:
    from dropr_core.monitor import schedules
    from dropr_core.schedules.firing import say_moment

    if not schedules.is_known(node, name):
        raise _unknown(name)
    run = schedules.run_now(node, name)
    if as_json:
        echo_json({"name": name, "id": run.id, "due": say_moment(run.due)})
    else:
        echo(run.id)


def _change(node: "Runtime", action: str, name: str, *, as_json: bool) -> None:
    from dropr_core.monitor import schedules

    if not schedules.is_known(node, name):
        raise _unknown(name)
    does = {"remove": schedules.remove, "pause": schedules.pause, "resume": schedules.resume}[action]
    changed = does(node, name)
    if as_json:
        echo_json({"name": name, "changed": changed})
        return
    done = {"remove": "is removed", "pause": "is paused; what comes due is left out", "resume": "goes on"}[action]
    echo(f"{name} {done}" if changed else f"{name}: nothing changed")


def _unknown(name: str) -> Exception:
    return not_found(f"no schedule is called {name}: see 'dropr schedule list'")
