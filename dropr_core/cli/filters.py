"""Which messages a verb means: the options --in, --state, --channel, --peer, --id, --older-than.

Owns those options, their check, and the walk through a store page by page. Must not know what is
done with what was found.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from dropr_core.cli.common import DURATION, IDENTIFIER

if TYPE_CHECKING:
    from dropr_core.contracts.storage import Delivery, Inbox, JobInfo, Outbox, Selection

OUTBOX_STATES = ("queued", "accepted", "held", "processed", "failed", "expired", "cancelled", "dead")
INBOX_STATES = ("ready", "blocked", "delayed", "leased", "done", "buried", "expired")
PAGE = 500
"""Messages read at once: a lock on the store is never held for longer than that takes."""


def side_option(default: str = "both") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--in, passed as ``side``."""
    return click.option(
        "--in", "side", type=click.Choice(["inbox", "outbox", "both"]), default=default, show_default=True,
        help="Which half: what comes in, what goes out, or both.",
    )  # fmt: skip


def state_option(states: Sequence[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--state, several times, passed as ``states``."""
    return click.option(
        "--state", "states", multiple=True, type=click.Choice(list(states)), metavar="STATE",
        help=f"Only in this state; may be repeated. One of: {', '.join(states)}.",
    )  # fmt: skip


def channel_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--channel."""
    return click.option("--channel", metavar="NAME", help="Only of this channel.")(function)


def peer_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--peer."""
    return click.option("--peer", metavar="NAME", help="Only to (outbox) or from (inbox) this peer.")(function)


def id_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--id, several times, passed as ``ids``."""
    return click.option(
        "--id", "ids", multiple=True, type=IDENTIFIER, metavar="ID", help="Only this message; may be repeated."
    )(function)


def age_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--older-than."""
    return click.option(
        "--older-than", type=DURATION, metavar="DURATION",
        help="Only if in its state (outbox, not ended: since it was sent) for longer than this, such as 90s, 12h, 5d.",
    )(function)  # fmt: skip


def select(
    *,
    ids: Sequence[bytes] = (),
    states: Sequence[str] = (),
    channel: str | None = None,
    peer: str | None = None,
    older_than: float | None = None,
) -> "Selection":
    """The selection of these options; UsageError for a channel that cannot exist."""
    from dropr_core.contracts.storage import Selection
    from dropr_core.model.message import State
    from dropr_core.model.names import MessageId, check_channel

    if channel is not None:
        check_channel(channel)
    return Selection(
        ids=tuple(MessageId(i) for i in ids),
        states=frozenset(State(state) for state in states),
        channel=channel,
        peer=peer,
        older_than=older_than,
    )


def walk_outbox(outbox: "Outbox", selection: "Selection", limit: int | None = None) -> Iterator["Delivery"]:
    """Every delivery of the selection (up to ``limit``), page by page while others go on writing."""
    cursor, left = (0, 0), limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        page = outbox.scan(selection, cursor, size)
        for cursor, delivery in page:  # noqa: B007
            yield delivery
        if len(page) < size:
            return
        left = None if left is None else left - size


def walk_inbox(inbox: "Inbox", selection: "Selection", limit: int | None = None) -> Iterator["JobInfo"]:
    """Every message of the selection (up to ``limit``), page by page while others go on writing."""
    cursor, left = 0, limit
    while left is None or left > 0:
        size = PAGE if left is None else min(PAGE, left)
        page = inbox.scan(selection, cursor, size)
        yield from page
        if len(page) < size:
            return
        cursor = page[-1].number
        left = None if left is None else left - size
