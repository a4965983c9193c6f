"""What a node tells a peer about one message between the two of them, and nothing of anybody else's.

Owns the answer to `trace`: states, ages, reasons; no payload, no result, no header. Must not know frames or time.
"""

from collections.abc import Iterable
from itertools import islice

from dropr_core.contracts.storage import Delivery, Inbox, JobInfo, Outbox, Selection
from dropr_core.model.limits import MAX_SECONDS, clip
from dropr_core.model.names import MessageId, priority_of
from dropr_core.protocol import messages as wire

MOST = 16
"""Deliveries and messages of one id that are told; there is more than one of each only where something went wrong."""
MAX_ERRORS = 16_384
"""Bytes of the errors of all attempts that are told: the last ones."""


def build_trace(outbox: Outbox, inbox: Inbox, peer: str, identity: MessageId) -> wire.Traced:
    """What is known here of a message that went to ``peer`` or came from it. Costs two look-ups. Raises StoreError."""
    wanted = Selection(ids=(identity,), peer=peer)
    # The storage selects by peer; that nothing of another one is told is too much to leave to every storage.
    sent: Iterable[Delivery] = (one for one in outbox.all(wanted) if one.peer == peer)
    came: Iterable[JobInfo] = (one for one in inbox.all(wanted) if one.sender == peer)
    return wire.Traced([_delivery(one) for one in islice(sent, MOST)], [_job(one) for one in islice(came, MOST)])


def _delivery(one: Delivery) -> wire.TracedDelivery:
    return wire.TracedDelivery(
        one.channel, priority_of(one.priority), str(one.state), one.sequence, _seconds(one.age), clip(one.reason),
        one.receipt, one.possible_duplicate,
    )  # fmt: skip


def _job(one: JobInfo) -> wire.TracedJob:
    return wire.TracedJob(
        one.channel, one.priority, str(one.state), _seconds(one.age), max(0, one.attempts), last_lines(one.reason),
        clip(one.consumer), None if one.due_in is None else _seconds(one.due_in), one.possible_duplicate,
    )  # fmt: skip


def _seconds(age: float) -> float:
    return min(max(0.0, age), MAX_SECONDS)


def last_lines(text: str) -> str:
    """The last lines of a history of errors, as many as `MAX_ERRORS` bytes hold; one that is longer is cut."""
    kept: list[str] = []
    room = MAX_ERRORS
    for line in reversed(text.splitlines()):
        line = clip(line, MAX_ERRORS // 4)  # noqa: PLW2901
        room -= len(line.encode()) + 1
        if room < 0:
            break
        kept.append(line)
    return "\n".join(reversed(kept))
