"""Tasks that are part of a transaction of Django's: the table of messages in the project's own database.

Owns how that table is made by `manage.py migrate`, and how a task is found that waits in it. What is written into it
and how it gets into the lanes is dropr's (docs/guide/transactions.md).
"""

import json
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from dropr_core.api.node import Node
from dropr_core.api.outboxes import same_name
from dropr_core.config.outboxes import OutboxConfig, read_database
from dropr_core.errors import ConfigError, UsageError
from dropr_core.model import envelope
from dropr_core.model.names import MessageId, format_id
from dropr_core.transactions.of_django import DjangoTransaction
from dropr_core.transactions.outbox_layout import install, outbox_statements
from dropr_core.transactions.outbox_table import unpack
from dropr_core.transactions.statements import Statement, drive
from dropr_django.configuration import node_config

VENDORS = ("postgresql", "sqlite")
TABLE = OutboxConfig(name="", url="").table


def make_table(connection: Any) -> bool:
    """Make the table of messages, unless it is there or the database is of another kind. Whether it was made. Raises
    StoreTooNew.
    """
    if connection.vendor not in VENDORS:
        return False
    try:
        config = node_config()
    except (ImproperlyConfigured, ConfigError, OSError):  # there is no node yet; rows of ours name theirs
        node, table = "", TABLE
    else:
        node, table = config.node, _table_of(config, connection)
    transaction = DjangoTransaction(connection)
    return drive(transaction, install(transaction.kind, table, outbox_statements(transaction.kind, table, node)), "")


def _table_of(config: Any, connection: Any) -> str:
    """What the YAML calls it in this database, if it names that."""
    where = DjangoTransaction(connection).where()
    for one in config.outboxes.values():
        database = read_database(one.url, config.where.directory)
        if database.kind == where.kind and same_name(database, where):
            name: str = one.table
            return name
    return TABLE


def waiting_call(node: Node, connection: Any, identity: MessageId) -> Any:
    """The body, from JSON, of a message that waits in the table; None if it does not. Raises StoreError, errors of
    Django's.
    """
    try:
        transaction = DjangoTransaction(connection)
        outbox = node.runtime.outboxes.of(transaction.where())
    except UsageError:
        return None
    table = outbox.config.table
    sql = f"SELECT prepared FROM {table} WHERE id = ? AND prepared IS NOT NULL"  # noqa: S608 - its name is checked
    for (prepared,) in transaction.run(Statement(sql, (format_id(identity),))):
        data = unpack(bytes(prepared)).envelope
        outside = envelope.reference_of(data)
        if outside is None:
            return json.loads(envelope.decode(data).body)
        with node.runtime.bodies.open_sent(identity, outside) as file:
            return json.loads(file.read())
    return None
