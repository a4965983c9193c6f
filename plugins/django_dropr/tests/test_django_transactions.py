"""OPTIONS["TRANSACTIONAL"]: a task is committed with the rows of its transaction, in the same database."""

import logging
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.db.utils import ConnectionHandler
from dropr_django.framework import TaskResultDoesNotExist, TaskResultStatus
from dropr_django.in_transaction import make_table, waiting_call
from support.django_shop import tasks as shop_tasks
from support.nodes import eventually

from dropr_core.config.outboxes import read_database
from dropr_core.model.names import MessageId
from dropr_core.outboxes.relay import Relay
from dropr_core.transactions.databases import connect

BOUND = shop_tasks.add.using(backend="bound")


def rows():
    """Channels of what waits in the table."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT channel FROM dropr_outbox ORDER BY seq")
        return [row[0] for row in cursor.fetchall()]


@contextmanager
def relayed(node):
    """What the daemon does with the table."""
    (outbox,) = node.runtime.outboxes.all
    link = connect(outbox.database, node.name)
    try:
        while Relay(node.runtime, outbox, logging.getLogger("dropr.daemon")).step(link):
            pass
        yield
    finally:
        link.close()


def test_a_task_is_committed_with_its_transaction(pair, handle):
    """Rows and task are there together. Until the daemon has taken it the task waits in the database, and its result is
    known all the same; then it is run once.
    """
    with transaction.atomic():
        Group.objects.create(name=f"with {id(pair)}")
        result = BOUND.enqueue(2, two=3)
        large = BOUND.enqueue("y" * 100_000, two="z")
        assert pair["shop"].outbox.status(_id(result)) == []
    assert rows() == ["default", "default"]
    result.refresh()
    assert result.status == TaskResultStatus.READY
    large.refresh()
    assert len(large.args[0]) == 100_000
    with relayed(pair["shop"]):
        assert rows() == []
    eventually(lambda: handle("warehouse") or len(shop_tasks.SEEN) == 2, what="both are run")

    def ended():
        result.refresh()
        return result.is_finished

    eventually(ended)
    assert result.return_value == 5
    assert Group.objects.filter(name=f"with {id(pair)}").exists()


def _id(result):
    from dropr_core.model.names import parse_id

    return parse_id(result.id)


def test_a_task_is_gone_with_its_transaction(pair):
    """Rolled back as a whole or to a savepoint: nothing waits, and no result is known."""
    with pytest.raises(RuntimeError), transaction.atomic():
        BOUND.enqueue(1)
        assert rows() == ["default"]
        raise RuntimeError
    assert rows() == []
    with transaction.atomic():
        with pytest.raises(RuntimeError), transaction.atomic():
            gone = BOUND.enqueue(2)
            raise RuntimeError
        BOUND.enqueue(3)
    assert rows() == ["default"]
    with pytest.raises(TaskResultDoesNotExist):
        BOUND.get_result(gone.id)
    with relayed(pair["shop"]):
        pass


def test_outside_of_a_transaction_and_for_this_node(pair):
    """Without a transaction the task is sent at once. One for this node's own worker waits for the commit, as without
    the option: it goes into a queue, not to a peer.
    """
    BOUND.enqueue(1)
    assert rows() == []
    assert pair["shop"].outbox.counts()["warehouse", "default"]
    with transaction.atomic():
        shop_tasks.here.using(backend="bound").enqueue(1)
        assert rows() == []
        assert not pair["shop"].inbox.counts().get("here", {}).get("ready")
    assert pair["shop"].inbox.counts()["here"]["ready"] == 1


def test_the_table_in_postgresql(pair, postgres_url):
    """`manage.py migrate` makes the table there as `dropr outbox install` does, once, and a task waits in it."""
    database = read_database(postgres_url, Path())
    words = {"ENGINE": "django.db.backends.postgresql", "NAME": database.name, "HOST": database.host,
             "PORT": database.port, "USER": urlsplit(postgres_url).username or "postgres"}  # fmt: skip
    made = ConnectionHandler({"default": words})["default"]
    try:
        assert make_table(made) is True
        assert make_table(made) is False
        with made.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM dropr_outbox")
            assert cursor.fetchone() == (0,)
        assert waiting_call(pair["shop"], made, MessageId(bytes(16))) is None  # the node has no outbox there
    finally:
        made.close()
