"""Outcomes on the wire: what becomes of a message, as a receiver may claim it.

Owns the two directions of that translation. Must not know who asks.
"""

from collections.abc import Callable, Sequence

from dropr_core.errors import BadFrame
from dropr_core.model.limits import MAX_CONTENT_TYPE, MAX_RESULT, MAX_SEQUENCE, clip
from dropr_core.model.message import Outcome, State
from dropr_core.model.names import MessageId
from dropr_core.protocol import messages as wire


def from_outcome(outcome: Outcome) -> wire.OutcomeRow:
    """An outcome as it travels."""
    return wire.OutcomeRow(
        outcome.number, outcome.id, outcome.state.value, clip(outcome.reason), outcome.result, outcome.content_type
    )


def to_outcome(row: wire.OutcomeRow) -> Outcome:
    """An outcome as it came; raises BadFrame for one that no receiver may claim.

    What is only too long is cut: the work is done, whatever is said of it.
    """
    if row.state not in (State.PROCESSED, State.FAILED, State.EXPIRED):
        raise BadFrame(f"state {row.state[:20]!r} is none that a receiver may claim")
    if not 0 < row.number <= MAX_SEQUENCE or len(row.id) != 16:
        raise BadFrame(f"number {row.number}, and an id of {len(row.id)} bytes")
    result, reason = row.result, row.reason
    if result is not None and len(result) > MAX_RESULT:
        result, reason = None, f"{reason} (its result of {len(row.result or b'')} bytes is over the limit)"
    return Outcome(row.number, MessageId(row.id), State(row.state), clip(reason), result,
                   clip(row.content_type, MAX_CONTENT_TYPE))  # fmt: skip


def to_outcomes(rows: Sequence[wire.OutcomeRow], wrong: Callable[[str], None]) -> list[Outcome]:
    """A page as it came. A row that no receiver may claim is told to ``wrong`` and left out: the others count."""
    page = []
    for row in rows:
        try:
            page.append(to_outcome(row))
        except BadFrame as error:
            wrong(f"receipt ignored: {error}")
    return page


__all__ = ["from_outcome", "to_outcome", "to_outcomes"]
