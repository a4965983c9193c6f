"""The verbs about channels: pause, unpause.

Owns nothing but the words; `api/pauses.py` keeps what is paused, and wakes consumers.
"""

from pathlib import Path

import click

from dropr_core.cli.common import DURATION, opened, verb
from dropr_core.cli.output import echo, echo_json, say_age


@verb("pause", keys="`channel`, `paused` (true), `for` (seconds; null: until 'dropr unpause'), `reason`.")
@click.argument("channel")
@click.option("--for", "seconds", type=DURATION, metavar="DURATION", help="It ends by itself after that, such as 10m.")
@click.option("--reason", default="paused by hand", show_default=True, help="Shown by status, for whoever looks next.")
def pause_verb(config_file: Path | None, as_json: bool, channel: str, seconds: float | None, reason: str) -> None:
    """Give consumers of a channel nothing more. Sending to it, and what peers send, goes on and waits here."""
    with opened(config_file, change=True) as node:
        made = node.pauses.pause(channel, seconds, reason)
    if as_json:
        echo_json({"channel": channel, "paused": True, "for": seconds, "reason": made.reason})
    else:
        until = "" if seconds is None else f" for {say_age(seconds)}"
        echo(f"{channel} is paused{until}: {made.reason}. 'dropr unpause {channel}' ends it")


@verb("unpause", keys="`channel`, `paused` (false), `was_paused`.")
@click.argument("channel")
def unpause_verb(config_file: Path | None, as_json: bool, channel: str) -> None:
    """Give consumers of a channel messages again."""
    with opened(config_file, change=True) as node:
        was = node.pauses.unpause(channel)
    if as_json:
        echo_json({"channel": channel, "paused": False, "was_paused": was})
    else:
        echo(f"{channel} goes on" if was else f"{channel} was not paused; nothing changed")
