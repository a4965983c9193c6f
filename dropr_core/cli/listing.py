"""The verbs that look at messages: list, show, cat.

Owns how a delivery and a waiting message are shown. They open the node only to look and change nothing.
"""

import io
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import click

from dropr_core.cli.bars import bar
from dropr_core.cli.common import opened, verb
from dropr_core.cli.failures import not_found
from dropr_core.cli.filters import (
    age_option,
    channel_option,
    id_option,
    peer_option,
    resolve,
    side_option,
    state_option,
)
from dropr_core.cli.ids import IDENTIFIER, Beginning, known_id, shortened
from dropr_core.cli.output import (
    echo,
    echo_json,
    echo_json_list,
    echo_table,
    on_terminal,
    pages,
    say_age,
    say_size,
    say_wall,
    text_or_base64,
    write_stream,
)
from dropr_core.monitor.messages import (
    INBOX_STATES,
    OUTBOX_STATES,
    delivery_document,
    envelope_of,
    find_messages,
    held_peers,
    job_document,
    message_document,
    open_body,
    why_it_waits,
)

DELIVERY_KEYS = (
    "`in` (`outbox`), `id`, `peer`, `channel`, `priority`, `state`, `sequence`, `age` (seconds), "
    "`size` (bytes, with a large body), `reason`, `receipt`, `possible_duplicate`"
)
JOB_KEYS = (
    "`in` (`inbox`), `id`, `peer` (the sender), `channel`, `priority`, `state`, `age` (seconds), "
    "`size` (bytes, with a large body), `attempts`, `reason`, `consumer`, `due_in` (seconds or null), "
    "`possible_duplicate`, `rank`, `number` (names it for its whole life here)"
)


def _row(document: dict[str, Any], shown: str) -> list[object]:
    inbound = document["in"] == "inbox"
    tries = str(document["attempts"]) if inbound else "-"
    return [
        shown, "from" if inbound else "to", document["peer"], document["channel"], document["priority"],
        document["state"], say_age(document["age"]), say_size(document["size"]), tries,
    ]  # fmt: skip


COLUMNS = ["id", "way", "peer", "channel", "prio>", "state", "age>", "size>", "tries>"]


@verb(
    "list",
    keys=f"`messages`: a list, of the outbox: {DELIVERY_KEYS}; of the inbox: {JOB_KEYS}. "
    "It is written while it is read; use --limit 0 for everything.",
)
@side_option()
@state_option(list(dict.fromkeys(OUTBOX_STATES + INBOX_STATES)))
@channel_option
@peer_option
@id_option
@age_option
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="Show so many; 0: all.")
def list_verb(
    config_file: Path | None, as_json: bool, side: str, states: tuple[str, ...], limit: int, **filters: Any
) -> None:
    """List messages: one line for each delivery (outbox) and each message that came (inbox)."""
    with opened(config_file) as node:
        found = find_messages(node, side, states, resolve(node, filters))
        if limit:
            found = islice(found, limit)
        if as_json:
            echo_json_list({}, "messages", found)
            return
        some = False
        for page in pages(found):
            short = shortened(one["id"] for one in page) if on_terminal() else {}
            rows = [_row(one, short.get(one["id"], one["id"])) for one in page]
            notes = [one["reason"].strip().splitlines()[-1] if one["reason"].strip() else "" for one in page]
            echo_table(COLUMNS, rows, header=not some, notes=notes)
            some = True
        if not some:
            echo("no messages")
        if side != "outbox":
            for channel in sorted(node.pauses.now()):
                echo(f"{channel} is paused: its consumers get nothing ('dropr status', 'dropr unpause {channel}')")


# ── one message ──────────────────────────────────────────────────────────────────────────────────


@verb(
    "show",
    keys="`id`, `message` (null once its content is dropped; else `sender`, `claimed_sender` (another name in the "
    "envelope, which nobody has proven, or null), `channel`, `priority`, `content_type`, `headers`, `key`, `receipt`, "
    "`created_at` (seconds since the epoch), `delay`, `expires_in`, `size`), "
    "`deliveries` (a list as of `list`, with `result` or `result_base64`), `inbox` (as of `list`, or null), "
    "`run` (null, or of what a schedule sent: `schedule`, `due`, `state`, `result`, `reason`).",
)
@click.argument("message_id", metavar="ID", type=IDENTIFIER)
def show_verb(config_file: Path | None, as_json: bool, message_id: "bytes | Beginning") -> None:
    """Show everything that is known of one message, but not its body (see cat)."""
    from dropr_core.model.envelope import body_size, header_of
    from dropr_core.model.names import format_id, is_of_run

    with opened(config_file) as node:
        message_id = known_id(node, message_id)
        deliveries, job = node.outbox.status(message_id), node.inbox.status(message_id)
        data = envelope_of(node, message_id)
        held, waits = held_peers(node), why_it_waits(node, message_id)
        run = None
        if is_of_run(message_id):
            from dropr_core.cli.schedule import run_document

            run = run_document(node, message_id, data)
    if not deliveries and job is None and data is None:
        raise not_found(f"{format_id(message_id)}: no such message here, or it ended and was forgotten")
    came = None if job is None else job.sender
    head = None if data is None else {**message_document(header_of(data), came), "size": body_size(data)}
    sent = [{**delivery_document(d, held), **text_or_base64(d.result, "result")} for d in deliveries]
    for one in sent:
        if one["state"] == "queued":
            one["reason"] = one["reason"] or waits.get(one["peer"], "")
    got = None if job is None else job_document(job)
    if as_json:
        echo_json({"id": format_id(message_id), "message": head, "deliveries": sent, "inbox": got, "run": run})
        return
    echo(f"message {format_id(message_id)}")
    if head is None:
        echo("  its content is no longer kept")
    else:
        _show_head(head)
    if run is not None:
        echo(f"  run of schedule {run['schedule'] or '(not known any more)'}, due {run['due']}")
        if run["result"]:
            echo(f"    result: {run['result']}")
    for delivery in sent:
        echo(f"  to {delivery['peer']}: {delivery['state']}, {_life(delivery)}, position {delivery['sequence']}")
        result = delivery["result"] or delivery["result_base64"]
        if result:
            echo(f"    result: {result}")
        _show_reason(delivery, echo)
    if got is not None:
        due = "" if got["due_in"] is None else f", due in {say_age(got['due_in'])}"
        consumer = f", by {got['consumer']}" if got["consumer"] else ""
        echo(f"  here, from {got['peer']}: {got['state']}, {_life(got)}, {got['attempts']} attempts{due}{consumer}")
        _show_reason(got, echo)


def _life(document: dict[str, Any]) -> str:
    again = ", possibly a duplicate" if document["possible_duplicate"] else ""
    return f"{say_age(document['age'])} old{again}"


def _show_reason(document: dict[str, Any], say: Callable[[str], None]) -> None:
    for line in document["reason"].splitlines():
        say(f"    {line}")


def _show_head(head: dict[str, Any]) -> None:
    claimed = f" (it claims to be from {head['claimed_sender']})" if head["claimed_sender"] else ""
    echo(f"  channel {head['channel']}, priority {head['priority']}, from {head['sender']}{claimed}")
    when = say_wall(head["created_at"])
    echo(f"  sent {when} (the sender's clock), {say_size(head['size'])} of {head['content_type']}")
    extras = [f"{name} {head[name]}" for name in ("key",) if head[name]]
    extras += [f"{name} {say_age(head[name])}" for name in ("delay", "expires_in") if head[name] is not None]
    extras += ["wants a receipt"] if head["receipt"] else []
    if extras:
        echo(f"  {', '.join(extras)}")
    for name, value in head["headers"].items():
        echo(f"  header {name}: {value}")


def _length(body: BinaryIO) -> int:
    """Bytes of a file, which is then read from its start."""
    size = body.seek(0, io.SEEK_END)
    body.seek(0)
    return size


@verb("cat")
@click.argument("message_id", metavar="ID", type=IDENTIFIER)
def cat_verb(config_file: Path | None, message_id: "bytes | Beginning") -> None:
    """Write the body of one message to standard output, byte for byte."""
    from dropr_core.model.names import format_id

    with opened(config_file) as node:
        message_id = known_id(node, message_id)
        body = open_body(node, message_id)
        if body is None:
            known = node.outbox.status(message_id) or node.inbox.status(message_id)
            why = "its body is no longer kept" if known else "no such message here, or it ended and was forgotten"
            raise not_found(f"{format_id(message_id)}: {why}")
        with body, bar(format_id(message_id), 0 if on_terminal() else _length(body)) as step:
            write_stream(body, step=step)
