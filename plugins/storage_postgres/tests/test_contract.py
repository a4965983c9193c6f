"""The storage `postgres` keeps the contract of storages."""

import pytest

pytest.importorskip("psycopg")
from dropr_storage_postgres import Options, dropr_storage
from postgres_stores import Schemas

from dropr_core.testing import StorageCase, StorageContract
from dropr_core.testing.essentials import Essentials
from dropr_core.testing.storage_machine import run_machine


@pytest.fixture(scope="session")
def schemas(postgres_server):
    """Schemas for the stores of this suite."""
    return Schemas(postgres_server)


@pytest.fixture
def storage_case(schemas, tmp_path):
    """Each data directory is a store of its own."""
    schemas.of(tmp_path / "data")  # children that are forked off open the same
    yield StorageCase(
        make=lambda context: dropr_storage(Options(url=schemas.server.url(), schema=schemas.of(context.data)), context)
    )
    schemas.forget(tmp_path)


class TestPostgres(StorageContract):
    """The suite for the storage `postgres`."""

    @pytest.fixture
    def storage_case(self, storage_case):
        return storage_case

    @pytest.mark.timeout(900)
    def test_random_lives(self, bench, strength):
        """As in the contract, but fewer of them: each opens stores and makes some hundred commits."""
        run_machine(bench.make, bench.kill, strength=strength, examples=3)

    @pytest.mark.timeout(900)
    def test_random_lives_by_the_first_tier(self, bench, strength):
        """The same, where everything of the second tier is what the contract says by default."""
        run_machine(
            lambda where, clock: Essentials(bench.make(where, clock)), bench.kill, strength=strength, examples=2
        )
