"""The whole story of a message: what all nodes know, in the order in which it happened, and where it is now.

Owns the sentences. Must not know how they are shown.
"""

from collections.abc import Iterable, Iterator, Sequence

from dropr_core.monitor.asking import Told
from dropr_core.monitor.snapshot import Part
from dropr_core.monitor.story import Queued, Sent, Story

LINK = {
    "resting": "cannot be reached now", "refused": "cannot be served", "held": "is held", "up": "is up",
    "idle": "was not greeted yet", "unknown": "is not called now: no daemon runs here, or it fetches by itself",
}  # fmt: skip
"""State of a peer → the end of a sentence about it."""

BY_CONFIG = "configuration: "
"""How the reason of a hold begins that no person made (delivery/links.py)."""


class Event(Part, frozen=True, kw_only=True):
    """Something that happened to a message, or is so now."""

    at: float | None
    """Seconds since the epoch, by this node's clock but for the sender's ``created_at``; None: it is so now."""
    node: str
    """Where."""
    what: str
    details: tuple[str, ...] = ()
    """Reasons and errors, a line each."""


def timeline(story: Story, told: Sequence[Told]) -> list[Event]:
    """What happened, in order; what is so now comes last. An end is told by each node that knows it, by its clock."""
    events = [*_local(story)]
    for one in told:
        for sent in one.deliveries:
            events.extend(_of_sent(sent, one.peer))
        for queued in one.inbox:
            events.extend(_of_queued(queued, one.peer))
    # What the sender did comes first, whatever its clock says of the time.
    first = events[: story.message is not None]
    return first + sorted(events[len(first) :], key=lambda event: (event.at is None, event.at or 0.0))


def _local(story: Story) -> Iterator[Event]:
    facts = story.message
    if facts is not None:
        words = [f"sent on {facts.channel} with priority {facts.priority}"]
        words += [f"{name} {value:g} s" for name, value in (("delay", facts.delay), ("expires in", facts.expires_in))
                  if value is not None]  # fmt: skip
        words += [f"key {facts.key}"] if facts.key else []
        words += ["wants a receipt"] if facts.receipt else []
        yield Event(at=facts.created_at or None, node=facts.sender, what=", ".join(words))
    for sent in story.deliveries:
        if facts is None and sent.sent_at is not None:
            yield Event(at=sent.sent_at, node=story.node, what=f"sent to {sent.peer} on {sent.channel}")
        yield from _of_sent(sent, story.node)
    for queued in story.inbox:
        yield from _of_queued(queued, story.node)


def _of_sent(one: Sent, node: str) -> Iterator[Event]:
    again = ", possibly a duplicate" if one.possible_duplicate else ""
    reason = (one.reason,) if one.reason else ()
    match one.state:
        case "queued" | "held":
            yield Event(at=None, node=node, what=f"waits to be shipped to {one.peer}{_place(one)}{again}",
                        details=(*reason, *_link(one)))  # fmt: skip
        case "accepted" if one.ended_at is not None:
            yield Event(at=one.ended_at, node=node, what=f"{one.peer} accepted it; no receipt was asked for{again}")
        case "accepted":
            yield Event(at=None, node=node, what=f"{one.peer} accepted it; its receipt has not come home yet{again}")
        case "processed":
            result = "" if one.result is None else f", with a result of {one.result} bytes"
            yield Event(at=one.ended_at, node=node, what=f"receipt: {one.peer} processed it{result}", details=reason)
        case "failed" if one.receipt and one.reason:
            yield Event(at=one.ended_at, node=node, what=f"failed at {one.peer}", details=reason)
        case state:
            yield Event(at=one.ended_at, node=node, what=f"to {one.peer}: {state}{again}", details=reason)


def _place(one: Sent) -> str:
    if one.before is None:
        return ""
    return ", the next of its lane" if one.before == 0 else f", {one.before} before it in its lane"


def _link(one: Sent) -> Iterator[str]:
    if one.link:
        tries = f" after {one.failures} tries" if one.failures else ""
        again = f", tried again in {one.next_try_in:.0f} s" if one.next_try_in is not None else ""
        yield f"{one.peer} {LINK.get(one.link, one.link)}{tries}{again}"
    if one.last_error:
        yield f"last error: {one.last_error}"


def _of_queued(one: Queued, node: str) -> Iterator[Event]:
    again = ", possibly a duplicate" if one.possible_duplicate else ""
    if one.arrived_at is not None:
        yield Event(at=one.arrived_at, node=node, what=f"came from {one.sender} into the queue {one.channel}{again}")
    yield Event(at=one.ended_at, node=node, what=f"{_stay(one)}{_attempts(one.attempts)}", details=_errors(one))


def _errors(one: Queued) -> tuple[str, ...]:
    """The errors of its attempts, numbered where there is one for each."""
    if len(one.errors) != one.attempts - (one.state in {"leased", "done"}):
        return one.errors
    return tuple(
        line if line.startswith("attempt ") else f"attempt {number}: {line}"
        for number, line in enumerate(one.errors, 1)
    )


def _stay(one: Queued) -> str:
    match one.state:
        case "ready":
            return f"waits in {one.channel} for a consumer"
        case "blocked":
            return f"waits in {one.channel} behind another message with its ordering key"
        case "delayed":
            due = "" if one.due_in is None else f", due in {one.due_in:.0f} s"
            return f"waits in {one.channel} for its time{due}"
        case "leased":
            return f"is being handled by {one.consumer or 'a consumer'}"
        case "done":
            return f"done in {one.channel}"
        case "buried":
            return f"buried in {one.channel} (a dead letter)"
        case state:
            return f"{state} in {one.channel}"


def _attempts(count: int) -> str:
    return "" if count == 0 else f", {count} attempt{'' if count == 1 else 's'}"


def whereabouts(story: Story, told: Iterable[Told]) -> list[str]:
    """Where it is now and what can be done, a sentence for each delivery or stay that is not over well."""
    answers = {one.peer: one for one in told}
    out = [line for one in story.deliveries for line in _about(one, story, answers.get(one.peer))]
    out += [line for one in story.inbox for line in _act(one, story.node, story)]
    if not story.deliveries:
        out += [line for one in answers.values() for queued in one.inbox for line in _act(queued, one.peer, story)]
    return out


def _about(one: Sent, story: Story, told: Told | None) -> Iterator[str]:
    match one.state:
        case "held" if one.reason.startswith(BY_CONFIG):
            yield f"it waits here: {one.peer} cannot be served until the configuration is mended; nothing is lost"
        case "held":
            yield f"it waits here: {one.peer} is held; 'dropr release {one.peer}' ends that"
        case "queued":
            yield f"it waits here for {one.peer}, which {LINK.get(one.link, one.link)}; nothing is lost"
        case "failed" if told is None or told.problem:
            yield (
                f"it failed at {one.peer}, which could not be asked whether it lies buried there: ask again before it "
                "is redriven, or it may run twice"
            )
        case "failed" | "dead" | "expired":
            there = [line for queued in told.inbox for line in _act(queued, one.peer, story)] if told else []
            yield from there or [f"it ended as {one.state}; to send it again: dropr redrive --id {story.id}"]
        case "accepted" if told is not None and told.inbox:
            for queued in told.inbox:
                yield from _act(queued, one.peer, story)
        case "accepted":
            yield f"{one.peer} has it, or has done it and forgotten it; it tells no more"
        case _:
            return


def _act(one: Queued, node: str, story: Story) -> Iterator[str]:
    there = "here" if node == story.node else f"at {node}"
    if one.state == "buried":
        yield f"it is buried {there}; when the cause is mended, on that machine: dropr kick --id {story.id}"
    elif one.state not in {"done", "expired"}:
        yield f"it is {there}, {one.state}: it {_stay(one)}"
