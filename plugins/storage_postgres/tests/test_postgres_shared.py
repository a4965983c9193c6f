"""What machines share of a PostgreSQL store keeps its contract, over lines that really break."""

import threading

import pytest

pytest.importorskip("psycopg")
from dropr_storage_postgres import PostgresStorage
from dropr_storage_postgres.engine.address import make_place
from dropr_storage_postgres.shared.wakeups import Listener
from psycopg import OperationalError
from psycopg.conninfo import conninfo_to_dict

from dropr_core.system.clock import SystemClock
from dropr_core.system.wake_up import WakeUp
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


def test_a_listener_may_end_before_it_is_woken_for_that(monkeypatch):
    """Its thread sees by itself that it is to end, and is gone when the wake-up comes: nothing raises or stays."""
    opening, go = threading.Event(), threading.Event()

    class Away:
        def open(self, **_):
            opening.set()
            assert go.wait(60)
            raise OperationalError("the server is away")

    listener = Listener(Away(), "channel", "mark:")
    listener.add(lambda _topic: None)
    assert opening.wait(60)
    wake, thread = listener._wake, listener._thread

    def late():
        go.set()
        thread.join(60)
        WakeUp.wake(wake)

    monkeypatch.setattr(wake, "wake", late)
    listener.close()
    assert not thread.is_alive()
    assert wake.fileno() == -1
