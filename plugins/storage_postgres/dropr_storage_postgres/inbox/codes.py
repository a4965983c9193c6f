"""States as they stand in the tables.

Owns the numbers; those of `inbox_tables` and these are the same. Must not know what states mean.
"""

from dropr_core.model.message import State
from dropr_storage_postgres.engine.inbox_tables import BLOCKED, BURIED, DELAYED, DONE, EXPIRED, FRESH, LEASED, READY

CODES = {
    State.READY: READY, State.DELAYED: DELAYED, State.BLOCKED: BLOCKED, State.LEASED: LEASED, State.BURIED: BURIED,
    State.DONE: DONE, State.EXPIRED: EXPIRED,
}  # fmt: skip
STATES = {code: state for state, code in CODES.items()}


def state_of(code: int, place: int, frontier: int) -> State:
    """In which state a message stands."""
    if code == FRESH:
        return State.LEASED if place <= frontier else State.READY
    return STATES[code]
