"""Ids of the inbox that are in no index: found by their order, whatever was done to the messages."""

import pytest

pytest.importorskip("apsw")
from dropr_storage_sqlite.engine import rising
from dropr_storage_sqlite.inbox import ids
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rising_inbox_rig import RISING, SPACING, Keeper, listed, stones

from dropr_core.contracts.storage import Ack, Bury, Release
from dropr_core.errors import StoreError
from dropr_core.model.names import IdMaker, first_rank

WAYS = ("puts", "batch", "overtaken", "overlapping", "falling", "foreign", "pushed", "others", "acknowledge", "some",
        "rerank", "kick", "drop", "later")  # fmt: skip
STEPS = st.lists(st.tuples(st.sampled_from(WAYS), st.integers(1, RISING + 1), st.integers(0, 8)), max_size=25)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_every_message_is_found_by_its_id(narrow_inbox, tmp_path_factory, steps):
    """Whatever came, was settled, moved or ended, an id leads to just its messages."""
    keeper = Keeper(tmp_path_factory.mktemp("keeper"))
    for queue in range(1, RISING + 2):  # numbered in this order
        keeper.puts(queue, 1)
    for way, queue, count in steps:
        getattr(keeper, way)(queue, count)
    keeper.check()
    keeper.storage.close()


def test_what_comes_in_order_is_in_no_index(tmp_path):
    """One by one and in batches, of this node and of a peer; a milestone for 64 of them."""
    keeper = Keeper(tmp_path)
    keeper.puts(1, 100)
    keeper.batch(1, 998)
    keeper.puts(2, 1)
    keeper.batch(1, 98)
    assert (listed(keeper), stones(keeper)) == (0, 1200 // rising.SPACING)
    keeper.check()
    keeper.storage.close()


def test_queues_in_turns_need_no_milestone_for_each_message(narrow_inbox, tmp_path):
    """Numbers rise over all queues: what others got since does not count."""
    keeper = Keeper(tmp_path)
    for _ in range(16):
        for queue in range(1, RISING + 1):
            keeper.puts(queue, 1)
    assert stones(keeper) == RISING * 16 // SPACING
    keeper.check()
    keeper.storage.close()


def test_nobody_walks_over_what_moved_there(narrow_inbox, tmp_path):
    """Many messages get the rank of another queue, and come into the middle of what rises there."""
    keeper = Keeper(tmp_path)
    keeper.inbox.put("c1", 3, "self", [keeper.job()])
    keeper.puts(1, 10 * SPACING)
    keeper.inbox.put("c1", 3, "self", [keeper.job()])
    claims = [claim for claim in keeper.inbox.claim(["c1"], 99, keeper.worker) if claim.priority == 5]
    keeper.inbox.settle([Release(claim, rank=first_rank(3)) for claim in claims])
    assert listed(keeper) == 10 * SPACING
    keeper.check()
    keeper.storage.close()


@pytest.mark.parametrize("first", ["none", "buried", "delayed"])
def test_milestones_go_with_what_they_stood_for(narrow_inbox, tmp_path, first):
    """Also where a message stays at the beginning, and where consumers take what was delayed and never anything new."""
    keeper, delay = Keeper(tmp_path), {"due_in": 1.0} if first == "delayed" else {}
    if first == "buried":
        keeper.puts(1, 1)
        keeper.inbox.settle([Bury(keeper.inbox.claim(["c1"], 1, keeper.worker)[0], "no")])
    keeper.put(1, keeper.several(3 * SPACING, **delay))
    for _ in range(30):
        keeper.put(1, keeper.several(SPACING, **delay))
        keeper.clock.advance(1.0)
        claims = keeper.inbox.claim(["c1"], SPACING, keeper.worker)
        assert keeper.inbox.settle([Ack(claim) for claim in claims]) == [True] * SPACING
        assert stones(keeper) <= 10
    keeper.check()
    keeper.storage.close()


def test_a_backlog_is_not_read_for_its_milestones(narrow_inbox, tmp_path):
    """What no consumer has come to is left alone: none of its milestones is looked at, whatever is put behind it."""
    keeper = Keeper(tmp_path)
    keeper.batch(1, 198)
    narrow_inbox.setattr(ids.sql, "CLEAR", "no statement")
    keeper.batch(1, 198)
    keeper.acknowledge(1, 100)
    with pytest.raises(StoreError, match="near"):
        keeper.batch(1, 8)
    keeper.storage.close()


def test_a_wall_clock_that_stood_wrong_is_forgotten(narrow_inbox, tmp_path):
    """What comes after ids of the future is listed, until the queue has been empty: then it rises again."""
    keeper = Keeper(tmp_path)
    keeper.wall += 1e6
    keeper.puts(1, 6)
    keeper.wall, keeper.make = 1e9, IdMaker(lambda: keeper.wall)
    keeper.puts(1, 5)
    assert listed(keeper) == 5
    keeper.check()
    keeper.acknowledge(1, 9)
    keeper.puts(1, 5)
    assert listed(keeper) == 0
    keeper.check()
    keeper.storage.close()
