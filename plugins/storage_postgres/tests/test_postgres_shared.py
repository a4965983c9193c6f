"""What machines share of a PostgreSQL store keeps its contract, over lines that really break."""

import pytest

pytest.importorskip("psycopg")
from dropr_storage_postgres import PostgresStorage
from dropr_storage_postgres.engine.address import make_place
from psycopg.conninfo import conninfo_to_dict

from dropr_core.system.clock import SystemClock
from dropr_core.testing import SharedCase, SharedContract
from dropr_core.testing.builders import make_context


class TestShared(SharedContract):
    """Documents, elections and wake-ups of one store, opened from several data directories."""

    @pytest.fixture
    def shared_case(self, postgres_url, postgres_server, tmp_path):
        storages = {}
        place = make_place(postgres_url, None, None, "ware", 0.02, 10.0)

        def machine():
            directory = tmp_path / f"machine-{len(storages)}"
            directory.mkdir(mode=0o700)
            storage = PostgresStorage(place, make_context(directory, SystemClock()))
            storages[storage.shared] = storage
            return storage.shared

        def cut(_one):
            postgres_server.cut_all(conninfo_to_dict(postgres_url)["dbname"], like="dropr %")

        yield SharedCase(machine, lambda one: storages[one].close(), cut)
        for storage in storages.values():
            storage.close()
