"""Storages that are not what they say they are: durable, shared by processes, with lease sheets, with keys, one for
each directory; see wrong_storages.py.
"""

import pickle

import pytest
from contracts.wrong_plugins.wrong_storages import Wrong
from dropr_storage_sqlite import Options, dropr_storage

from dropr_core.builtin.memory import MemoryStorage, medium_of
from dropr_core.contracts.lease_sheets import NOTHING_LEFT
from dropr_core.contracts.storage import JobMove, Selection
from dropr_core.model.message import State
from dropr_core.testing import StorageCase


class SavesAtTheEnd(MemoryStorage):
    """Claims to be durable, and writes its file when it is closed."""

    abilities = frozenset({"durable", "ordering_key"})

    def __init__(self, context):
        super().__init__(context)
        self.file = context.data / "everything"
        if self.file.exists():
            self.outbox._data, self.inbox._data = pickle.loads(self.file.read_bytes())

    def close(self):
        self.file.write_bytes(pickle.dumps((self.outbox._data, self.inbox._data)))
        super().close()


class TestLosesOnCrash(Wrong):
    __test__ = True
    caught_by = "test_what_append_stored_survives_a_kill"
    made = SavesAtTheEnd


class TestLosesArrivalsOnCrash(Wrong):
    __test__ = True
    caught_by = "test_what_accept_stored_survives_a_kill"
    made = SavesAtTheEnd


class TestLiesAboutProcesses(Wrong):
    """Declares what it cannot do."""

    __test__ = True
    caught_by = "test_processes_share_one_store"

    class made(MemoryStorage):  # noqa: N801
        abilities = frozenset({"durable", "processes", "ordering_key"})


class TestLetsASecondProcessIn(Wrong):
    """Can only be used by one process, says so, and lets the second one in all the same."""

    __test__ = True
    caught_by = "test_undeclared_processes_are_refused"

    @pytest.fixture
    def storage_case(self):
        def make(context):
            storage = dropr_storage(Options(), context)
            storage.abilities = frozenset({"durable"})
            return storage

        return StorageCase(make)


class Sheeted(Wrong):
    """The storage `sqlite` with a mistake about lease sheets."""

    @pytest.fixture
    def storage_case(self):
        def make(context):
            storage = dropr_storage(Options(), context)
            self.plant(storage)
            return storage

        return StorageCase(make)


class TestIgnoresTheSheet(Sheeted):
    """Says that it has lease sheets, and never reads one."""

    __test__ = True
    caught_by = "test_a_dead_consumer_is_settled_by_its_sheet"

    def plant(self, storage):
        storage.inbox.sheets.left_by = lambda _: NOTHING_LEFT


class TestRetiresWithoutTheSheet(Sheeted):
    """Gives everything back when a consumer leaves, also what it has done."""

    __test__ = True
    caught_by = "test_a_retired_consumer_is_settled_by_its_sheet"

    def plant(self, storage):
        inbox = storage.inbox

        def retire(consumer):
            mine = [one for one in inbox.all(Selection(states=frozenset({State.LEASED}))) if one.consumer == consumer]
            inbox.move([JobMove(one, State.READY, attempts=one.attempts - 1) for one in mine])
            inbox.consumers.release(consumer)

        inbox.retire = retire


class TestLosesResultsOnTheSheet(Sheeted):
    """Settles what a dead consumer has done, and forgets what was to be said."""

    __test__ = True
    caught_by = "test_a_result_on_the_sheet_goes_home"

    def plant(self, storage):
        sheets = storage.inbox.sheets
        left_by = sheets.left_by

        class Silent:
            def __init__(self, left):
                self.left = left

            def of(self, token, number):
                return self.left.of(token, number)._replace(result=None)

        sheets.left_by = lambda consumer: Silent(left_by(consumer))


class TestMakesUpAnAbility(Wrong):
    __test__ = True
    caught_by = "test_abilities_are_known_words"

    class made(MemoryStorage):  # noqa: N801
        abilities = frozenset({"web_scale"})


class TestTakesKeysItDoesNotKeep(Wrong):
    __test__ = True
    caught_by = "test_undeclared_ordering_keys_are_refused"

    class made(MemoryStorage):  # noqa: N801
        abilities = frozenset()


class TestServesAForkedChild(Wrong):
    __test__ = True
    caught_by = "test_a_forked_child_is_told"

    def plant(self, storage):
        for half in (storage.outbox, storage.inbox):
            half._gate.enter = lambda *, write: None


class TestIsOneForAllDirectories(Wrong):
    __test__ = True
    caught_by = "test_two_directories_are_two_stores"

    def plant(self, storage):
        import attrs

        medium = medium_of(attrs.evolve(storage.outbox.context, data=storage.outbox.context.data.parent))
        storage.outbox._data, self.medium = medium.outbox, medium
