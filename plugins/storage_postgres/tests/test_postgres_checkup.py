"""What a check finds in a store in PostgreSQL, and what a repair does about it."""

import pytest

pytest.importorskip("psycopg")
import psycopg
from dropr_storage_postgres import Options, dropr_storage

from dropr_core.contracts.storage import Rejection, Selection
from dropr_core.model.message import State
from dropr_core.model.names import Head, Lane
from dropr_core.system.clock import FakeClock
from dropr_core.testing.builders import LANE, make_context, outgoing, taken

OTHER = Lane("elsewhere", LANE.channel, LANE.priority)


@pytest.fixture
def opens(postgres_schema, tmp_path):
    """Opens the store of the test, also to check it."""
    url, schema = postgres_schema
    opened = []

    def make(**context):
        storage = dropr_storage(Options(url=url, schema=schema), make_context(tmp_path, FakeClock(), **context))
        opened.append(storage)
        return storage

    yield make
    for storage in opened:
        storage.close()


@pytest.fixture
def filled(opens):
    """A store with deliveries of every kind: queued, awaiting a receipt, ended, shared, wiped."""
    outbox = opens().outbox
    messages = [outgoing(receipt=True), outgoing(), outgoing(peers=(LANE.peer, OTHER.peer)), outgoing(fingerprint=b"f")]
    outbox.append(messages)
    outbox.settle(LANE, Head(1, messages[0].id))
    outbox.settle(LANE, Head(2, messages[1].id), [Rejection(2, "no", "way")])
    outbox.append([outgoing(), outgoing(peers=("a", "b", "c"))])
    outbox.cancel(messages[3].id)
    return outbox


@pytest.fixture
def break_with(postgres_schema):
    """Runs statements on the tables behind the store's back."""
    url, schema = postgres_schema

    def run(*statements):
        with psycopg.connect(url, autocommit=True, options=f"-c search_path={schema}") as connection:
            for statement in statements:
                connection.execute(statement)

    return run


def findings(opens, *, repair=False):
    return [(one.what, one.severity, one.repaired) for one in opens(checking=True).check(repair=repair)]


@pytest.mark.usefixtures("filled")
def test_a_sound_store_has_nothing_to_say(opens):
    """No finding where nothing is wrong, and a repair changes nothing."""
    assert findings(opens) == []
    assert findings(opens, repair=True) == []


BROKEN = {
    "counts": (("UPDATE head SET gone = gone + 1, awaiting_bytes = 7",), {"mistake"}),
    "last": (("UPDATE lane SET last = 1",), {"mistake"}),
    "tally": (("UPDATE tally SET n = n + 5",), {"mistake"}),
    "refs": (("UPDATE shared SET refs = refs + 1",), {"mistake"}),
    "left over": (("INSERT INTO shared(refs, envelope) VALUES (1, 'x')",), {"mistake"}),
    "state": (("UPDATE ended SET state = 'strange'",), {"mistake"}),
    "bodies": (("UPDATE delivery SET envelope = NULL WHERE shared IS NULL",), {"damage", "mistake"}),
    "shared bodies": (("DELETE FROM shared",), {"damage", "mistake"}),
    "heads": (("DELETE FROM head",), {"damage", "mistake"}),
    "lanes": (("DELETE FROM lane WHERE peer <> 'a'",), {"damage", "mistake"}),
}


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_is_found_and_put_right(what, opens, break_with):
    """A check without repair tells of it each time; after a repair nothing is left to say, and the store works."""
    statements, severities = BROKEN[what]
    break_with(*statements)
    found = findings(opens)
    assert {severity for _, severity, _ in found} <= severities
    assert found
    assert findings(opens) == found
    repaired = findings(opens, repair=True)
    assert all(done for *_, done in repaired)
    assert findings(opens) == []
    outbox = opens().outbox
    outbox.append([outgoing() for _ in range(3)])
    for lane in outbox.lanes():
        batch = taken(outbox, lane.lane, count=100)
        assert len(batch.entries) == lane.depth
    assert all(one.state in State for one in outbox.all(Selection()))


def test_a_store_that_cannot_be_opened_is_a_finding(opens, break_with, filled, postgres_schema):
    """A check tells of what keeps the store from being opened, instead of failing over it."""
    assert filled
    break_with(f"DROP TABLE {postgres_schema[1]}.meta")
    assert [(severity, done) for _, severity, done in findings(opens)] == [("damage", False)]
