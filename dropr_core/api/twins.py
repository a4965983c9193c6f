"""Claimed messages that are not handed out now: twins, those that have taken effect, and those to be counted first.

Owns three rules. The same run of a schedule, sent by two nodes that both know it: of messages with its id in one
channel the first that came counts, unless it failed; what was handled is kept for a day, so that a twin is known also
when it comes late. What comes again after its effect was committed in a database of the user's. And what was begun in
this process as an attempt that the store has lost, which counts before it is tried again. Must not know schedules.
"""

from collections.abc import Sequence

from dropr_core.api.received import Received, settle
from dropr_core.api.runtime import Runtime
from dropr_core.contracts.inbox import WAITING
from dropr_core.contracts.outbox import PAGE
from dropr_core.contracts.storage import Ack, Claim, JobInfo, Release, Selection, Settlement
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


def find_uncounted(runtime: Runtime) -> None:
    """Ask the store for what was begun in this process and could not be settled: whether it knows of that attempt. To
    be done before anything is claimed. Costs a look-up for each. Raises StoreError.
    """
    asked = runtime.unsettled.asked_for()
    for at in range(0, len(asked), PAGE):
        page = asked[at : at + PAGE]
        ids = tuple({one.claim.id for one in page})
        found = {(info.number, info.id): info for info in runtime.storage.inbox.all(Selection(ids=ids))}
        lost = [one for one in page if (info := found.get(one.key)) is not None and _is_lost(info, one.claim)]
        runtime.unsettled.answered(page, lost)


def _is_lost(info: JobInfo, claim: Claim) -> bool:
    if info.state is State.LEASED:  # its attempt is that of this lease
        return info.token != claim.token and info.attempts <= claim.attempt
    return info.state in WAITING and info.attempts < claim.attempt


def without_uncounted(runtime: Runtime, claims: Sequence[Claim]) -> list[Claim]:
    """The claims, without those that `find_uncounted` has found. They are settled by what this process knows: done, if
    that was noted; else given back or buried, the attempt counted. Raises StoreError.
    """
    kept, changes = list[Claim](), list[Settlement]()
    for claim in claims:
        lost = runtime.unsettled.uncounted(claim)
        if lost is None:
            kept.append(claim)
        elif lost.ack is not None:
            changes.append(lost.ack._replace(claim=claim))
        else:
            reason = f"attempt {claim.attempt}: its lease was lost with the last moments of the store"
            changes.append(Received(runtime, claim, False).make_failure(None, reason))
    if changes:
        for change, good in zip(changes, settle(runtime, changes), strict=True):
            if good:
                _say_counted(runtime, change)
        runtime.storage.inbox.flush()  # once is enough
    return kept


def _say_counted(runtime: Runtime, change: Settlement) -> None:
    claim = change.claim
    runtime.unsettled.counted(claim, ended=not isinstance(change, Release))
    runtime.log.warning("%s on %s: the store had lost that it was begun as attempt %d; that counts now",
                        format_id(claim.id), claim.channel, claim.attempt,
                        extra=about(message=claim.id, channel=claim.channel))  # fmt: skip


def _twin_of(runtime: Runtime, claim: Claim) -> str:
    """Who sent one that came before; empty: nobody."""
    for one in runtime.storage.inbox.all(Selection(ids=(claim.id,))):
        if one.number < claim.number and one.channel == claim.channel and one.state not in FAILED:
            return one.sender
    return ""


__all__ = ["find_uncounted", "without_effects", "without_twins", "without_uncounted"]
