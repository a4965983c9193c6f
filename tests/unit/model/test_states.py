"""The two life cycles: which state may follow which, and what deliveries make of a message."""

from itertools import combinations_with_replacement

import pytest

from dropr_core.model.message import State
from dropr_core.model.states import DELIVERY, ENDED, JOB, SETTLED, may_follow, of_message

Q, A, P, F, E, C, D = (State.QUEUED, State.ACCEPTED, State.PROCESSED, State.FAILED, State.EXPIRED, State.CANCELLED,
                       State.DEAD)  # fmt: skip


def reachable(table, start):
    """All states that can ever follow."""
    found, new = set(), {start}
    while new:
        found |= new
        new = {after for state in new for after in table[state]} - found
    return found


def test_every_state_of_a_table_can_be_reached_and_is_described():
    """No state is a dead letter of the table itself."""
    assert reachable(DELIVERY, State.QUEUED) == set(DELIVERY)
    assert reachable(JOB, State.BLOCKED) | {State.DELAYED} == set(JOB)
    for table in (DELIVERY, JOB):
        assert {after for states in table.values() for after in states} <= set(table)
        assert not any(state in after for state, after in table.items())


def test_what_was_processed_stays_so():
    """The receipt is the truth: nothing follows it, and it may follow whatever we believed before it came."""
    assert DELIVERY[P] == frozenset()
    assert {state for state in DELIVERY if may_follow(DELIVERY, state, P)} == set(DELIVERY) - {P, Q}


def test_what_is_done_or_expired_never_comes_back():
    """Buried alone does: a person may send it back."""
    assert {state for state in SETTLED if JOB[state]} == {State.BURIED}


def test_a_state_of_the_other_table_follows_nothing():
    """Nothing moves from one life cycle into the other."""
    assert not may_follow(DELIVERY, State.READY, Q)
    assert not may_follow(JOB, State.READY, P)


@pytest.mark.parametrize(
    ("deliveries", "receipt", "state"),
    [
        ([], True, Q),
        ([Q], True, Q),
        ([A], True, A),
        ([A], False, A),
        ([P], True, P),
        ([P, P], True, P),
        ([A, P], False, A),
        ([A, P], True, State.PARTIAL),
        ([Q, A], True, Q),
        ([Q, A], False, State.PARTIAL),
        ([Q, P], True, State.PARTIAL),
        ([Q, D], True, State.PARTIAL),
        ([D], True, D),
        ([D, D], True, D),
        ([E, E], False, E),
        ([D, E], True, F),
        ([P, F], True, F),
        ([A, C], False, F),
        ([A, C], True, State.PARTIAL),
    ],
)
def test_the_state_of_a_message_is_that_of_all_its_deliveries(deliveries, receipt, state):
    """Through, on the way, ended, or some of each."""
    assert of_message(deliveries, receipt=receipt) is state


def test_a_message_has_ended_exactly_when_all_its_deliveries_have():
    """Whatever the mixture: no end while something is still under way, and no way on after all ended."""
    for receipt in (True, False):
        over = ENDED if receipt else ENDED | {A}
        for states in combinations_with_replacement(list(DELIVERY), 3):
            whole = of_message(states, receipt=receipt)
            assert (whole in over) == all(state in over for state in states), (states, receipt, whole)
