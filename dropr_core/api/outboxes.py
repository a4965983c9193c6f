"""Sending within a transaction of the user's: which outbox a connection belongs to, and what is written there.

Owns that choice, and the promises about large bodies (body_promises.py) that go with it. The message is composed
before, by the same rules as ever; the daemon takes it out of the table after the commit. Must not know the relay.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dropr_core.api.body_promises import Beginning, BodyPromises
from dropr_core.api.message_template import Composed
from dropr_core.config.node import NodeConfig
from dropr_core.config.outboxes import Database, OutboxConfig, read_database
from dropr_core.contracts.storage import NewMessage
from dropr_core.errors import TooBig, UsageError
from dropr_core.model import topics
from dropr_core.system.notifier import Notifier
from dropr_core.transactions.inbox_table import InboxTable
from dropr_core.transactions.outbox_table import OutboxTable
from dropr_core.transactions.recognise import async_transaction_of, is_async, transaction_of
from dropr_core.transactions.statements import AsyncTransaction, Kind, Plan, Transaction, Where, adrive, drive

LOCAL = frozenset({"", "localhost", "127.0.0.1", "::1"})


class Outbox:
    """One of the configuration."""

    def __init__(self, config: OutboxConfig, database: Database) -> None:
        self.config, self.database, self.name = config, database, config.name
        kind: Kind = "postgresql" if database.kind == "postgresql" else "sqlite"
        self.table, self.inbox = OutboxTable(kind, config.table), InboxTable(kind, config.inbox_table)

    def __str__(self) -> str:
        return f"{self.name} ({self.database})"


class Outboxes:
    """Those of one node."""

    def __init__(self, config: NodeConfig, notifier: Notifier, *, large: bool) -> None:
        """``large``: whether large bodies can be promised, since they are files of this machine alone."""
        self._node, self._notifier, self._large = config.node, notifier, large
        self.all = [Outbox(one, read_database(one.url, config.where.directory)) for one in config.outboxes.values()]
        self.promises = BodyPromises(config.data / "outboxes")

    def of(self, where: Where) -> Outbox:
        """The one whose database this is. Raises UsageError if there is none, or more than one."""
        found = [one for one in self.all if one.database.kind == where.kind and same_name(one.database, where)]
        if len(found) > 1:
            found = [one for one in found if _same_host(one.database, where)]
        if len(found) == 1:
            return found[0]
        known = ", ".join(map(str, self.all)) or "none"
        if found:
            raise UsageError(f"connection: {where} is that of several outboxes: {', '.join(map(str, found))}")
        raise UsageError(
            f"connection: no outbox of the configuration is in the {where} (known: {known}); add it under `outboxes:`, "
            "and create its table with 'dropr outbox install'"
        )

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    def prepare(self, given: Any) -> "tuple[Transaction, Outbox]":
        """What is given as `connection`, and the outbox of its database. Raises UsageError for what cannot take a
        message as part of a transaction.
        """
        transaction = transaction_of(given)
        if against := transaction.reason_against():
            raise UsageError(f"connection: {against}")
        return transaction, self.of(transaction.where())

    def prepare_async(self, given: Any) -> "tuple[AsyncTransaction, Outbox]":
        """The same of a library for asyncio."""
        transaction = async_transaction_of(given)
        if against := transaction.reason_against():
            raise UsageError(f"connection: {against}")
        return transaction, self.of(transaction.where())

    def write(self, transaction: Transaction, outbox: Outbox, composed: Iterable[Composed]) -> list[NewMessage]:
        """Insert messages; they are sent when the transaction is committed. Raises StoreError if the table is not
        there, else what the library of the connection raises. Their large bodies stay from then on.
        """
        plan = self._plan(outbox, list(composed))
        messages = drive(transaction, plan, self._missing(outbox))
        if outbox.database.kind == "sqlite" and not transaction.after_commit(lambda: self._wake(outbox)):
            self._wake(outbox)  # before the commit: the daemon looks again and again for a while
        return messages

    async def awrite(
        self, transaction: AsyncTransaction, outbox: Outbox, composed: Iterable[Composed]
    ) -> list[NewMessage]:
        """As `write`."""
        messages = await adrive(transaction, self._plan(outbox, list(composed)), self._missing(outbox))
        self._wake(outbox)
        return messages

    def _plan(self, outbox: Outbox, composed: Sequence[Composed]) -> Plan[list[NewMessage]]:
        messages = [with_fingerprint(one.outgoing) for one in composed]
        if not self._large and any(one.written is not None for one in composed):
            raise TooBig(
                "a large body cannot wait for a transaction in a store that machines share, where another one sweeps: "
                "raise limits.inline_body (4 MiB at most), or send the body alone and its id within the transaction"
            )
        begun: list[Beginning] = []
        made = False
        try:
            begun += [self.promises.begin(one.outgoing.id, outbox.name) for one in composed if one.written is not None]
            transaction = yield from outbox.table.insert(self._node, messages)
            for promise in begun:
                promise.made(transaction)
            made = True
        finally:
            for promise in begun:
                promise.close(made=made)
        return messages

    @staticmethod
    def _missing(outbox: Outbox) -> str:
        return f"outbox {outbox.name}: {outbox.table.missing}"

    def _wake(self, outbox: Outbox) -> None:
        if outbox.database.kind == "sqlite":  # the table of PostgreSQL has a trigger, for all languages
            self._notifier.notify(topics.outbox_table(outbox.name))


def with_fingerprint(message: NewMessage) -> NewMessage:
    """It may be put into the outbox twice, when the daemon is killed between that and taking it out of the table: known
    by this, it is one message.
    """
    if message.fingerprint is not None:
        return message
    return message._replace(fingerprint=hashlib.blake2b(message.envelope, digest_size=16).digest())


def same_name(database: Database, where: Where) -> bool:
    """Whether both, of one kind, name the same database, or the same file."""
    if database.kind == "postgresql":
        return database.name == where.name
    try:
        return Path(database.name).samefile(where.name)
    except OSError:
        return False


def _same_host(database: Database, where: Where) -> bool:
    mine, theirs = database.host, where.host
    same = mine == theirs or (mine in LOCAL and theirs in LOCAL)
    return same and (database.port or "5432") == (where.port or "5432")


__all__ = ["Outbox", "Outboxes", "is_async", "same_name", "with_fingerprint"]
