"""The verbs that change what becomes of messages: cancel, bury, kick, redrive.

Owns their words and when an answer is no (exit 1) or nothing is there (exit 66). What they do is in
`monitor/actions.py`, as for the page.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dropr_core.cli.common import opened, verb
from dropr_core.cli.failures import Stop, not_found
from dropr_core.cli.filters import age_option, channel_option, id_option, peer_option, resolve
from dropr_core.cli.ids import IDENTIFIER, Beginning, known_id
from dropr_core.cli.output import echo, echo_json, say_count
from dropr_core.monitor import actions
from dropr_core.monitor.selection import select
from dropr_core.system.exit_codes import Exit

if TYPE_CHECKING:
    from dropr_core.model.names import MessageId


@verb("cancel", keys="`id`, `cancelled` (deliveries), `too_late` (deliveries under way, accepted or ended).")
@click.argument("message_id", metavar="ID", type=IDENTIFIER)
@click.option("--peer", "peers", multiple=True, metavar="NAME", help="Only its delivery to this peer; may be repeated.")
def cancel_verb(
    config_file: Path | None, as_json: bool, message_id: "bytes | Beginning", peers: tuple[str, ...]
) -> None:
    """Take back a message that was not shipped yet. Exit 1 if it was too late for all of it."""
    from dropr_core.model.names import format_id

    with opened(config_file, change=True) as node:
        message_id = known_id(node, message_id)
        shown = format_id(message_id)
        if not node.outbox.status(message_id):
            raise not_found(f"{shown}: no such message was sent from here, or it ended and was forgotten")
        cancelled, late = actions.cancel(node, message_id, peers)
    if as_json:
        echo_json({"id": shown, "cancelled": cancelled, "too_late": late})
    else:
        tail = f"; too late for {late}" if late else ""
        echo(f"{say_count(cancelled, 'delivery', 'deliveries')} of {shown} cancelled{tail}")
    if not cancelled:
        raise Stop(Exit.FAILED)


@verb("bury", keys="`id`, `buried` (true or false).")
@click.argument("message_id", metavar="ID", type=IDENTIFIER)
@click.option("--reason", default="buried by hand", show_default=True, help="Kept with it; its sender sees it.")
def bury_verb(config_file: Path | None, as_json: bool, message_id: "bytes | Beginning", reason: str) -> None:
    """Put a message that waits in the inbox on the dead-letter list. Exit 1 if it is leased or has ended."""
    from dropr_core.model.names import format_id

    with opened(config_file, change=True) as node:
        message_id = known_id(node, message_id)
        shown = format_id(message_id)
        buried = actions.bury(node, message_id, reason)
        info = node.inbox.status(message_id)
    if not buried and info is None:
        raise not_found(f"{shown}: no such message came in here, or it ended and was forgotten")
    if as_json:
        echo_json({"id": shown, "buried": buried})
    elif buried:
        echo(f"{shown} is buried; 'dropr kick --id {shown}' brings it back")
    if not buried:
        state = "gone" if info is None else str(info.state)
        raise Stop(Exit.FAILED, "" if as_json else f"{shown} is {state}: only a message that waits can be buried")


@verb("kick", keys="`kicked`: how many.")
@channel_option
@peer_option
@id_option
@age_option
@click.option("--all", "everything", is_flag=True, help="Every buried and delayed message, without any filter.")
def kick_verb(config_file: Path | None, as_json: bool, everything: bool, **filters: Any) -> None:
    """Make buried and delayed messages of the inbox ready now, with fresh attempts."""
    _need_filter(filters, everything)
    with opened(config_file, change=True) as node:
        filters = resolve(node, filters)
        count = actions.kick(node, select(**filters))
        _missing(count, filters["ids"], [i for i in filters["ids"] if node.inbox.status(i) is None])
    if as_json:
        echo_json({"kicked": count})
    else:
        echo(f"{say_count(count, 'message')} ready again")


@verb("redrive", keys="`redriven`: how many deliveries.")
@channel_option
@peer_option
@id_option
@age_option
@click.option("--all", "everything", is_flag=True, help="Every dead, failed and expired delivery, without any filter.")
def redrive_verb(config_file: Path | None, as_json: bool, everything: bool, **filters: Any) -> None:
    """Send deliveries that ended as dead, failed or expired again, at the end of their lanes."""
    _need_filter(filters, everything)
    with opened(config_file, change=True) as node:
        filters = resolve(node, filters)
        count = actions.redrive(node, select(**filters))
        _missing(count, filters["ids"], [i for i in filters["ids"] if not node.outbox.status(i)])
    if as_json:
        echo_json({"redriven": count})
    else:
        echo(f"{say_count(count, 'delivery', 'deliveries')} queued again")


def _need_filter(filters: dict[str, Any], everything: bool) -> None:
    narrowed = any(value not in (None, ()) for value in filters.values())
    if everything == narrowed:
        raise click.UsageError("say which: at least one filter, or --all" if not narrowed else "--all takes no filters")


def _missing(count: int, ids: Sequence[bytes], missing: "Sequence[MessageId]") -> None:
    from dropr_core.model.names import format_id

    if ids and not count and len(missing) == len(ids):
        raise not_found("; ".join(f"{format_id(i)}: no such message here" for i in missing))
