"""Deliveries between their stored form and their form on the wire, in both directions.

Owns the three moves that pusher, endpoint and puller share: packing batches, accepting a push into an inbox, and
answering a peer that fetches. Must not know frames, keys, sockets or time.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from dropr_core.contracts.bodies import Bodies
from dropr_core.contracts.records import PlainEntries, PlainJobs
from dropr_core.contracts.storage import Accepted, Arrival, Batch, Inbox, Job, Outbox, Rejection
from dropr_core.errors import BadEnvelope, BadName, QueueFull, UsageError
from dropr_core.model import envelope
from dropr_core.model.limits import MAX_HOPS, MAX_LANES, MAX_REJECTION, MAX_SECONDS, MAX_SEQUENCE, clip
from dropr_core.model.message import State, check_options
from dropr_core.model.names import (
    START,
    Head,
    Lane,
    MessageId,
    SourceLane,
    StoreId,
    check_channel,
    check_lane_priority,
    check_name,
    format_id,
    priority_of,
)
from dropr_core.protocol import messages as wire
from dropr_core.protocol.log_matching import HeadRelation
from dropr_core.protocol.reconcile import Event, Reconciler, lane_of

Rejected = tuple[int, str, str]

ALIKE = 8
"""From so many envelopes on it pays to see whether they were made alike."""

ANY_SIZE = 1 << 62

TOO_NEW, TOO_NEW_REST = "too_new", 10.0
"""The word for a message that only a newer dropr understands, and seconds until it may be tried again: somebody has to
upgrade this node in the meantime."""

LATER = 2.0
"""Seconds after which a sender shall try a full receiver again."""


def pack(batch: Batch) -> wire.LanePart:
    """A batch as it travels."""
    notes = [] if isinstance(batch.entries, PlainEntries) else [
        (index, entry.age, entry.possible_duplicate)
        for index, entry in enumerate(batch.entries)
        if entry.age or entry.possible_duplicate
    ]  # fmt: skip
    return wire.LanePart(batch.lane.channel, batch.lane.priority, batch.after, batch.upto, batch.envelopes, notes)


def accept_push(
    inbox: Inbox,
    sender: str,
    store: StoreId,
    parts: Sequence[wire.LanePart],
    allows: Callable[[str], bool],
    max_body: int | None,
    bodies: Bodies | None = None,
    seen: Callable[[set[str]], None] | None = None,
) -> tuple[list[wire.PushResult], set[str]]:
    """Commit what a peer sent. Returns a verdict for each part, and the channels that got something. ``seen``: told
    those channels when there is something to be seen in them, which may be before it is promised.
    """
    verdicts: list[wire.PushResult | None] = []
    arrivals: list[Arrival] = []
    refusals: list[list[Rejected]] = []
    for part in parts:
        if (impossible := _impossible(part)) is not None:
            verdicts.append(wire.PushResult(False, START, later=LATER, reason=f"bad_lane: {impossible}"))
            continue
        if (refusal := refuse_lane(part, allows)) is not None:
            # Nothing of it is kept, not even how far it came: a store does not grow by what it refuses. Its sender goes
            # on behind it, and every message of it gets the same answer.
            code, reason = refusal[0], clip(refusal[1], MAX_REJECTION)
            rejections = [(index, code, reason) for index in range(len(part.envelopes))]
            verdicts.append(wire.PushResult(True, part.upto, rejections))
            continue
        try:
            arrival, rejected = _unpack(sender, store, part, max_body, bodies)
        except envelope.FromNewer as newer:
            verdicts.append(
                wire.PushResult(
                    False,
                    START,
                    later=TOO_NEW_REST,
                    reason=clip(f"{TOO_NEW}: {newer}: upgrade the receiving node", MAX_REJECTION),
                )
            )
            continue
        except _NoBody as no:
            verdicts.append(wire.PushResult(False, START, later=1.0, reason=clip(no, MAX_REJECTION), missing=True))
            continue
        verdicts.append(None)
        arrivals.append(arrival)
        refusals.append(rejected)
    words: list[wire.PushResult] = []
    for result, rejected in zip(_accept(inbox, arrivals, seen) if arrivals else (), refusals, strict=True):
        if isinstance(result, Accepted):
            words.append(wire.PushResult(result.taken, result.head, rejected if result.taken else []))
        else:
            words.append(wire.PushResult(False, START, later=LATER, reason=clip(result, MAX_REJECTION)))
    if bodies is not None:
        _note_bodies(bodies, sender, arrivals, words)
    said = iter(words)
    return [next(said) if verdict is None else verdict for verdict in verdicts], _channels_of(arrivals, words)


def _channels_of(arrivals: Sequence[Arrival], words: Sequence[Accepted | wire.PushResult]) -> set[str]:
    """Those that got something."""
    return {one.source.channel for one, word in zip(arrivals, words, strict=True) if word.taken and one.entries}


def taken_of(parts: Sequence[Sequence[bytes]], verdicts: Sequence[wire.PushResult]) -> list[bytes]:
    """Of the envelopes of each part those that entered a queue."""
    taken: list[bytes] = []
    for envelopes, verdict in zip(parts, verdicts, strict=True):
        if verdict.taken:
            rejected = {index for index, _, _ in verdict.rejected}
            taken += [data for at, data in enumerate(envelopes) if at not in rejected] if rejected else envelopes
    return taken


def _note_bodies(bodies: Bodies, sender: str, arrivals: Sequence[Arrival], words: Sequence[wire.PushResult]) -> None:
    for arrival, word in zip(arrivals, words, strict=True):
        if word.taken and arrival.source.large:
            for job in arrival.entries:
                if reference := envelope.reference_of(job.envelope):
                    bodies.accepted(sender, job.id, reference)


def _accept(
    inbox: Inbox, arrivals: Sequence[Arrival], seen: Callable[[set[str]], None] | None
) -> Sequence[Accepted | QueueFull]:
    try:
        if seen is None:
            return inbox.accept(arrivals)
        return inbox.accept_telling(arrivals, lambda words: seen(_channels_of(arrivals, words)))
    except QueueFull as full:
        if len(arrivals) == 1:
            return [full]
    # One full channel must not keep the others out: ask for each by itself.
    return [_accept(inbox, [arrival], seen)[0] for arrival in arrivals]


def _unpack(
    sender: str,
    store: StoreId,
    part: wire.LanePart,
    max_body: int | None,
    bodies: Bodies | None,
) -> tuple[Arrival, list[Rejected]]:
    source = SourceLane(sender, store, part.channel, part.priority)
    after = Head(part.after[0], MessageId(part.after[1]))
    upto = Head(part.upto[0], MessageId(part.upto[1]))
    notes = {index: (age, doubled) for index, age, doubled in part.notes}
    plain = _plain(part, max_body)
    if plain is not None:
        return Arrival(source, after, upto, plain), []
    jobs: list[Job] = []
    rejected: list[Rejected] = []
    for index, data in enumerate(part.envelopes):
        try:
            job = _job(data, part, max_body, notes.get(index))
            if part.large:
                _check_body(job, sender, bodies)
            jobs.append(job)
        except _Unwanted as no:
            rejected.append((index, no.code, clip(no.reason, MAX_REJECTION)))
        except envelope.FromNewer:
            # What stands before it is taken, if its numbers are known: without voids between them.
            if not jobs or rejected or upto.sequence - after.sequence != len(part.envelopes):
                raise
            upto = Head(after.sequence + index, jobs[-1].id)
            break
        except BadEnvelope as error:
            rejected.append((index, "bad_envelope", clip(error, MAX_REJECTION)))
    return Arrival(source, after, upto, jobs), rejected


def _plain(part: wire.LanePart, max_body: int | None) -> PlainJobs | None:
    """The jobs of a part whose envelopes are all sound and made alike, with nothing special; the common case."""
    if part.notes or part.large or len(part.envelopes) < ALIKE:
        return None
    try:
        like = envelope.UniformBatch(part.envelopes[0])
        first = _job(part.envelopes[0], part, max_body, None)
    except (_Unwanted, BadEnvelope):
        return None
    if not like.usable or first.key is not None or first.due_in is not None or first.expires_in is not None:
        return None
    ids = like.ids(part.envelopes, ANY_SIZE if max_body is None else max_body)
    return None if ids is None else PlainJobs(ids, part.envelopes, receipt=first.receipt, rank=first.rank)


def _check_body(job: Job, sender: str, bodies: Bodies | None) -> None:
    reference = envelope.reference_of(job.envelope)
    if reference is None:
        raise _Unwanted("bad_envelope", "a lane for large bodies, and an envelope that has its body inside")
    if bodies is None:
        raise _Unwanted("unsupported", "this node keeps no large bodies")
    if not bodies.has(sender, job.id, reference):
        raise _NoBody(f"the body of message {format_id(job.id)} is not here yet")


def _impossible(part: wire.LanePart) -> str | None:
    """What is wrong with the positions of a lane: no storage is asked to count with them."""
    (after, after_id), (upto, upto_id) = part.after, part.upto
    if not 0 <= after <= upto <= MAX_SEQUENCE:
        return f"positions {after} to {upto}"
    if len(after_id) != 16 or len(upto_id) != 16:
        return "a message id that is not of 16 bytes"
    if len(part.envelopes) > upto - after:
        return f"{len(part.envelopes)} messages between positions {after} and {upto}"
    return None


class _NoBody(Exception):
    """The peer must bring a body before the message that refers to it."""


class _Unwanted(Exception):
    def __init__(self, code: str, reason: str) -> None:
        self.code, self.reason = code, reason
        super().__init__(reason)


def refuse_lane(part: wire.LanePart, allows: Callable[[str], bool]) -> tuple[str, str] | None:
    """(code, reason) if nothing of this lane may come in."""
    try:
        check_channel(part.channel)
        check_lane_priority(part.priority)
    except ValueError as error:
        return "bad_name" if isinstance(error, BadName) else "bad_priority", str(error)
    if not allows(part.channel):
        return "not_allowed", f"this peer may not write to channel {part.channel}"
    return None


def _job(data: bytes, part: wire.LanePart, max_body: int | None, note: tuple[float, bool] | None) -> Job:
    envelope.check(data)
    message = envelope.header_of(data)
    if max_body is not None and envelope.body_size(data) > max_body:
        raise _Unwanted("too_big", f"a body of {envelope.body_size(data)} bytes: the limit here is {max_body}")
    if not part.large and envelope.reference_of(data):
        raise _Unwanted("bad_envelope", "an envelope without its body belongs into a lane for large bodies")
    if message.channel != part.channel or message.priority != priority_of(part.priority) or len(message.id) != 16:
        raise _Unwanted("bad_envelope", "the envelope says another channel or priority than its lane")
    if message.hops > MAX_HOPS:
        raise _Unwanted("loop", f"handed on {message.hops} times: the relays run in a circle")
    age, doubled = note or (0.0, False)
    try:
        check_name(message.sender, "sender")
        check_options(message)
    except UsageError as error:
        raise _Unwanted("bad_message", str(error)) from None
    if not 0 <= age < MAX_SECONDS or message.hops < 0:
        raise _Unwanted("bad_message", f"age {age!r} and {message.hops} hops: impossible")
    return Job(
        message.message_id,
        data,
        0,
        message.key,
        message.receipt,
        None if message.delay is None else message.delay - age,
        None if message.expires_in is None else message.expires_in - age,
        doubled,
        message.rank,
    )


class FetchResponse(NamedTuple):
    """What a peer that fetches gets."""

    parts: list[wire.LanePart]
    settled: bool = False
    """Whether deliveries were settled by what it said."""
    stale: bool = False
    """What it said is old news: it must ask again."""
    unknown: Sequence[tuple[str, int]] = ()
    """Lanes that wait and whose heads it did not say."""
    less: bool = False
    """It has less than it said before, which is not believed in the middle of a conversation."""


def build_fetch_response(
    outbox: Outbox,
    peer: str,
    heads: Sequence[tuple[bytes, str, int, int, bytes]],
    max_count: int,
    max_bytes: int,
    event: Event,
    on_reset: str = "resend",
    *,
    fresh: bool = True,
    doubt: bool = False,
    without: Collection[tuple[str, int]] = (),
    partial: bool = False,
    rejected: Sequence[tuple[bytes, str, str]] = (),
) -> FetchResponse:
    """What a peer that fetches gets next, after its heads were taken as its word on what it has.

    ``doubt``: the peer has begun anew, maybe with an empty or an older store. Then lanes without
    anything to ship are compared too: else what they await receipts for would never be missed
    (docs/what-survives-what.md, fault 53). Without it a peer that says less than before is not believed: it may be a
    request that was recorded, or overtaken by a later one, and nothing is done.
    ``fresh``: False when the request has waited. Then nothing is concluded from its heads: another
    request of the same peer, after a restart there, may have told better, and a head behind ours
    would look like a peer that lost messages.
    ``rejected``: what it took out for good, as (message id, code, reason); those deliveries fail with it.
    ``partial``: the heads are not all. Lanes that are not among them are asked for when the others have nothing.
    """
    state = outbox.peers().get(peer)
    store = outbox.store_id
    at = {(channel, priority): Head(sequence, MessageId(identity))
          for theirs, channel, priority, sequence, identity in heads if theirs == store}  # fmt: skip
    settled = False
    unknown: list[tuple[str, int]] = []
    rejections = _find_rejections(outbox, peer, rejected) if fresh else {}
    reconciler = Reconciler(outbox, peer, on_reset=on_reset, event=event, believes_loss=doubt)
    if doubt and fresh and state is not None and state.awaiting:
        for lane in reconciler.awaited:
            if partial and (lane.channel, lane.priority) not in at:
                unknown.append((lane.channel, lane.priority))
                continue
            theirs = at.get((lane.channel, lane.priority), START)
            if reconciler.apply(lane, theirs, rejections.get(lane, ())) is HeadRelation.FOREIGN:
                return FetchResponse([], settled, stale=True)
        if unknown:
            return FetchResponse([], settled, stale=True, unknown=unknown[:MAX_LANES])
        state = outbox.peers().get(peer)
    for stats in outbox.lanes(peer):
        if partial and (stats.lane.channel, stats.lane.priority) not in at:
            unknown.append((stats.lane.channel, stats.lane.priority))
            continue
        theirs = at.get((stats.lane.channel, stats.lane.priority), START)
        if not fresh:
            if theirs != stats.head:
                return FetchResponse([], stale=True)
            continue
        meaning = reconciler.apply(stats.lane, theirs, rejections.get(stats.lane, ()))
        settled = settled or meaning is HeadRelation.AHEAD
        if meaning is HeadRelation.LOST and not doubt:
            return FetchResponse([], settled, stale=True, less=True)
        if meaning is HeadRelation.FOREIGN:
            return FetchResponse([], settled, stale=True)  # everything has new numbers: the next fetch begins afresh
    parts: list[wire.LanePart] = []
    if state is not None and state.held:
        return FetchResponse(parts, settled)
    left_out = {*without, *unknown}
    for stats in sorted(outbox.lanes(peer), key=lambda stats: (stats.lane.priority, -stats.oldest)):
        if max_count <= 0 or max_bytes <= 0 or len(parts) == MAX_LANES:
            break
        if (stats.lane.channel, stats.lane.priority) in left_out:
            continue
        # Of a lane of large bodies one: it is taken in when its body is there.
        batch = outbox.take(stats.lane, 1 if stats.lane.large else max_count, max_bytes)
        if batch is not None:
            parts.append(pack(batch))
            max_count -= len(batch.entries)
            max_bytes -= batch.size
    return FetchResponse(parts, settled, unknown=() if parts else unknown[:MAX_LANES])


def _find_rejections(
    outbox: Outbox, peer: str, rejected: Sequence[tuple[bytes, str, str]]
) -> Mapping[Lane, Sequence[Rejection]]:
    """Where the messages stand that the peer took out."""
    found: dict[Lane, list[Rejection]] = {}
    for identity, code, reason in rejected:
        for delivery in outbox.status(MessageId(identity)):
            if delivery.peer == peer and delivery.state is State.QUEUED:
                rejection = Rejection(delivery.sequence, clip(code, 64), clip(reason, MAX_REJECTION))
                found.setdefault(lane_of(delivery), []).append(rejection)
    return found


__all__ = ["LATER", "FetchResponse", "accept_push", "build_fetch_response", "pack", "refuse_lane"]
