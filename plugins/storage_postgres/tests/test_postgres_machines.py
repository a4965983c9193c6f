"""Several machines at one store in PostgreSQL: they have nothing in common but the database."""

import pytest

pytest.importorskip("psycopg")
from dropr_storage_postgres import Options, dropr_storage

from dropr_core.testing.shared_storage_contract import SharedStorageCase, SharedStorageContract


class TestMachines(SharedStorageContract):
    """The suite for the storage `postgres`."""

    @pytest.fixture
    def shared_storage_case(self, postgres_server, postgres_schema):
        url, schema = postgres_schema

        def lose(pid):
            with postgres_server.connect() as connection:
                connection.execute("SELECT pg_terminate_backend(%s, 30000)", (pid,))

        return SharedStorageCase(
            make=lambda context: dropr_storage(Options(url=url, schema=schema), context),
            session=lambda storage: storage.inbox.consumers.session.backend.pid,
            lose=lose,
        )
