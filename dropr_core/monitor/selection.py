"""What the filters of a verb select, and the walk through a store, page by page.

Must not know options of a command line, nor what is done with what was found.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from dropr_core.system.loading import unforked

if TYPE_CHECKING:
    from dropr_core.contracts.storage import Delivery, Inbox, JobInfo, Outbox, Selection

PAGE = 500
"""Messages read at once: a lock on the store is never held for longer than that takes."""


def select(
    *,
    ids: Sequence[bytes] = (),
    states: Sequence[str] = (),
    channel: str | None = None,
    peer: str | None = None,
    older_than: float | None = None,
) -> "Selection":
    """The selection of these options; UsageError for a channel that cannot exist."""
    with unforked:
        from dropr_core.contracts.storage import Selection
        from dropr_core.model.message import State
        from dropr_core.model.names import MessageId, check_stored_channel

    if channel is not None:
        check_stored_channel(channel)
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
