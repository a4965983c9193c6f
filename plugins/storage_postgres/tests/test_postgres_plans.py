"""No statement of the storage reads a table that grows from end to end."""

import re

import pytest

pytest.importorskip("psycopg")
from dropr_storage_postgres import Options, dropr_storage
from dropr_storage_postgres.outbox import sql

from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import make_context

GROWING = {"delivery", "ended", "shared"}
FIRST = {"NEXT_DUE", "NEXT_FORGET"}
"""They read the first entry of an index."""
STATEMENTS = {
    name: value
    for name, value in vars(sql).items()
    if re.match("[A-Z]", name) and isinstance(value, str) and re.match("SELECT|INSERT|UPDATE|DELETE|WITH", value)
}  # fmt: skip


@pytest.fixture(scope="module")
def explain(postgres_server, tmp_path_factory):
    """The plan of a statement on empty tables, the same for all parameters: that is the one that is kept."""
    directory = tmp_path_factory.mktemp("plans")
    storage = dropr_storage(Options(url=postgres_server.url(), schema="plans"), make_context(directory, FakeClock()))
    done = []

    def plan(statement):
        text, count = re.subn("%s", "{}", statement)
        text = text.format(*(f"${number}" for number in range(1, count + 1)))
        values = f"({', '.join(['NULL'] * count)})" if count else ""
        done.append(1)

        def job(connection):
            connection.execute(f"PREPARE p{len(done)} AS {text}", prepare=False)
            rows = connection.execute(f"EXPLAIN (COSTS OFF) EXECUTE p{len(done)}{values}", prepare=False).fetchall()
            return "\n".join(row[0] for row in rows)

        return storage.engines[0].read(job)

    yield plan
    storage.close()


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_growing_tables_are_read_by_their_indexes(name, explain):
    """What a statement costs depends on the rows that it is about, and not on those that wait."""
    plan = explain(STATEMENTS[name])
    assert not re.search(rf"Seq Scan on ({'|'.join(GROWING)})\b", plan), plan
    for line in re.findall(r"Index.* Scan using \w+ on (?:delivery|ended|shared).*\n(.*)", plan):
        assert "Index Cond" in line or name in FIRST, plan


def test_reading_all_would_be_seen(explain):
    """The test above can fail, and has something to look at."""
    assert "Seq Scan on delivery" in explain("SELECT id FROM delivery WHERE size = %s")
    assert len(STATEMENTS) > 60
