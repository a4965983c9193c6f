"""Forgets what is needed no more: marks of messages that took effect, promises of large bodies.

Owns the two questions: can this message come again, and may that transaction still be committed. Must not know threads.
"""

from dropr_core.api.body_promises import Promise
from dropr_core.api.outboxes import Outbox
from dropr_core.api.runtime import Runtime
from dropr_core.contracts.storage import Selection
from dropr_core.errors import StoreBusy
from dropr_core.model.message import State
from dropr_core.model.names import MessageId, parse_id
from dropr_core.transactions.databases import Link
from dropr_core.transactions.inbox_table import Mark
from dropr_core.transactions.outbox_layout import installed_version
from dropr_core.transactions.outbox_table import AT_ONCE
from dropr_core.transactions.statements import Statement

OVER_YET = "SELECT pg_visible_in_snapshot(?::xid8, pg_current_snapshot())"
"""Whether a transaction has ended, one way or the other. (PostgreSQL calls that visible.)"""
OVER = frozenset({State.DONE, State.EXPIRED})
"""States of messages of the inbox that are not handled again."""


class Care:
    """That of one outbox. For one thread."""

    def __init__(self, runtime: Runtime, outbox: Outbox) -> None:
        self._runtime, self._outbox = runtime, outbox

    # ── large bodies ─────────────────────────────────────────────────────────────────────────────

    def keep_promises(self, link: Link) -> int:
        """Let bodies go that no transaction brings any more. Returns how many. Raises StoreError."""
        gone = 0
        for promise in self._runtime.outboxes.promises.all():
            if promise.outbox == self._outbox.name and not self._may_come(link, promise):
                promise.end()
                gone += 1
        return gone

    def _may_come(self, link: Link, promise: Promise) -> bool:
        """Whether its message is in the table, or may still be committed. A message that was sent on has left it."""
        if not promise.made:  # its process died before it could commit
            return False
        has = self._outbox.table.has([promise.id])
        if link.kind == "sqlite":
            try:
                with link.transaction():  # once we may write, whoever was writing has ended
                    return bool(link.run(has))
            except StoreBusy:
                return True
        if promise.transaction:
            # Not `pg_xact_status`: after a crash numbers come again, and of one that has yet to come it raises.
            over = link.run(Statement(OVER_YET, (promise.transaction,)))[0][0]
            if not over:
                return True
        return bool(link.run(has))

    # ── messages that took effect ────────────────────────────────────────────────────────────────

    def forget_effects(self, link: Link) -> int:
        """Forget messages that are not in the queue any more and took effect long ago. Returns how many. Raises
        StoreError.
        """
        if not link.carry_out(installed_version(link.kind, self._outbox.inbox.name)):
            return 0
        gone = kept = 0
        while True:
            rows = link.run(self._outbox.inbox.old(self._runtime.name, self._outbox.config.remember, kept, AT_ONCE))
            marks = [Mark(self._runtime.name, parse_id(row[0]), row[1], row[2]) for row in rows]
            if not marks:
                return gone
            waiting = self._waiting(tuple({mark.id for mark in marks}))
            over = [mark for mark in marks if (mark.id, mark.channel, mark.sender) not in waiting]
            if over:
                link.run(self._outbox.inbox.forget(over))
            gone += len(over)
            kept += len(marks) - len(over)

    def _waiting(self, ids: tuple[MessageId, ...]) -> set[tuple[MessageId, str, str]]:
        inbox = self._runtime.inbox
        return {(one.id, one.channel, one.sender) for one in inbox.all(Selection(ids=ids)) if one.state not in OVER}


__all__ = ["Care"]
