"""The verb that forgets: wipe.

Owns the questions asked before anything is removed. It can only ever reach what has ended: the
contract of a storage says so, and this file does not even offer the other states.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dropr_core.cli.common import opened, verb
from dropr_core.cli.failures import Stop
from dropr_core.cli.filters import (
    age_option,
    channel_option,
    id_option,
    peer_option,
    resolve,
    side_option,
    state_option,
)
from dropr_core.cli.output import echo, echo_json, say_count
from dropr_core.monitor.selection import select, walk_inbox, walk_outbox
from dropr_core.system.exit_codes import Exit

if TYPE_CHECKING:
    from dropr_core.api.runtime import Runtime
    from dropr_core.contracts.storage import Selection

ENDED_OUT = ("processed", "accepted", "failed", "expired", "cancelled", "dead")
ENDED_IN = ("done", "buried", "expired")
LOOK = 10_000
"""Messages counted for the question; above, it says 'more than'."""


@verb("wipe", keys="`outbox`, `inbox`: how many were removed from each.")
@side_option()
@state_option(list(dict.fromkeys([*ENDED_OUT, *ENDED_IN])))
@channel_option
@peer_option
@id_option
@age_option
@click.option("--all", "everything", is_flag=True, help="Everything that ended, without any filter.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def wipe_verb(
    config_file: Path | None,
    as_json: bool,
    side: str,
    states: tuple[str, ...],
    everything: bool,
    yes: bool,
    **filters: Any,
) -> None:
    """Forget messages that have ended, dead letters among them. What still waits or is under way stays.

    Needs at least one filter, or --all. Asks before it removes, unless --yes is given.
    """
    narrowed = bool(states) or any(value not in (None, ()) for value in filters.values())
    if everything == narrowed:
        raise click.UsageError("say which: at least one filter, or --all" if not narrowed else "--all takes no filters")
    wanted = {}
    for half, known in (("outbox", ENDED_OUT), ("inbox", ENDED_IN)):
        here = [state for state in states if state in known]
        if side in (half, "both") and (here or not states):
            wanted[half] = here or known
    if not wanted:
        raise click.UsageError(f"no message of the {side} is ever {' or '.join(states)}")
    with opened(config_file, change=True) as node:
        filters = resolve(node, filters)
        sides = {half: select(states=these, **filters) for half, these in wanted.items()}
        if not yes:
            _ask(node, sides, may_ask=not as_json and sys.stdin.isatty())
        removed = {
            "outbox": node.outbox.wipe(sides["outbox"]) if "outbox" in sides else 0,
            "inbox": node.inbox.wipe(sides["inbox"]) if "inbox" in sides else 0,
        }
    if as_json:
        echo_json(removed)
    else:
        outbox = say_count(removed["outbox"], "delivery", "deliveries")
        echo(f"removed {outbox} from the outbox, {say_count(removed['inbox'], 'message')} from the inbox")


def _ask(node: "Runtime", sides: "dict[str, Selection]", *, may_ask: bool) -> None:
    parts = []
    for half, selection in sides.items():
        if half == "outbox":  # accepted and waiting for its receipt is under way: it will stay
            found = [d for d in walk_outbox(node.outbox, selection, LOOK + 1) if d.state != "accepted" or not d.receipt]
            number = len(found)
        else:
            number = sum(1 for _ in walk_inbox(node.inbox, selection, LOOK + 1))
        if number:
            parts.append(f"{f'more than {LOOK}' if number > LOOK else number} of the {half}")
    if not parts:
        return
    question = f"forget {' and '.join(parts)} for good?"
    if not may_ask:
        raise Stop(Exit.USAGE, f"{question} nothing was removed: there is nobody to ask, confirm with --yes")
    if not click.confirm(question, err=True):
        raise Stop(Exit.FAILED, "nothing was removed")
