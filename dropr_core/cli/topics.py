"""The verbs about topics: topics, subscribe, unsubscribe.

Owns nothing but the words; `api/subscriptions.py` keeps who subscribes.
"""

from pathlib import Path
from typing import Any

import click

from dropr_core.cli.common import opened, verb
from dropr_core.cli.output import echo, echo_json, echo_table


@verb(
    "topics",
    keys="`topics`, a list: `topic`, `join` (peers that may subscribe), `waiting` (messages not copied yet), "
    "`subscriptions` (a list: `name`, `peer` (empty: this node), `channel`, `waiting`, `overflow`: copies that wait "
    "here until there is room in the channel).",
)
def topics_verb(config_file: Path | None, as_json: bool) -> None:
    """Show what is published here and who gets it."""
    from dropr_core.api.subscriptions import Subscriptions

    with opened(config_file) as node:
        subscriptions = Subscriptions(node)
        here, there = node.inbox.counts(), node.outbox.counts()
        shown: list[dict[str, Any]] = []
        for topic in subscriptions.topics():
            config = node.config.topics.get(topic)
            rows = [
                {
                    "name": one.name, "peer": one.peer, "channel": one.channel,
                    "waiting": there.get((one.peer, one.channel), {}).get("queued", 0) if one.peer
                    else here.get(one.channel, {}).get("ready", 0),
                    "overflow": here.get(one.overflow, {}).get("ready", 0),
                }
                for one in subscriptions.of(topic)
            ]  # fmt: skip
            waiting = here.get(topic, {}).get("ready", 0)
            shown.append({"topic": topic, "join": list(config.join) if config else [], "waiting": waiting,
                          "subscriptions": rows})  # fmt: skip
    if as_json:
        echo_json({"topics": shown})
        return
    if not shown:
        echo("no topics: name them under `topics:`, or subscribe to one")
        return
    cells = [
        [one["topic"], row["name"], row["peer"] or "this node", row["channel"], row["waiting"], row["overflow"]]
        for one in shown
        for row in one["subscriptions"] or [_nobody(one["waiting"])]
    ]
    echo_table(["topic", "subscription", "at", "channel", "waiting>", "without room>"], cells)


def _nobody(waiting: int) -> dict[str, Any]:
    return {"name": "-", "peer": "-", "channel": "-", "waiting": waiting, "overflow": 0}


@verb("subscribe", keys="`topic`, `name`, `channel` (to receive from), `at` (the node asked; empty: this one).")
@click.argument("topic")
@click.argument("name")
@click.option(
    "--at", metavar="PEER", help="The node on which it is published. Default: this one, or where its channel leads."
)
def subscribe_verb(config_file: Path | None, as_json: bool, topic: str, name: str, at: str | None) -> None:
    """Get a copy of each message of a topic from now on, in a channel of its own."""
    from dropr_core.api.node import Node
    from dropr_core.api.subscriptions import Subscriptions

    with opened(config_file, change=True) as runtime:
        channel = Node(runtime).subscribe(topic, name, at)
        peer = Subscriptions(runtime).publisher(topic, at)
    if as_json:
        echo_json({"topic": topic, "name": name, "channel": channel, "at": peer})
    else:
        echo(f"{peer} is asked; copies come to channel {channel}" if peer else f"copies come to channel {channel}")


@verb("unsubscribe", keys="`topic`, `name`, `discarded` (copies that waited here), `at`.")
@click.argument("topic")
@click.argument("name")
@click.option("--at", metavar="PEER", help="As with subscribe.")
def unsubscribe_verb(config_file: Path | None, as_json: bool, topic: str, name: str, at: str | None) -> None:
    """End a subscription, and discard what waits in its channel here."""
    from dropr_core.api.node import Node
    from dropr_core.api.subscriptions import Subscriptions

    with opened(config_file, change=True) as runtime:
        gone = Node(runtime).unsubscribe(topic, name, at)
        peer = Subscriptions(runtime).publisher(topic, at)
    if as_json:
        echo_json({"topic": topic, "name": name, "discarded": gone, "at": peer})
    else:
        echo(f"{topic}/{name} has ended; {gone} copies that waited here are discarded")
