"""The contract of storages that machines share, with "machines" that are directories beside one store: right ones pass,
and each kind of wrong one is caught.
"""

import pytest

pytest.importorskip("apsw")
import attrs
from dropr_storage_sqlite import Options, dropr_storage

from dropr_core.system.clock import SystemClock
from dropr_core.testing.builders import make_context
from dropr_core.testing.shared_storage_contract import SharedStorageCase, SharedStorageContract


def beside(context):
    """The one store of all machines of a test."""
    one = context.data.parent / "store"
    one.mkdir(exist_ok=True, mode=0o700)
    return dropr_storage(Options(), attrs.evolve(context, data=one))


class TestRight(SharedStorageContract):
    """A right one."""

    @pytest.fixture
    def shared_storage_case(self):
        return SharedStorageCase(make=beside)


def takes_all_for_dead(storage):
    """Only consumers of its own machine live."""
    consumers = storage.inbox.consumers
    consumers.lives = consumers.owns
    return storage


def takes_every_push(storage):
    """Its heads are its own: what comes again is queued again."""
    accept = storage.inbox.accept

    def wrong(arrivals):
        kept = storage.inbox.heads(arrivals[0].source.sender).get(arrivals[0].source)
        return accept([arrivals[0]._replace(after=kept)] if kept else arrivals)

    storage.inbox.accept = wrong
    return storage


def takes_what_follows(storage):
    """Of what must be taken together or not at all it takes a part."""
    storage.inbox.accept_together = storage.inbox.accept
    return storage


def settles_by_number(storage):
    """A token is not compared."""
    settle = storage.inbox.settle

    def wrong(changes):
        found = [storage.inbox.find(change.claim.number) for change in changes]
        return settle([
            change._replace(claim=change.claim._replace(token=one.token)) if one else change
            for change, one in zip(changes, found, strict=True)
        ])  # fmt: skip

    storage.inbox.settle = wrong
    return storage


@pytest.mark.parametrize(
    ("wrong", "test"),
    [
        (takes_all_for_dead, SharedStorageContract.test_leases_of_a_dead_machine_come_back),
        (takes_every_push, SharedStorageContract.test_pushes_of_one_lane_to_two_machines_enter_once),
        (takes_what_follows, SharedStorageContract.test_what_arrives_together_on_one_of_two_machines_is_whole),
        (settles_by_number, SharedStorageContract.test_a_stale_settlement_of_another_machine_changes_nothing),
    ],
)
def test_a_wrong_one_is_caught(tmp_path, wrong, test):
    """The suite fails where a storage mixes up what is a machine's and what is the store's."""
    opened = []

    def machine(name):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        opened.append(wrong(beside(make_context(directory, SystemClock()))))
        return opened[-1]

    more = {"attempts": 10} if "dead" in test.__name__ else {}
    try:
        with pytest.raises(AssertionError):
            test(SharedStorageContract(), machine, **more)
    finally:
        for storage in opened:
            storage.close()
