"""No statement of the hot path walks a table that grows."""

import re

import pytest

pytest.importorskip("apsw")
import apsw
from dropr_storage_sqlite import Options, dropr_storage
from dropr_storage_sqlite.engine import engine as database
from dropr_storage_sqlite.engine import schema
from dropr_storage_sqlite.inbox import sql as inbox_sql
from dropr_storage_sqlite.outbox import sql as outbox_sql

from dropr_core.contracts.storage import Selection
from dropr_core.errors import StoreError
from dropr_core.model.message import State
from dropr_core.protocol.reconcile import awaited
from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import PEER, deliver, make_context, send

SMALL = {"lane", "peer", "tally", "queue", "sender", "consumer", "meta"}
"""Tables with a row for each peer, channel or process: walking them is fine."""

ALLOWED = {
    "LEASES_OF": "leases are as many as consumers hold, not as many as wait; read when one of them died",
    "FRESH_PLAIN": "the first entry of `expiry`, in its order; the messages themselves are searched",
    "ENDED_PAGE": "a page of ended records from a cursor on",
}


def statements():
    for module in (outbox_sql, inbox_sql, database):
        for name, text in vars(module).items():
            if name.isupper() and isinstance(text, str) and re.match(r"(SELECT|INSERT|UPDATE|DELETE) ", text):
                half = schema.INBOX if module is inbox_sql else schema.OUTBOX
                yield pytest.param(half, name, text, id=f"{module.__name__.rsplit('.', 1)[-1]}.{name}")


@pytest.mark.parametrize(("half", "name", "text"), list(statements()))
def test_ancestor_09_every_statement_uses_an_index(half, name, text, tmp_path):
    """Each statement is a search, never a scan of a growing table or a sort of its own."""
    connection = apsw.Connection(":memory:")
    for step in half.steps:
        connection.execute(step)
    numbered = [int(number) for number in re.findall(r"\?(\d+)", text)]
    count = max(numbered) if numbered else text.count("?")
    plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + text, (0,) * count)]
    connection.close()
    for line in plan:
        assert "TEMP B-TREE" not in line, (text, plan)
        scanned = re.match(r"SCAN (\w+)", line)
        if scanned and scanned[1] not in SMALL | {"CONSTANT"} and name not in ALLOWED:
            # Reading an index in its order from the first entry, with LIMIT 1, is a search in all but name.
            assert "ORDER BY" in text and text.endswith("LIMIT 1"), (text, plan)


def test_what_has_ended_is_not_read_for_what_is_awaited(tmp_path, monkeypatch):
    """A daemon asks for it at each greeting, and what has ended is remembered for a month."""
    storage = dropr_storage(Options(reserve=0), make_context(tmp_path, FakeClock()))
    send(storage.outbox, 3)
    deliver(storage.outbox)
    (one,) = send(storage.outbox, receipt=True)
    deliver(storage.outbox)
    monkeypatch.setattr(outbox_sql, "ENDED_PAGE", "no statement")
    assert [delivery.id for delivery in awaited(storage.outbox, PEER)] == [one]
    with pytest.raises(StoreError):
        storage.outbox.scan(Selection(peer=PEER, states=frozenset({State.ACCEPTED})))
    storage.close()


def test_there_are_statements():
    """The collection above finds the statements."""
    assert len(list(statements())) > 90
