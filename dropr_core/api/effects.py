"""Which messages have taken effect, as a transaction of the user's has written it down.

Owns the marks in the inbox tables (inbox_table.py) from this process's side: making one within the user's transaction,
asking whether it was committed, and whether a message that comes again has one. A mark that somebody is making is
waited for; so the answer holds even if the process that made it was killed while it committed. Must not know leases.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from dropr_core.api.outboxes import Outbox, Outboxes
from dropr_core.contracts.storage import Ack, Claim
from dropr_core.errors import AlreadyProcessed, DroprError, PluginError, StoreError
from dropr_core.model.names import format_id
from dropr_core.transactions.databases import Link, connect
from dropr_core.transactions.inbox_table import Effect, Mark
from dropr_core.transactions.statements import adrive, drive

REST = 5.0
"""Seconds until a database is asked again that could not be: what comes again is handed out, and found out later."""


@attrs.define(eq=False)
class Pending:
    """A message whose mark stands in a transaction of the user's."""

    outbox: Outbox
    mark: Mark
    ack: Ack
    committed: bool = False
    """Whether the commit is known to have succeeded."""
    soft: bool = False
    """Whether its commit is seen before it is on stable storage."""
    before: bool = False
    """Whether it had taken effect before, so that this transaction is to be rolled back."""


class Effects:
    """Those of one open node. Safe to use from many threads."""

    def __init__(self, node: str, outboxes: Outboxes, log: logging.Logger) -> None:
        self._node, self._outboxes, self._log = node, outboxes, log
        self._mutex = threading.Lock()
        """Of our own connections: they are asked seldom, and briefly."""
        self._links: dict[str, Link] = {}
        self._rests: dict[str, float] = {}
        self._said: set[str] = set()

    def mark_of(self, claim: Claim) -> Mark:
        """What names a message in the tables."""
        return Mark(self._node, claim.id, claim.channel, claim.sender)

    # ── within the user's transaction ────────────────────────────────────────────────────────────

    def note(self, ack: Ack, connection: Any) -> Pending:
        """Note that a message takes effect with the connection's transaction. `Pending.before`: it did so already.
        Raises UsageError, StoreError if there is no such table, and what the library of the connection raises.
        """
        transaction, outbox = self._outboxes.prepare(connection)
        pending = Pending(outbox, self.mark_of(ack.claim), ack)
        plan = outbox.inbox.note(pending.mark, ack.result, ack.content_type)
        pending.before, pending.soft = drive(transaction, plan, _missing(outbox))
        return pending

    async def anote(self, ack: Ack, connection: Any) -> Pending:
        """The same with a connection of asyncio."""
        transaction, outbox = self._outboxes.prepare_async(connection)
        pending = Pending(outbox, self.mark_of(ack.claim), ack)
        plan = outbox.inbox.note(pending.mark, ack.result, ack.content_type)
        pending.before, pending.soft = await adrive(transaction, plan, _missing(outbox))
        return pending

    # ── on our own connections ───────────────────────────────────────────────────────────────────

    def holds(self, pending: Pending) -> bool:
        """Whether the message has taken effect, as far as others see it now. Raises StoreError, PluginError."""
        if pending.before or (pending.committed and not pending.soft):
            return True
        with self._link(pending.outbox) as link:
            if link.carry_out(pending.outbox.inbox.look(pending.mark)) is None:
                return False
            if pending.soft:  # else a crash could take it back after the message is acknowledged
                link.harden()
            return True

    def found(self, claims: Sequence[Claim]) -> dict[int, Effect]:
        """Number → what is remembered, of those that have taken effect. A database that cannot be asked, or has no
        such table, is left out: making the mark will tell.
        """
        out: dict[int, Effect] = {}
        for outbox in self._outboxes.all:
            if self._rests.get(outbox.name, 0.0) > time.monotonic():
                continue
            try:
                with self._link(outbox) as link:
                    for claim in claims:
                        effect = self._found(link, outbox, self.mark_of(claim))
                        if effect is not None:
                            out[claim.number] = effect
                self._said.discard(outbox.name)
            except (StoreError, PluginError) as error:
                self._rests[outbox.name] = time.monotonic() + REST
                if outbox.name not in self._said:
                    self._said.add(outbox.name)
                    self._log.warning("outbox %s cannot be asked what has taken effect: %s", outbox.name, error)
        return out

    def _found(self, link: Link, outbox: Outbox, mark: Mark) -> Effect | None:
        """By trying to make the mark: that waits for a transaction that is being committed."""
        try:
            with link.transaction():
                if not link.carry_out(outbox.inbox.note(mark)).before:
                    raise _NothingFound
        except _NothingFound:
            return None
        link.harden()
        return link.carry_out(outbox.inbox.look(mark))

    @contextmanager
    def _link(self, outbox: Outbox) -> Iterator[Link]:
        with self._mutex:
            link = self._links.get(outbox.name)
            if link is None:
                link = self._links[outbox.name] = connect(outbox.database, self._node)
            try:
                yield link
            except StoreError:  # the next one begins anew
                self._links.pop(outbox.name).close()
                raise

    def close(self) -> None:
        """Safe twice."""
        with self._mutex:
            while self._links:
                self._links.popitem()[1].close()


class _NothingFound(DroprError):
    """Rolls the trial back."""


def already(claim: Claim) -> AlreadyProcessed:
    """What is raised within a transaction that would repeat an effect."""
    return AlreadyProcessed(
        f"message {format_id(claim.id)} has taken effect before: roll this transaction back; the message is done"
    )


def _missing(outbox: Outbox) -> str:
    return f"outbox {outbox.name}: {outbox.inbox.missing}"


__all__ = ["Effects", "Pending", "already"]
