"""The checker itself: good histories pass, and each kind of bad one is seen, by its invariant alone."""

import pytest

from dropr_core.testing.checker import INVARIANTS, Event, History, check, digest

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16
X, Y = digest(b"x"), digest(b"y")


def sent(identity, batch=1, content=X):
    return [Event("attempted", identity, digest=content, batch=batch), Event("acknowledged", identity, batch=batch)]


def entered(identity, **fields):
    return Event("entered", identity, **{"who": "inbox", "digest": X, **fields})


def given(identity, who="w1", **fields):
    return Event("given", identity, who, **fields)


ACK, PROCESSED = Event("acked", A, "w1"), Event("receipted", A, state="processed")
TRY, NO, LOOKED = Event("attempted", A, digest=X, batch=1), Event("refused", A, batch=1), Event("looked")
BURIED = Event("buried", A, "w1")
KEYED = [*sent(A), *sent(B, 2), entered(A, key="k"), entered(B, key="k")]

GOOD = {
    "delivered and done": [*sent(A), entered(A), given(A), ACK, PROCESSED],
    "still on its way": [*sent(A), Event("listed", A, digest=X), LOOKED],
    "dead with a reason": [*sent(A), Event("ended", A, state="dead", reason="given up"), LOOKED],
    "given back and given again": [*sent(A), entered(A), given(A), Event("returned", A, "w1"), given(A, "w2")],
    "buried, kicked, given": [*sent(A), entered(A), given(A), BURIED, Event("kicked", A), given(A, "w2")],
    "buried by nobody": [*sent(A), entered(A), Event("buried", A), Event("receipted", A, state="failed")],
    "sent again, flagged": [*sent(A), entered(A), entered(A, flagged=True), given(A), given(A, "w2")],
    "refused and gone": [TRY, NO, LOOKED],
    "refused, then sent": [TRY, NO, *sent(A, 2), entered(A)],
    "key in order": [*KEYED, given(A), ACK, given(B)],
    "no key, any order": [*sent(A), *sent(B, 2), entered(A), entered(B), given(B), given(A)],
    "two calls at once": [*sent(A, 1), *sent(B, 2), Event("listed", A), Event("listed", B), LOOKED],
}

BAD = [
    ("I1", "acknowledged and nowhere", [*sent(A), LOOKED]),
    ("I1", "dead without a reason", [*sent(A), Event("ended", A, state="dead"), Event("listed", A), LOOKED]),
    ("I1", "listed once, then gone", [*sent(A), Event("listed", A), LOOKED, LOOKED]),
    ("I1", "one of two is gone", [*sent(A), *sent(B, 2), Event("listed", A), LOOKED]),
    ("I2", "entered twice", [*sent(A), entered(A), entered(A)]),
    ("I2", "two workers at once", [*sent(A), entered(A), given(A), given(A, "w2")]),
    ("I2", "given after the ack", [*sent(A), entered(A), given(A), ACK, given(A, "w2")]),
    ("I2", "acked without a lease", [*sent(A), entered(A), ACK]),
    ("I2", "acked by another", [*sent(A), entered(A), given(A), Event("acked", A, "w2")]),
    ("I2", "given before it came", [*sent(A), given(A)]),
    ("I3", "processed without an ack", [*sent(A), entered(A), given(A), PROCESSED]),
    ("I3", "failed without a burial", [*sent(A), entered(A), Event("receipted", A, state="failed")]),
    ("I3", "accepted and never entered", [*sent(A), Event("receipted", A, state="accepted")]),
    ("I3", "another one's ack", [*sent(A), *sent(B, 2), entered(A), entered(B), given(B), Event("acked", B, "w1"),
                                 PROCESSED]),
    ("I4", "changed on the way in", [*sent(A), entered(A, digest=Y)]),
    ("I4", "changed on the way out", [*sent(A), entered(A), given(A, digest=Y)]),
    ("I4", "changed at rest", [*sent(A), Event("listed", A, digest=Y), LOOKED]),
    ("I4", "another one's body", [*sent(A), *sent(B, 2, Y), entered(A, digest=Y)]),
    ("I6", "refused and listed", [TRY, NO, Event("listed", A)]),
    ("I6", "refused and entered", [TRY, NO, entered(A)]),
    ("I6", "half a call", [TRY, Event("attempted", B, digest=X, batch=1),
                           Event("acknowledged", A, batch=1)]),
    ("I6", "stored anew by a repetition", [*sent(A), *sent(A, 2)]),
    ("I10", "second of a key first", [*KEYED, given(B)]),
    ("I10", "two of a key at once", [*KEYED, given(A), given(B)]),
    ("I10", "lane out of order", [*sent(A), *sent(B, 2), entered(A, lane="l", place=2), entered(B, lane="l", place=1)]),
    ("I10", "next of a key during a retry", [*KEYED, given(A),
                                             Event("returned", A, "w1"), given(B)]),
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_history_passes(name):
    """What may happen is no violation."""
    assert check(History(GOOD[name])) == []


@pytest.mark.parametrize(("invariant", "name", "events"), BAD, ids=[f"{i} {n}" for i, n, _ in BAD])
def test_bad_history_is_seen(invariant, name, events):
    """What must not happen is seen, and blamed on the right invariant."""
    found = check(History(events))
    assert {violation.invariant for violation in found} == {invariant}


def test_each_invariant_has_three_bad_histories():
    """The museum of bad histories is large enough."""
    names = [invariant for invariant, _, _ in BAD]
    assert len(INVARIANTS) == len(set(names))
    assert all(names.count(name) >= 3 for name in names)
