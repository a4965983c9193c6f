"""What `Storage.check` finds in the inbox of a store in PostgreSQL, and what a repair makes of it."""

import attrs
import pytest

pytest.importorskip("psycopg")
import psycopg
from dropr_storage_postgres import Options, dropr_storage

from dropr_core.contracts.storage import Ack, Release
from dropr_core.system.clock import SystemClock
from dropr_core.testing.builders import CHANNEL, SENDER, Source, Worker, job, make_context

TROUBLES = {
    "a lease of nothing": ("INSERT INTO in_lease VALUES (1, 1, ARRAY[77])", "not leased"),
    "a lease that is gone": ("DELETE FROM in_lease", "nobody holds"),
    "figures": ("INSERT INTO in_tally(queue, ready) SELECT queue, 5 FROM in_queue LIMIT 1", "kept figures"),
    "a holder that is gone": (
        "DELETE FROM in_job WHERE place = (SELECT place FROM in_holder); DELETE FROM in_lease", "held by a message",
    ),
    "no holder": ("DELETE FROM in_holder", "though nobody holds it"),
    "numbers": ("SELECT setval('in_number', 1)", "noted as given"),
    "a channel that is gone": ("DELETE FROM in_queue WHERE channel = 'b'", "channel is not known"),
}  # fmt: skip


@pytest.fixture
def store(postgres_schema, tmp_path):
    """A store with something of everything, and a way to write into it past the storage."""
    url, schema = postgres_schema
    context = make_context(tmp_path, SystemClock())
    storage = dropr_storage(Options(url=url, schema=schema), context)
    Source(storage.inbox).push(*(job(b"%d" % n) for n in range(6)), job(key="k"), job(key="k"), job(due_in=500.0))
    Source(storage.inbox, "b").fill(2)
    worker = Worker(storage.inbox)
    one, two, three = worker.claim(3)
    storage.inbox.settle([Ack(one), Release(two)])
    storage.inbox.flush()

    def write(script):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"SET search_path = {schema}")
            for statement in script.split("; "):
                connection.execute(statement)

    def check(**how):
        checked = dropr_storage(Options(url=url, schema=schema), attrs.evolve(context, checking=True))
        return [one for one in checked.check(**how) if one.severity != "note"]

    yield storage, worker, three, write, check
    storage.close()


def test_nothing_is_found_where_nothing_is_wrong(store):
    """A store in the middle of its work is in order."""
    *_, check = store
    assert check(repair=False) == []


@pytest.mark.parametrize("what", TROUBLES)
def test_a_trouble_is_found_and_mended(store, what):
    """It is said, a repair ends it, and then every message is given out once."""
    storage, worker, held, write, check = store
    script, words = TROUBLES[what]
    write(script)
    assert words in " ".join(one.text for one in check(repair=False))
    check(repair=True)
    assert check(repair=False) == []
    storage.inbox.settle([Release(held)])
    fresh = storage.inbox.put(CHANNEL, 5, SENDER, [job(b"new")])
    channels = [CHANNEL, "b", *storage.inbox.counts()]
    claims = storage.inbox.claim(channels, 100, worker.name)
    numbers = [claim.number for claim in claims]
    assert len(set(numbers)) == len(numbers)
    assert fresh[0] in numbers
