"""Messages of the node's store as the admin lists them.

Owns what is looked at and how much of it at most, and what is done with a choice of them. Must not know requests or
permissions.
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs
from django.utils import timezone

from dropr_core.api.node import Node
from dropr_core.contracts.storage import Selection
from dropr_core.errors import DroprError, UsageError
from dropr_core.model.envelope import header_of
from dropr_core.model.names import MessageId, parse_id
from dropr_core.monitor import actions
from dropr_core.monitor.messages import envelope_of, find_messages, open_body
from dropr_core.monitor.selection import select
from dropr_django.reports import BREAK

DEAD = ("buried", "dead", "failed", "expired")
WAITING = ("ready", "delayed", "blocked")
LOOKED_AT = 20_000
"""Messages that one search looks at."""
PAGE = 100
SHOWN = 64 << 10
"""Bytes of a body that are shown."""


@attrs.frozen
class Query:
    """What is looked for."""

    state: str = ""
    """One of DEAD; ``waiting``; empty: all of DEAD."""
    channel: str = ""
    peer: str = ""
    words: str = ""
    """In the reason, or the beginning of an id."""
    page: int = 1


@attrs.frozen
class Listing:
    """One page of it."""

    letters: Sequence[Mapping[str, Any]]
    more: bool
    whole: bool
    """Whether everything was looked at."""


def find(node: Node, query: Query) -> Listing:
    """Messages, in the order of the store: those that were received first. Raises StoreError."""
    states = WAITING if query.state == "waiting" else (query.state,) if query.state in DEAD else DEAD
    filters: dict[str, Any] = {"channel": query.channel or None, "peer": query.peer or None}
    skip, found, looked = (query.page - 1) * PAGE, list[Mapping[str, Any]](), 0
    try:
        for one in _both(node, states, filters):
            looked += 1
            if looked > LOOKED_AT:
                break
            if _means(query.words, one):
                if skip:
                    skip -= 1
                    continue
                found.append(_shown(one))
                if len(found) > PAGE:
                    break
    except UsageError:  # a channel that cannot exist has no messages
        return Listing((), more=False, whole=True)
    return Listing(found[:PAGE], len(found) > PAGE, looked <= LOOKED_AT)


def _both(node: Node, states: Sequence[str], filters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The inbox first: what is buried there is what people come for."""
    for side in ("inbox", "outbox"):
        yield from find_messages(node.runtime, side, tuple(states), dict(filters))


def _means(words: str, one: Mapping[str, Any]) -> bool:
    wanted = words.strip().lower()
    return not wanted or wanted in one["reason"].lower() or one["id"].startswith(wanted)


def _shown(one: dict[str, Any]) -> dict[str, Any]:
    when = timezone.now() - dt.timedelta(seconds=one["age"])
    last = one["reason"].strip().splitlines()
    here, state = one["in"] == "inbox", one["state"]
    return {
        **one, "since": when, "last": last[-1] if last else "", "token": f"{one['in']}:{one['id']}",
        "said": one["reason"].replace(BREAK, "\n"),
        "again": state in (("buried", "delayed") if here else ("dead", "failed", "expired")),
        "waits": here and state in WAITING,
        "over": state in (("done", "buried", "expired") if here else (*DEAD, "processed", "cancelled")),
    }  # fmt: skip


def channels_of(node: Node) -> list[str]:
    """Names to choose from."""
    return sorted({*node.config.channels, *node.inbox.counts(), *(channel for _, channel in node.outbox.counts())})


def look(node: Node, identity: str) -> dict[str, Any] | None:
    """Everything that is known of one message; None if nothing is. Raises StoreError."""
    try:
        message_id = MessageId(parse_id(identity))
    except DroprError:
        return None
    only = {"ids": (message_id,)}
    places = [_shown(one) for one in find_messages(node.runtime, "both", (), only)]
    data = envelope_of(node.runtime, message_id)
    if not places and data is None:
        return None
    head = None if data is None else header_of(data)
    return {"id": identity, "places": places, "head": head, **_body(node, message_id)}


def _body(node: Node, message_id: MessageId) -> dict[str, Any]:
    """The beginning of it: as text if it is some, else in hexadecimal."""
    file = open_body(node.runtime, message_id)
    if file is None:
        return {"body": None, "form": "", "cut": False}
    with file:
        start = file.read(SHOWN + 1)
    cut, start = len(start) > SHOWN, start[:SHOWN]
    try:
        return {"body": start.decode("utf-8", "ignore" if cut else "strict"), "form": "text", "cut": cut}
    except UnicodeDecodeError:
        return {"body": start[:4096].hex(" "), "form": "hexadecimal", "cut": cut or len(start) > 4096}


def send_again(node: Node, tokens: Sequence[str]) -> int:
    """Buried ones are ready again, with fresh attempts; ended deliveries go to their peers again. How many."""
    inbox, outbox = _split(tokens)
    count = actions.kick(node.runtime, select(ids=inbox)) if inbox else 0
    return count + (actions.redrive(node.runtime, select(ids=outbox)) if outbox else 0)


def bury(node: Node, tokens: Sequence[str], reason: str) -> int:
    """Of those that wait here. How many."""
    inbox, _ = _split(tokens)
    return sum(actions.bury(node.runtime, one, reason) for one in inbox)


def wipe(node: Node, tokens: Sequence[str]) -> int:
    """Forget them; what lives is never touched. How many."""
    inbox, outbox = _split(tokens)
    count = node.inbox.wipe(Selection(ids=tuple(inbox))) if inbox else 0
    return count + (node.outbox.wipe(Selection(ids=tuple(outbox))) if outbox else 0)


def _split(tokens: Sequence[str]) -> tuple[list[MessageId], list[MessageId]]:
    """Ids of the inbox and of the outbox. What is no token of ours is left out."""
    found: dict[str, list[MessageId]] = {"inbox": [], "outbox": []}
    for token in tokens:
        side, _, identity = token.partition(":")
        try:
            found.get(side, []).append(MessageId(parse_id(identity)))
        except DroprError:
            continue
    return found["inbox"], found["outbox"]


def id_of(token: str) -> str:
    """The id in a token."""
    return token.partition(":")[2]
