"""The verbs about peers: retry, hold, release.

Owns nothing but the words; the outbox keeps what is held, the daemon is told by the node's notifier.
"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dropr_core.cli.common import opened, verb
from dropr_core.cli.output import echo, echo_json
from dropr_core.errors import StoreError
from dropr_core.model import topics

if TYPE_CHECKING:
    from dropr_core.api.runtime import Runtime


def known_peer(node: "Runtime", peer: str) -> str:
    """``peer``, if it is configured or the outbox still has something for it; else UnknownPeer."""
    from dropr_core.config.options import suggest
    from dropr_core.errors import UnknownPeer

    names = {*node.config.peers, *node.outbox.peers()}
    if peer not in names:
        raise UnknownPeer(f"no peer is called {peer!r}{suggest(peer, names)}")
    return peer


@verb("retry", keys="`peer` (null: all), `daemon` (whether one runs and was told).")
@click.argument("peer", required=False)
def retry_verb(config_file: Path | None, as_json: bool, peer: str | None) -> None:
    """Try a peer (or every peer) again now, instead of when its rest is over."""
    from dropr_core.monitor.process_reports import daemon_runs

    with opened(config_file, change=True) as node:
        if peer is not None:
            known_peer(node, peer)
        node.retry_now(peer)
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
    from dropr_core.model.limits import clip

    reason = clip(reason)
    with opened(config_file, change=True) as node:
        node.outbox.hold(known_peer(node, peer), reason)
        node.notifier.notify(topics.CONTROL)
    if as_json:
        echo_json({"peer": peer, "held": True, "reason": reason})
    else:
        echo(f"{peer} is held: {reason}. 'dropr release {peer}' ends it")


@verb("release", keys="`peer`, `held` (false), `was_held`.")
@click.argument("peer")
def release_verb(config_file: Path | None, as_json: bool, peer: str) -> None:
    """Ship to a peer again that was held."""
    with opened(config_file, change=True) as node:
        known_peer(node, peer)
        before = node.outbox.peers().get(peer)
        was_held = before is not None and before.held
        node.outbox.release(peer)
        with contextlib.suppress(StoreError):  # it is released all the same, and tried when its rest is over
            node.retry_now(peer)
    if as_json:
        echo_json({"peer": peer, "held": False, "was_held": was_held})
    else:
        echo(f"{peer} is released" if was_held else f"{peer} was not held; nothing changed")
