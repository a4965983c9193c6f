"""The verbs about peers: retry, hold, release.

Owns nothing but the words; what they do is in `monitor/actions.py`, as for the page.
"""

from pathlib import Path

import click

from dropr_core.cli.common import opened, verb
from dropr_core.cli.output import echo, echo_json
from dropr_core.monitor import actions


@verb("retry", keys="`peer` (null: all), `daemon` (whether one runs and was told).")
@click.argument("peer", required=False)
def retry_verb(config_file: Path | None, as_json: bool, peer: str | None) -> None:
    """Try a peer (or every peer) again now, instead of when its rest is over."""
    from dropr_core.monitor.process_reports import daemon_runs

    with opened(config_file, change=True) as node:
        actions.retry(node, peer)
        told = daemon_runs(node)
    if as_json:
        echo_json({"peer": peer, "daemon": told})
    elif told:
        echo(f"the daemon tries {peer or 'every peer'} now")
    else:
        echo("no daemon runs here; it will try at once when it starts ('dropr daemon' or 'dropr up')")


@verb("hold", keys="`peer`, `held` (true), `reason`.")
@click.argument("peer")
@click.option("--reason", default="held by hand", show_default=True, help="Shown by status, for whoever looks next.")
def hold_verb(config_file: Path | None, as_json: bool, peer: str, reason: str) -> None:
    """Ship nothing more to a peer until release. Sending to it goes on and is kept."""
    with opened(config_file, change=True) as node:
        reason = actions.hold(node, peer, reason)
    if as_json:
        echo_json({"peer": peer, "held": True, "reason": reason})
    else:
        echo(f"{peer} is held: {reason}. 'dropr release {peer}' ends it")


@verb("release", keys="`peer`, `held` (false), `was_held`.")
@click.argument("peer")
def release_verb(config_file: Path | None, as_json: bool, peer: str) -> None:
    """Ship to a peer again that was held."""
    with opened(config_file, change=True) as node:
        was_held = actions.release(node, peer)
    if as_json:
        echo_json({"peer": peer, "held": False, "was_held": was_held})
    else:
        echo(f"{peer} is released" if was_held else f"{peer} was not held; nothing changed")
