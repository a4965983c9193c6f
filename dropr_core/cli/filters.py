"""Which messages a verb means: the options --in, --state, --channel, --peer, --id, --older-than.

Owns those options and their check. Must not know what is done with what was found.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from dropr_core.cli.common import DURATION
from dropr_core.cli.ids import IDENTIFIER, known_ids

if TYPE_CHECKING:
    from dropr_core.api.runtime import Runtime


def side_option(default: str = "both") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--in, passed as ``side``."""
    return click.option(
        "--in", "side", type=click.Choice(["inbox", "outbox", "both"]), default=default, show_default=True,
        help="Which half: what comes in, what goes out, or both.",
    )  # fmt: skip


def state_option(states: Sequence[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--state, several times, passed as ``states``."""
    return click.option(
        "--state", "states", multiple=True, type=click.Choice(list(states)), metavar="STATE",
        help=f"Only in this state; may be repeated. One of: {', '.join(states)}.",
    )  # fmt: skip


def channel_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--channel."""
    return click.option("--channel", metavar="NAME", help="Only of this channel.")(function)


def peer_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--peer."""
    return click.option("--peer", metavar="NAME", help="Only to (outbox) or from (inbox) this peer.")(function)


def id_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--id, several times, passed as ``ids``."""
    return click.option(
        "--id", "ids", multiple=True, type=IDENTIFIER, metavar="ID", help="Only this message; may be repeated."
    )(function)


def age_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """--older-than."""
    return click.option(
        "--older-than", type=DURATION, metavar="DURATION",
        help="Only if in its state (outbox, not ended: since it was sent) for longer than this, such as 90s, 12h, 5d.",
    )(function)  # fmt: skip


def resolve(node: "Runtime", filters: dict[str, Any]) -> dict[str, Any]:
    """The same filters with whole ids; see `ids.known_id` for how that may end."""
    return {**filters, "ids": known_ids(node, filters["ids"])}
