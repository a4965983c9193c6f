"""The two life cycles as literal tables.

Owns which state may follow which, and which states are ends. All storages check their moves
against these tables; docs/concepts.md draws them from here. Must not know how states are stored.

Sender, one delivery:                     Receiver, one message:

  queued ──▶ accepted ──▶ processed         ready ◀──▶ delayed      blocked (ordering key)
    │ ▲          ├─────▶ failed               │ ▲          │            │
    │ └──────────┘ (peer lost it)             ▼ │          ▼            ▼
    ├─▶ failed │ expired │ cancelled │ dead  leased ──▶ done │ buried  ready
    ▼                                                  (also expired)
   held (seen, not stored: its peer is held)
"""

from collections.abc import Iterable, Mapping

from dropr_core.model.message import State

_S = State

DELIVERY: Mapping[State, frozenset[State]] = {
    _S.QUEUED: frozenset({_S.ACCEPTED, _S.FAILED, _S.EXPIRED, _S.CANCELLED, _S.DEAD}),
    # Back to queued when the peer lost what it had accepted; processed also straight from a late receipt.
    _S.ACCEPTED: frozenset({_S.PROCESSED, _S.FAILED, _S.EXPIRED, _S.DEAD, _S.QUEUED}),
    # A redrive sends an ended delivery again. A receipt that comes after we gave up is the truth.
    _S.DEAD: frozenset({_S.QUEUED, _S.PROCESSED, _S.FAILED}),
    _S.FAILED: frozenset({_S.QUEUED, _S.PROCESSED}),
    _S.EXPIRED: frozenset({_S.QUEUED, _S.PROCESSED}),
    _S.CANCELLED: frozenset({_S.PROCESSED, _S.FAILED}),
    _S.PROCESSED: frozenset(),
}
"""Sender's side: state of a delivery → states that may follow."""

JOB: Mapping[State, frozenset[State]] = {
    _S.BLOCKED: frozenset({_S.READY, _S.EXPIRED, _S.BURIED}),
    _S.READY: frozenset({_S.LEASED, _S.EXPIRED, _S.BURIED}),
    _S.DELAYED: frozenset({_S.READY, _S.EXPIRED, _S.BURIED}),
    _S.LEASED: frozenset({_S.READY, _S.DELAYED, _S.DONE, _S.BURIED}),
    _S.BURIED: frozenset({_S.READY, _S.BLOCKED}),
    _S.DONE: frozenset(),
    _S.EXPIRED: frozenset(),
}
"""Receiver's side: state of a message in the inbox → states that may follow."""

ENDED = frozenset({_S.PROCESSED, _S.FAILED, _S.EXPIRED, _S.CANCELLED, _S.DEAD})
"""States of a delivery in which nothing more is done by itself."""

SETTLED = frozenset({_S.DONE, _S.BURIED, _S.EXPIRED})
"""States of a job that free its ordering key."""


def may_follow(table: Mapping[State, frozenset[State]], old: State, new: State) -> bool:
    """Whether ``table`` lets ``new`` follow ``old``."""
    return new in table.get(old, frozenset())


def of_message(deliveries: Iterable[State], *, receipt: bool) -> State:
    """The state of a message from those of its deliveries (docs/guarantees.md, Deliveries).

    All got through: processed (accepted where no receipt was asked). Some ended or still under way
    and others done: partial. All ended and one did not get through: failed, or the one common end.
    """
    states = set(deliveries)
    through = {_S.PROCESSED} if receipt else {_S.PROCESSED, _S.ACCEPTED}
    if not states:
        return _S.QUEUED
    if states <= through:
        return _S.PROCESSED if states == {_S.PROCESSED} else _S.ACCEPTED
    if len(states) == 1:
        return next(iter(states))
    if all(state in ENDED or state in through for state in states):
        return _S.FAILED
    if states & (through | ENDED):
        return _S.PARTIAL
    return _S.QUEUED if _S.QUEUED in states else _S.ACCEPTED
