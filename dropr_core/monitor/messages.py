"""Messages as documents: what is listed and shown of them, on the command line and on the page.

Owns those shapes, how a message is found, and which half has its bytes. Reads only. Must not know how a document is
shown.
"""

import io
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO

from dropr_core.monitor.selection import select, walk_inbox, walk_outbox
from dropr_core.system.loading import unforked

if TYPE_CHECKING:
    from dropr_core.api.runtime import Runtime
    from dropr_core.contracts.storage import Delivery, JobInfo
    from dropr_core.model.message import Message
    from dropr_core.model.names import MessageId

OUTBOX_STATES = ("queued", "accepted", "held", "processed", "failed", "expired", "cancelled", "dead")
INBOX_STATES = ("ready", "blocked", "delayed", "leased", "done", "buried", "expired")


def delivery_document(delivery: "Delivery", held: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A delivery in JSON; what is queued for a peer in ``held`` is shown as held."""
    with unforked:
        from dropr_core.model.names import format_id, priority_of

    return {
        "in": "outbox",
        "id": format_id(delivery.id),
        "peer": delivery.peer,
        "channel": delivery.channel,
        "priority": priority_of(delivery.priority),
        "state": "held" if delivery.state == "queued" and delivery.peer in held else str(delivery.state),
        "sequence": delivery.sequence,
        "age": round(delivery.age, 3),
        "size": delivery.size,
        "reason": delivery.reason,
        "receipt": delivery.receipt,
        "possible_duplicate": delivery.possible_duplicate,
    }


def job_document(job: "JobInfo") -> dict[str, Any]:
    """A message of the inbox in JSON."""
    with unforked:
        from dropr_core.model.names import format_id

    return {
        "in": "inbox",
        "id": format_id(job.id),
        "peer": job.sender,
        "channel": job.channel,
        "priority": job.priority,
        "state": str(job.state),
        "age": round(job.age, 3),
        "size": job.size,
        "attempts": job.attempts,
        "reason": job.reason,
        "consumer": job.consumer,
        "due_in": None if job.due_in is None else round(job.due_in, 3),
        "possible_duplicate": job.possible_duplicate,
        "rank": job.rank,
        "number": job.number,
    }


def find_messages(
    node: "Runtime", side: str, states: tuple[str, ...], filters: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Messages of a side (``outbox``, ``inbox``, ``both``), in these states (none: in all), as documents.

    ``filters``: of `selection.select`.
    """
    for half, known in (("outbox", OUTBOX_STATES), ("inbox", INBOX_STATES)):
        here = [state for state in states if state in known]
        if side not in (half, "both") or (states and not here):
            continue
        if half == "inbox":
            for job in walk_inbox(node.inbox, select(states=here, **filters)):
                document = job_document(job)
                document["size"] += _body_beside(node.inbox.envelope(job.id))
                yield document
            continue
        with unforked:
            from dropr_core.model.names import priority_of

        held = held_peers(node)  # held is what is queued for a peer that is held; not every storage says so
        stored = {*here, "queued", "held"} if {"queued", "held"} & {*here} else {*here}
        selection = select(states=sorted(stored), **filters)
        for delivery in walk_outbox(node.outbox, selection):
            document = delivery_document(delivery, held)
            if priority_of(delivery.priority) != delivery.priority:
                document["size"] += _body_beside(node.outbox.envelope(delivery.id))
            if not here or document["state"] in here:
                yield document


def _body_beside(envelope: bytes | None) -> int:
    """Bytes of a body that is a file beside the store; 0 if it is in the envelope, or no longer kept."""
    with unforked:
        from dropr_core.model.envelope import reference_of

    outside = None if envelope is None else reference_of(envelope)
    return 0 if outside is None else outside.size


def held_peers(node: "Runtime") -> frozenset[str]:
    """The peers to which nothing is shipped now."""
    return frozenset(name for name, state in node.outbox.peers().items() if state.held)


def why_it_waits(node: "Runtime", message_id: "MessageId") -> dict[str, str]:
    """Peer → what the daemon says of a message that waits for a reason of its own."""
    with unforked:
        from dropr_core.model.names import format_id
        from dropr_core.monitor.process_reports import daemon_report

    peers = (daemon_report(node) or {}).get("peers", {})
    return {
        name: str(one["reason"])
        for name, peer in peers.items()
        for one in peer.get("unreadable", ())
        if one["id"] == format_id(message_id)
    }


def beginning_with(node: "Runtime", digits: str) -> "Iterator[MessageId]":
    """Every message here whose id begins with these hexadecimal digits; looks through both halves."""
    seen = set()
    sent = (delivery.id for delivery in walk_outbox(node.outbox, select()))
    for identity in chain(sent, (job.id for job in walk_inbox(node.inbox, select()))):
        if identity not in seen and identity.hex().startswith(digits):
            seen.add(identity)
            yield identity


def envelope_of(node: "Runtime", message_id: "MessageId") -> bytes | None:
    """The stored bytes of a message, from whichever half keeps them."""
    found = node.outbox.envelope(message_id)
    return node.inbox.envelope(message_id) if found is None else found


def open_body(node: "Runtime", message_id: "MessageId") -> BinaryIO | None:
    """The body of a message as a file, from whichever half keeps it."""
    with unforked:
        from dropr_core.model.envelope import decode, reference_of

    data = envelope_of(node, message_id)
    if data is None:
        return None
    outside = reference_of(data)
    if outside is None:
        return io.BytesIO(decode(data).body)
    if node.outbox.envelope(message_id) is not None:
        return node.bodies.open_sent(message_id, outside)
    job = node.inbox.status(message_id)
    return None if job is None else node.bodies.open_received(job.sender, message_id, outside)


def message_document(message: "Message", sender: str | None) -> dict[str, Any]:
    """What the sender fixed, in JSON. ``sender``: the peer that proved to be it, for a message that came in."""
    claimed = None if sender is None or sender == message.sender else message.sender
    return {
        "sender": sender or message.sender,
        "claimed_sender": claimed,
        "channel": message.channel,
        "priority": message.priority,
        "content_type": message.content_type,
        "headers": dict(message.headers),
        "key": message.key,
        "receipt": message.receipt,
        "created_at": message.created_at,
        "delay": message.delay,
        "expires_in": message.expires_in,
    }
