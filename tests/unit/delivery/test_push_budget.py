"""Pushes to all peers together take a bounded amount of memory, and each peer gets something."""

from hypothesis import given
from hypothesis import strategies as st

from dropr_core.delivery.push_budget import ALL_PUSHES, SMALL, PushBudget

PEERS = 300
BATCH = 4 << 20


@given(st.lists(st.tuples(st.integers(0, PEERS - 1), st.integers(1, BATCH), st.booleans()), max_size=400))
def test_whatever_is_pushed_and_answered_the_room_holds(steps):
    """In any order of pushes and answers all pushes together stay below the room and a small one for each peer."""
    budget, mine = PushBudget(), [0] * PEERS
    for peer, wanted, answered in steps:
        if answered:
            budget.under_way, mine[peer] = budget.under_way - mine[peer], 0
            continue
        size = min(wanted, budget.room(mine[peer]))
        assert size > 0 or mine[peer] > 0, "a peer with nothing under way always gets something"
        budget.under_way, mine[peer] = budget.under_way + size, mine[peer] + size
    assert budget.under_way == sum(mine)
    assert budget.under_way <= ALL_PUSHES + sum(SMALL for held in mine if held)


def test_one_peer_alone_is_not_held_back():
    """Four full pushes of a peer fit when nobody else has anything under way."""
    budget = PushBudget()
    for pushes in range(4):
        assert budget.room(pushes * BATCH) >= BATCH
        budget.under_way += BATCH
