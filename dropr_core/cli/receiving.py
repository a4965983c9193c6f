"""The verb that takes messages out of the inbox: receive.

Owns the order that makes a pipe safe: a message is acknowledged only after it was written and
flushed. Who reads our output and goes away gets the message again next time.
"""

import json
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from dropr_core.cli.bars import bar
from dropr_core.cli.common import DURATION, Settings, opened, verb
from dropr_core.cli.failures import TIMED_OUT, Stop, not_found
from dropr_core.cli.logs import one_line
from dropr_core.cli.output import echo, say_size, text_or_base64, write_bytes, write_stream
from dropr_core.system.exit_codes import Exit

if TYPE_CHECKING:
    from dropr_core.api.runtime import Runtime
    from dropr_core.model.message import Message

Body = Callable[[], BinaryIO]
Messages = Generator[tuple[dict[str, Any], Body, int], None, None]
"""What is known of a message, what opens its body, and how many bytes that has."""
FORMATS = ("body", "raw", "json", "table")


@verb(
    "receive",
    keys="one document a line for each message: `id`, `channel`, `sender`, `priority`, `attempt` (0 with --peek), "
    "`possible_duplicate`, `content_type`, `headers`, `key`, `created_at` (seconds since the epoch), "
    "`body` (if it is UTF-8 text, else null), `body_base64` (if it is not, else null).",
)
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Stop after so many messages.")
@click.option(
    "--wait",
    type=DURATION,
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Stop after so long without a message (exit code 124 if none came at all); 0: take what is there.",
)
@click.option("--follow", is_flag=True, help="Never stop; wait for the next message.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="body",
    show_default=True,
    help="body: each body and a newline; raw: the bytes alone; json: as --json; table: a line about each, which takes "
    "nothing, as --peek.",
)
@click.option("--peek", is_flag=True, help="Show what is ready and leave it there: nothing is leased or acknowledged.")
@click.pass_context
def receive_verb(
    ctx: click.Context,
    config_file: Path | None,
    as_json: bool,
    channels: tuple[str, ...],
    limit: int | None,
    wait: float,
    follow: bool,
    form: str,
    peek: bool,
) -> None:
    """Take messages from channels and print them. Each is acknowledged once it was written.

    If the output breaks (a full disk, a closed pipe), the message in hand goes back to the queue.
    """
    peek = peek or (form == "table" and not as_json)  # who sees sixty bytes of a body has not received it
    if peek and (follow or wait):
        raise click.UsageError("--peek and --format table show what is there now: --wait and --follow do not fit")
    if "stdout" in ctx.ensure_object(Settings).closed:
        raise Stop(
            Exit.IO_ERROR, "standard output is closed, so nothing was taken: what cannot be written stays queued"
        )
    form = "json" if as_json else form
    count = 0
    with opened(config_file, change=not peek) as node:
        for channel in channels:
            _known_channel(node, channel, waits=follow or bool(wait))
        source = _peeked(node, channels, limit) if peek else _taken(node, channels, limit, None if follow else wait)
        # Closed before the node is: whatever goes wrong, the message in hand is given back first.
        with closing(source):
            for document, body, size in source:
                _print(form, document, body, size, first=count == 0)
                count += 1
    if count:
        return
    if wait and not follow:
        raise Stop(TIMED_OUT, f"no message on {', '.join(channels)} within {wait:g} s")
    if form == "table":
        echo("no messages")


def _known_channel(node: "Runtime", channel: str, *, waits: bool) -> None:
    """Say so if nothing is known of a channel: it may be a typing mistake. Stops unless something may still come."""
    from dropr_core.config.options import suggest
    from dropr_core.model.names import DEFAULT_CHANNEL, check_stored_channel

    check_stored_channel(channel)
    known = {DEFAULT_CHANNEL, *node.config.channels, *node.inbox.counts()}
    if channel in known:
        return
    text = (
        f"nothing ever came on channel {channel}, and the configuration has none of this name{suggest(channel, known)}"
    )
    if not waits:
        raise not_found(text)
    click.echo(f"dropr: {one_line(text)}; waiting", err=True)


def _taken(node: "Runtime", channels: tuple[str, ...], limit: int | None, wait: float | None) -> Messages:
    from dropr_core.api.node import Node

    source = Node(node).receive(*channels, limit=limit, wait=wait)
    try:
        for received in source:
            yield (
                {
                    "id": received.id,
                    "channel": received.channel,
                    "sender": received.sender,
                    "priority": received.priority,
                    "attempt": received.attempt,
                    "possible_duplicate": received.possible_duplicate,
                    **_facts(received.message),
                },
                received.open,
                received.size,
            )
    finally:
        close = getattr(source, "close", None)  # a generator has it, an iterator need not
        if close is not None:
            close()


def _facts(message: "Message") -> dict[str, Any]:
    return {
        "content_type": message.content_type,
        "headers": dict(message.headers),
        "key": message.key,
        "created_at": message.created_at,
    }


def _peeked(node: "Runtime", channels: tuple[str, ...], limit: int | None) -> Messages:
    from dropr_core.model.envelope import body_size, header_of
    from dropr_core.model.names import format_id
    from dropr_core.monitor.messages import open_body
    from dropr_core.monitor.selection import select, walk_inbox

    left = limit
    for channel in channels:
        for job in walk_inbox(node.inbox, select(states=["ready"], channel=channel), left):
            data = node.inbox.envelope(job.id)
            if data is None:  # a consumer was faster
                continue
            body = open_body(node, job.id)
            if body is None:
                continue
            yield (
                {
                    "id": format_id(job.id),
                    "channel": job.channel,
                    "sender": job.sender,
                    "priority": job.priority,
                    "attempt": 0,
                    "possible_duplicate": job.possible_duplicate,
                    **_facts(header_of(data)),
                },
                partial(_same, body),
                body_size(data),
            )
            left = None if left is None else left - 1
        if left == 0:
            return


def _same(body: BinaryIO) -> BinaryIO:
    return body


def _print(form: str, document: Mapping[str, Any], opener: Body, size: int, *, first: bool) -> None:
    with opener() as file:
        if form in {"body", "raw"}:
            with bar(document["id"], size if not sys.stdout.isatty() else 0) as step:
                write_stream(file, b"\n" if form == "body" else b"", step)
            return
        body = file.read(-1 if form == "json" else 64)
    if form == "json":
        write_bytes(json.dumps({**document, **text_or_base64(body)}).encode("ascii") + b"\n")
    else:
        if first:
            echo(f"{'id':<36}  {'channel':<12}  {'from':<12}  prio  {'size':>8}  body")
        start = body[:60].decode("utf-8", "replace") + ("…" if size > 60 else "")
        # Its newline and its flush come with it: acknowledged is only what has left this process.
        line = (
            f"{document['id']}  {document['channel']:<12}  {document['sender']:<12}  {document['priority']:>4}  "
            f"{say_size(size):>8}  {start}"
        )
        write_bytes(one_line(line).encode("utf-8", "replace") + b"\n")
