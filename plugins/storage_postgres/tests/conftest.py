"""What several suites of this storage are given."""

import pytest
from postgres_stores import context_of


@pytest.fixture
def engine_at(tmp_path):
    """Opens an engine on a database, with a table of the test's own."""
    from dropr_storage_postgres.engine.address import make_place
    from dropr_storage_postgres.engine.engine import Engine
    from dropr_storage_postgres.engine.opening import open_store

    opened = []

    def make(url, wait=30.0, **more):
        context = context_of(tmp_path, **more)
        place = make_place(url, None, None, context.node, 0.02, wait)
        known = open_store(place, context)
        engine = Engine(known.place, "outbox", known.times, context)
        opened.append(engine)
        engine.write(lambda connection: connection.execute("CREATE TABLE IF NOT EXISTS t(n int)"))
        return engine

    yield make
    for engine in opened:
        engine.close()
