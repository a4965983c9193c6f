"""Results that do not fit into a receipt: each is a message to the node of the client, and the receipt names it.

Owns the channel, the message and how it is taken. It is stored before the job is acknowledged, has the same id if the
job is done twice, and is dropped after a day if nobody takes it. Must not know connections or packets.
"""

import attrs

from dropr_core.contracts.gateway import Desk, Fate, Parcel
from dropr_core.model.message import State
from dropr_core.model.names import format_id, id_of_key

RESULTS = "gearman.results"
AS_MESSAGE = "application/vnd.dropr.gearman-result"
"""The type of a receipt's result that is the id of the message with the real one."""
LIFE = 86_400.0
_LIVES = frozenset({State.READY, State.DELAYED, State.BLOCKED, State.LEASED})


def result_parcel(job: str, home: str, result: bytes) -> Parcel:
    """The message. ``home``: the node whose client submitted the job of that id."""
    return Parcel(
        channel=RESULTS, body=result, to=home, dedup=job, expires_in=LIFE, headers={"x-gearman-result-of": job}
    )


def result_id(node: str, job: str) -> str:
    """Its id, if ``node`` sends it."""
    return format_id(id_of_key(node, RESULTS, job))


async def with_result(desk: Desk, fate: Fate | None) -> Fate | None:
    """What became of a job, with the result itself where the receipt only names it."""
    if fate is None or fate.result_type != AS_MESSAGE or fate.result is None:
        return fate
    name = fate.result.decode("ascii", "replace")
    result = await _take(desk, name)
    if result is not None:
        return attrs.evolve(fate, result=result, result_type="")
    return attrs.evolve(fate, state=State.FAILED, reason=f"its result came as message {name}, and is not here any more")


async def _take(desk: Desk, message_id: str) -> bytes | None:
    """Wait until it is here, and take it. None: it was here and has been taken, or is too old."""
    async with desk.watch(RESULTS) as watch:
        while True:
            await watch.prepare()
            seen = await desk.find_id(message_id)
            if seen is not None and seen.state not in _LIVES:
                return None
            held = None if seen is None else await desk.reserve_number(seen.number)
            if held is not None:
                body = held.body
                await held.ack()
                return body
            await watch.wait()


__all__ = ["AS_MESSAGE", "LIFE", "RESULTS", "result_id", "result_parcel", "with_result"]
