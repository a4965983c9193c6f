"""Messages that are not handed out, for what they would do is done: twins, and those that have taken effect.

Owns two rules. The same run of a schedule, sent by two nodes that both know it: of messages with its id in one channel
the first that came counts, unless it failed; what was handled is kept for a day, so that a twin is known also when it
comes late. And what comes again after its effect was committed in a database of the user's. Must not know schedules.
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


def without_effects(runtime: Runtime, claims: Sequence[Claim]) -> list[Claim]:
    """The claims, without those that have taken effect already, with a transaction in a database of the user's: their
    process was killed before it could say so here. They are acknowledged. Costs a question for each that comes again.
    """
    again = [claim for claim in claims if claim.attempt > 1 or claim.possible_duplicate]
    found = runtime.effects.found(again)
    if not found:
        return list(claims)
    acks = [
        Ack(claim, effect.result, effect.result_type, keep_of(claim.id, runtime.rules(claim.channel).retention),
            "" if effect.result is not None else "it took effect, and its result was lost with its process")
        for claim in again if (effect := found.get(claim.number)) is not None
    ]  # fmt: skip
    settle(runtime, acks)
    for ack in acks:
        runtime.log.info("%s on %s has taken effect before; it is not handled again",
                         format_id(ack.claim.id), ack.claim.channel,
                         extra=about(message=ack.claim.id, channel=ack.claim.channel))  # fmt: skip
    return [claim for claim in claims if claim.number not in found]


def _twin_of(runtime: Runtime, claim: Claim) -> str:
    """Who sent one that came before; empty: nobody."""
    for one in runtime.storage.inbox.all(Selection(ids=(claim.id,))):
        if one.number < claim.number and one.channel == claim.channel and one.state not in FAILED:
            return one.sender
    return ""


__all__ = ["without_effects", "without_twins"]
