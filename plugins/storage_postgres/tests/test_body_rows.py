"""Large bodies in PostgreSQL keep the contract of bodies, and what only they can break."""

import contextlib
import io
import logging

import pytest

pytest.importorskip("psycopg")
from dropr_storage_postgres.bodies.rows import table_of
from dropr_storage_postgres.bodies.store import PostgresBodies
from dropr_storage_postgres.engine.address import make_place
from dropr_storage_postgres.engine.opening import open_store
from dropr_storage_postgres.engine.sessions import InDoubt, Session
from postgres_stores import Schemas

from dropr_core.contracts.context import Context
from dropr_core.errors import StoreGone, WriteFailed
from dropr_core.model.names import IdMaker
from dropr_core.system.clock import SystemClock
from dropr_core.testing.bodies_bench import LATER, BodiesCase, never, reference_of, some
from dropr_core.testing.bodies_contract import BodiesContract


def open_bodies(url, schema, directory):
    """The bodies of one machine."""
    context = Context("shop", directory, SystemClock(), logging.getLogger("test"))
    place = make_place(url, None, schema, "shop", 0.02, 30.0)
    opened = open_store(place, context)
    return PostgresBodies(opened.place, opened.times, context)


def find(bodies, identity, *kinds):
    """(n, own) of a body."""
    ((n, own),) = bodies.sessions.query(
        "SELECT n, own FROM body WHERE id = %s AND kind = ANY(%s)", (identity, list(kinds))
    )
    return n, own


def damage(bodies, peer, identity, _reference):
    n, own = find(bodies, identity, *((0,) if peer is None else (1, 2)))
    bodies.sessions.relaxed(
        lambda connection: connection.execute(
            f"UPDATE {table_of(n, own=own)} SET data = set_byte(data, 5, get_byte(data, 5) # 1) "
            "WHERE body = %s AND at = 40", (n,),
        )
    )  # fmt: skip


@contextlib.contextmanager
def full(bodies):
    """The server's disk takes nothing more: a trigger says so in its words."""

    def run(script):
        bodies.sessions.relaxed(lambda connection: connection.execute(script, prepare=False))

    run(
        "CREATE OR REPLACE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION USING "
        "ERRCODE = '53100', MESSAGE = 'could not extend file: No space left on device'; END$$"
    )
    run("CREATE TRIGGER full_disk BEFORE INSERT ON body_page FOR EACH STATEMENT EXECUTE FUNCTION full_disk()")
    yield
    run("DROP TRIGGER full_disk ON body_page")


@pytest.fixture(scope="session")
def schemas(postgres_server):
    """Schemas for the stores of this suite."""
    return Schemas(postgres_server)


class TestBodyRows(BodiesContract):
    """Rows that every machine of the node reads and writes."""

    @pytest.fixture
    def bodies_case(self, schemas, tmp_path):
        schemas.of(tmp_path / "data")  # before a child has a mind of its own
        yield BodiesCase(
            make=lambda directory: open_bodies(schemas.server.url(), schemas.of(directory), directory),
            together=True, damage=damage, full=full,
        )  # fmt: skip
        schemas.forget(tmp_path)


# ── sessions that break ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def bodies(postgres_schema, tmp_path):
    """One machine's, on a schema of the test's own."""
    url, schema = postgres_schema
    made = open_bodies(url, schema, tmp_path)
    yield made
    made.close()


@pytest.fixture
def cut(postgres_server, bodies):
    """Ends every session of the bodies."""

    def cut():
        with postgres_server.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE application_name = 'dropr shop "
                "bodies'"
            )

    return cut


class Cutting(io.BytesIO):
    """A source that lets the line be cut again and again while it is read."""

    def __init__(self, data, cut):
        super().__init__(data)
        self._cut = cut

    def read(self, size=-1, /):
        if self.tell() % (5 << 20) == 0:
            self._cut()
        return super().read(size)


def test_a_line_that_is_cut_between_pieces_costs_nothing_but_the_piece(bodies, cut):
    """Sessions that are ended while a body is written, taken in and read: each goes on, the body is whole."""
    data, identity = some(18 << 20), IdMaker()()
    reference = reference_of(data)
    written = bodies.write(identity, Cutting(data, lambda: None), size=len(data))
    written.release()
    one = bodies.arrivals().of("ware", identity, reference)
    for offset in range(0, len(data), 4 << 20):
        cut()
        one.write(offset, data[offset : offset + (4 << 20)])
    with bodies.open_received("ware", identity, reference) as file:
        found = file.read(5 << 20)
        cut()
        assert found + file.read() == data
    cut()
    with bodies.open_sent(identity, reference) as file:
        assert file.read() == data
    assert find(bodies, identity, 0)[1], "a body of more than 16 MiB has a table of its own"


def test_a_writer_that_lost_its_line_is_told_if_its_body_was_swept(bodies, cut):
    """The session with its lock is gone: with nobody sweeping meanwhile all is well, else `release` says so."""
    identity = IdMaker()()
    kept, lost = (bodies.write(identity, io.BytesIO(some(1000, seed))) for seed in (1, 2))
    cut()
    kept.release()
    assert bodies.sweep(never, never, LATER) == 2
    with pytest.raises(WriteFailed, match="send it again"):
        lost.release()
    lost.release()


def test_a_writer_whose_body_is_swept_while_it_writes_fails(bodies, cut):
    """Nothing is promised of a body of which a part is missing."""

    def lose():
        cut()
        bodies.sweep(never, never, LATER)

    with pytest.raises((WriteFailed, StoreGone)):
        bodies.write(IdMaker()(), Cutting(some(18 << 20), lose), size=18 << 20)
    assert not bodies.any()


def test_where_nobody_can_say_whether_a_commit_went_through_it_is_done_again(bodies, monkeypatch):
    """A server that crashed cannot tell what became of a commit: each piece is written once all the same."""
    transact, lost = Session.transact, []

    def forgetful(self, job):
        result = transact(self, job)
        if len(lost) % 2 == 0:
            lost.append(job)
            raise InDoubt("it may be stored or not")
        lost.append(job)
        return result

    data, identity = some(18 << 20), IdMaker()()
    reference = reference_of(data)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "transact", forgetful)
        bodies.write(identity, io.BytesIO(data), size=len(data)).release()
        one = bodies.arrivals().of("ware", identity, reference)
        for offset in range(0, len(data), 4 << 20):
            one.write(offset, data[offset : offset + (4 << 20)])
    assert len(lost) > 20
    for file in (bodies.open_sent(identity, reference), bodies.open_received("ware", identity, reference)):
        with file:
            assert file.read() == data


def test_tables_of_large_bodies_go_with_them(bodies):
    """A dropped body leaves no table, however it goes."""

    def tables():
        ((number,),) = bodies.sessions.query(
            "SELECT count(*) FROM pg_class WHERE relname LIKE 'body_page%%' AND relkind = 'r' AND "
            "relnamespace = current_schema()::regnamespace"
        )
        return number

    data, make = some(17 << 20), IdMaker()
    written = [bodies.write(make(), io.BytesIO(data), size=len(data)) for _ in range(3)]
    local = make()
    bodies.write(local, io.BytesIO(data), size=len(data), inbox_of="shop").release()
    assert tables() == 5
    written[0].discard()
    for one in written[1:]:
        one.release()
    bodies.drop_received("shop", local, reference_of(data))
    assert bodies.sweep(never, never, LATER) == 2
    assert tables() == 1


def test_a_killed_server_keeps_what_it_had_said(own_postgres, tmp_path):
    """Killed in the middle of an arriving body: what is said to be here afterwards is here, and it becomes whole."""
    data, identity = some(10 << 20), IdMaker()()
    reference = reference_of(data)
    bodies = open_bodies(own_postgres.url(), "shop", tmp_path)
    whole = IdMaker()()
    bodies.write(whole, io.BytesIO(data)).release()
    one = bodies.arrivals().of("ware", identity, reference)
    one.write(0, data[: 4 << 20])
    own_postgres.kill9()
    own_postgres.start()
    with bodies.open_sent(whole, reference) as file:
        assert file.read() == data
    have = one.have()
    assert have in {0, 4 << 20}
    assert one.write(have, data[have:]) == len(data)
    own_postgres.kill9()
    own_postgres.start()
    assert bodies.has("ware", identity, reference)
    with bodies.open_received("ware", identity, reference) as file:
        assert file.read() == data
    bodies.close()
