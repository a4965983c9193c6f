"""The verb that tells the whole story of one message: trace.

Owns how a story is shown. Must not know how it is found out (dropr_core/monitor/).
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dropr_core.cli.common import DURATION, opened, verb
from dropr_core.cli.failures import not_found
from dropr_core.cli.ids import IDENTIFIER, Beginning, known_id
from dropr_core.cli.output import echo, echo_json, say_size

if TYPE_CHECKING:
    from dropr_core.monitor.asking import Told
    from dropr_core.monitor.story import Story

SENT_KEYS = (
    "`peer`, `channel`, `priority`, `state`, `sequence`, `sent_at` and `ended_at` (or null), `reason`, `receipt`, "
    "`result` (bytes, or null), `possible_duplicate`, `before` (so many go first, or null), `link` (state of the "
    "peer), `failures`, `next_try_in` (seconds or null), `last_error`, `last_error_at`"
)
QUEUED_KEYS = (
    "`sender`, `channel`, `priority`, `state`, `arrived_at` and `ended_at` (or null), `attempts`, `errors` (a line for "
    "each failed attempt), `consumer`, `due_in` (seconds or null), `possible_duplicate`"
)


@verb(
    "trace",
    keys="`id`, `node`, `known` (whether anybody knows it), `message` (null once its envelope is no longer kept here; "
    "else `sender`, `channel`, `created_at`, `priority`, `content_type`, `size`, `receipt`, `key`, `delay`, "
    f"`expires_in`), `deliveries` (a list: {SENT_KEYS}), `inbox` (a list: {QUEUED_KEYS}), `peers` (a list of those "
    "that were asked: `peer`, `problem` (why nothing is known from it, or empty), `deliveries`, `inbox`), `events` (a "
    "list in the order of time: `at` (null: now), `node`, `what`, `details`), `now` (sentences: where it is, what can "
    "be done). Times are seconds since the epoch.",
)  # fmt: skip
@click.argument("message_id", metavar="ID", type=IDENTIFIER)
@click.option("--local", is_flag=True, help="Ask no peer: only what this node knows.")
@click.option("--ask", "also", multiple=True, metavar="PEER", help="Ask this peer as well; may be repeated.")
@click.option(
    "--patience", type=DURATION, metavar="DURATION", default="5s", show_default=True,
    help="Wait so long for the answers of all peers together.",
)  # fmt: skip
def trace_verb(
    config_file: Path | None, as_json: bool, message_id: "bytes | Beginning", local: bool, also: tuple[str, ...],
    patience: float,
) -> None:  # fmt: skip
    """Tell the whole story of one message, here and at the nodes that it went to or came from.

    Peers are asked at once and signed, as daemons ask them; each tells only of messages between it and this node, and
    nothing of what is in them.
    """
    from dropr_core.monitor.actions import known_peer
    from dropr_core.monitor.asking import ask_peers, whom_to_ask
    from dropr_core.monitor.story import local_story
    from dropr_core.monitor.timeline import timeline, whereabouts

    with opened(config_file) as node:
        identity = known_id(node, message_id)
        story = local_story(node, identity)
        wanted = [] if local else whom_to_ask(story, list(node.config.peers))
        wanted += [known_peer(node, name) for name in also]
        told: Sequence[Told] = ()
        if wanted:
            told = ask_peers(node, identity, wanted, max(0.1, min(patience, 600.0)))
    known = story.known or any(one.knows for one in told)
    events, now = timeline(story, told), whereabouts(story, told)
    if as_json:
        echo_json({
            **story.as_dict(), "known": known, "peers": [one.as_dict() for one in told],
            "events": [event.as_dict() for event in events], "now": now,
        })  # fmt: skip
    else:
        _show(story, events, now, told)
    if not known:
        answered = [one.peer for one in told if not one.problem]
        nor = f", nor at {', '.join(answered)}" if answered else ""
        silent = [one.peer for one in told if one.problem]
        more = f"; nothing is known from {', '.join(silent)}" if silent else ""
        raise not_found(f"{story.id}: no such message here{nor}, or it ended and was forgotten{more}")


def _show(story: "Story", events: Sequence[Any], now: Sequence[str], told: "Sequence[Told]") -> None:
    echo(f"message {story.id}")
    if story.message is not None:
        one = story.message
        echo(f"  {say_size(one.size)} of {one.content_type}")
    width = max((len(event.node) for event in events), default=0)
    for event in events:
        when = "now" if event.at is None else _moment(event.at)
        echo(f"  {when:<23}  {event.node:<{width}}  {event.what}")
        for line in event.details:
            echo(f"  {'':<23}  {'':<{width}}    {line}")
    for answer in told:
        if answer.problem:
            echo(f"  {answer.peer}: {answer.problem}")
        elif not answer.knows:
            echo(f"  {answer.peer}: does not know it (any more)")
    for line in now:
        echo(line)


def _moment(at: float) -> str:
    """A wall time, local, to the millisecond: what happened in one second is in order."""
    whole = int(at)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(whole))}.{int((at - whole) * 1000):03d}"
