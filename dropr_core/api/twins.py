"""The same run of a schedule, sent by two nodes that both know the schedule: one of the two is handed out.

Owns the rule: of messages with the same id of a run in one channel the first that came counts, unless it failed. What
was handled is kept for a day, so that a twin is known also when it comes late. Must not know schedules.
"""

from collections.abc import Sequence

from dropr_core.api.received import settle
from dropr_core.api.runtime import Runtime
from dropr_core.contracts.storage import Ack, Claim, Selection
from dropr_core.model.message import State
from dropr_core.model.names import format_id, is_of_run, keep_of
from dropr_core.system.log_fields import about

FAILED = frozenset({State.BURIED, State.EXPIRED})


def without_twins(runtime: Runtime, claims: Sequence[Claim]) -> list[Claim]:
    """The claims, without those of which a twin came before: they are acknowledged, with that as their reason. Costs
    a look-up for each run of a schedule. Raises StoreError.
    """
    kept, twins = list[Claim](), list[Ack]()
    for claim in claims:
        if is_of_run(claim.id) and (first := _twin_of(runtime, claim)):
            keep = keep_of(claim.id, runtime.rules(claim.channel).retention)
            twins.append(Ack(claim, None, "", keep, f"not handled again: the same run came from {first} before"))
            runtime.log.info("%s on %s from %s: the same run came from %s before; it is not handled again",
                             format_id(claim.id), claim.channel, claim.sender, first,
                             extra=about(message=claim.id, channel=claim.channel, peer=claim.sender))  # fmt: skip
        else:
            kept.append(claim)
    if twins:
        settle(runtime, twins)
    return kept


def _twin_of(runtime: Runtime, claim: Claim) -> str:
    """Who sent one that came before; empty: nobody."""
    for one in runtime.storage.inbox.all(Selection(ids=(claim.id,))):
        if one.number < claim.number and one.channel == claim.channel and one.state not in FAILED:
            return one.sender
    return ""


__all__ = ["without_twins"]
