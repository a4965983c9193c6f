"""The verbs that look at messages: list, show, cat.

Owns how a delivery and a waiting message are shown. They open the node only to look and change nothing.
"""

import io
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from dropr_core.cli.bars import bar
from dropr_core.cli.common import opened, verb
from dropr_core.cli.failures import not_found
from dropr_core.cli.filters import (
    INBOX_STATES,
    OUTBOX_STATES,
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
from dropr_core.cli.selection import select, walk_inbox, walk_outbox

if TYPE_CHECKING:
    from dropr_core.api.runtime import Runtime
    from dropr_core.contracts.storage import Delivery, JobInfo
    from dropr_core.model.message import Message
    from dropr_core.model.names import MessageId

DELIVERY_KEYS = (
    "`in` (`outbox`), `id`, `peer`, `channel`, `priority`, `state`, `sequence`, `age` (seconds), "
    "`size` (bytes, with a large body), `reason`, `receipt`, `possible_duplicate`"
)
JOB_KEYS = (
    "`in` (`inbox`), `id`, `peer` (the sender), `channel`, `priority`, `state`, `age` (seconds), "
    "`size` (bytes, with a large body), `attempts`, `reason`, `consumer`, `due_in` (seconds or null), "
    "`possible_duplicate`, `rank`, `number` (names it for its whole life here)"
)


def delivery_document(delivery: "Delivery", held: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A delivery in JSON; what is queued for a peer in ``held`` is shown as held."""
    from dropr_core.model.names import format_id, priority_of

    return {
        "in": "outbox",
        "id": format_id(delivery.id),
        "peer": delivery.peer,
        "channel": delivery.channel,
        "priority": priority_of(delivery.priority),
        "state": "held" if delivery.state == "queued" and delivery.peer in held else str(delivery.state),
        "sequence": delivery.sequence,
        "age": round(delivery.age, 3),
        "size": delivery.size,
        "reason": delivery.reason,
        "receipt": delivery.receipt,
        "possible_duplicate": delivery.possible_duplicate,
    }


def job_document(job: "JobInfo") -> dict[str, Any]:
    """A message of the inbox in JSON."""
    from dropr_core.model.names import format_id

    return {
        "in": "inbox",
        "id": format_id(job.id),
        "peer": job.sender,
        "channel": job.channel,
        "priority": job.priority,
        "state": str(job.state),
        "age": round(job.age, 3),
        "size": job.size,
        "attempts": job.attempts,
        "reason": job.reason,
        "consumer": job.consumer,
        "due_in": None if job.due_in is None else round(job.due_in, 3),
        "possible_duplicate": job.possible_duplicate,
        "rank": job.rank,
        "number": job.number,
    }


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
        found = _found(node, side, states, resolve(node, filters))
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


def _found(node: "Runtime", side: str, states: tuple[str, ...], filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for half, known in (("outbox", OUTBOX_STATES), ("inbox", INBOX_STATES)):
        here = [state for state in states if state in known]
        if side not in (half, "both") or (states and not here):
            continue
        if half == "inbox":
            for job in walk_inbox(node.inbox, select(states=here, **filters)):
                document = job_document(job)
                document["size"] += _body_beside(node.inbox.envelope(job.id))
                yield document
            continue
        from dropr_core.model.names import priority_of

        held = held_peers(node)  # held is what is queued for a peer that is held; not every storage says so
        stored = {*here, "queued", "held"} if {"queued", "held"} & {*here} else {*here}
        selection = select(states=sorted(stored), **filters)
        for delivery in walk_outbox(node.outbox, selection):
            document = delivery_document(delivery, held)
            if priority_of(delivery.priority) != delivery.priority:
                document["size"] += _body_beside(node.outbox.envelope(delivery.id))
            if not here or document["state"] in here:
                yield document


def _body_beside(envelope: bytes | None) -> int:
    """Bytes of a body that is a file beside the store; 0 if it is in the envelope, or no longer kept."""
    from dropr_core.model.envelope import reference_of

    outside = None if envelope is None else reference_of(envelope)
    return 0 if outside is None else outside.size


def held_peers(node: "Runtime") -> frozenset[str]:
    """The peers to which nothing is shipped now."""
    return frozenset(name for name, state in node.outbox.peers().items() if state.held)


def why_it_waits(node: "Runtime", message_id: "MessageId") -> dict[str, str]:
    """Peer → what the daemon says of a message that waits for a reason of its own."""
    from dropr_core.model.names import format_id
    from dropr_core.monitor.process_reports import daemon_report

    peers = (daemon_report(node) or {}).get("peers", {})
    return {
        name: str(one["reason"])
        for name, peer in peers.items()
        for one in peer.get("unreadable", ())
        if one["id"] == format_id(message_id)
    }


# ── one message ──────────────────────────────────────────────────────────────────────────────────


def envelope_of(node: "Runtime", message_id: "MessageId") -> bytes | None:
    """The stored bytes of a message, from whichever half keeps them."""
    found = node.outbox.envelope(message_id)
    return node.inbox.envelope(message_id) if found is None else found


def open_body(node: "Runtime", message_id: "MessageId") -> BinaryIO | None:
    """The body of a message as a file, from whichever half keeps it."""
    from dropr_core.model.envelope import decode, reference_of

    data = envelope_of(node, message_id)
    if data is None:
        return None
    outside = reference_of(data)
    if outside is None:
        return io.BytesIO(decode(data).body)
    if node.outbox.envelope(message_id) is not None:
        return node.bodies.open_sent(message_id, outside)
    job = node.inbox.status(message_id)
    return None if job is None else node.bodies.open_received(job.sender, message_id, outside)


def message_document(message: "Message", sender: str | None) -> dict[str, Any]:
    """What the sender fixed, in JSON. ``sender``: the peer that proved to be it, for a message that came in."""
    claimed = None if sender is None or sender == message.sender else message.sender
    return {
        "sender": sender or message.sender,
        "claimed_sender": claimed,
        "channel": message.channel,
        "priority": message.priority,
        "content_type": message.content_type,
        "headers": dict(message.headers),
        "key": message.key,
        "receipt": message.receipt,
        "created_at": message.created_at,
        "delay": message.delay,
        "expires_in": message.expires_in,
    }


@verb(
    "show",
    keys="`id`, `message` (null once its content is dropped; else `sender`, `claimed_sender` (another name in the "
    "envelope, which nobody has proven, or null), `channel`, `priority`, `content_type`, `headers`, `key`, `receipt`, "
    "`created_at` (seconds since the epoch), `delay`, `expires_in`, `size`), "
    "`deliveries` (a list as of `list`, with `result` or `result_base64`), `inbox` (as of `list`, or null).",
)
@click.argument("message_id", metavar="ID", type=IDENTIFIER)
def show_verb(config_file: Path | None, as_json: bool, message_id: "bytes | Beginning") -> None:
    """Show everything that is known of one message, but not its body (see cat)."""
    from dropr_core.model.envelope import body_size, header_of
    from dropr_core.model.names import format_id

    with opened(config_file) as node:
        message_id = known_id(node, message_id)
        deliveries, job = node.outbox.status(message_id), node.inbox.status(message_id)
        data = envelope_of(node, message_id)
        held, waits = held_peers(node), why_it_waits(node, message_id)
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
        echo_json({"id": format_id(message_id), "message": head, "deliveries": sent, "inbox": got})
        return
    echo(f"message {format_id(message_id)}")
    if head is None:
        echo("  its content is no longer kept")
    else:
        _show_head(head)
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
