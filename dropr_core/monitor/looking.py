"""What the page asks for: the picture of the node, lists of messages, one message with its story.

Owns these routes and their limits: one picture a second at most, however many look, and none while nobody does; lists
and searches end after so many messages. Changes nothing.
"""

import logging
import threading
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec

from dropr_core.api.runtime import Runtime
from dropr_core.errors import DroprError
from dropr_core.model.envelope import body_size, header_of
from dropr_core.model.message import State
from dropr_core.model.names import MessageId, format_id, parse_id
from dropr_core.monitor.asking import Told, ask_peers, whom_to_ask
from dropr_core.monitor.gathering import take_snapshot
from dropr_core.monitor.messages import (
    INBOX_STATES,
    OUTBOX_STATES,
    delivery_document,
    envelope_of,
    find_messages,
    held_peers,
    job_document,
    message_document,
    open_body,
    why_it_waits,
)
from dropr_core.monitor.rates import rates
from dropr_core.monitor.routes import Answer, Refused, Request, Route, as_json
from dropr_core.monitor.selection import select, walk_inbox, walk_outbox
from dropr_core.monitor.snapshot import Snapshot
from dropr_core.monitor.story import Story, local_story
from dropr_core.monitor.timeline import timeline, whereabouts

FRESH = 1.0
"""Seconds for which a picture is shown to everybody who asks."""
STALE = 60.0
"""Seconds after which a picture says nothing any more of how fast the node goes now."""
MOST = 500
"""Messages of one list."""
SEARCHED = 20_000
"""Messages of each half that a search by the beginning of an id looks at."""
SHORTEST = 4
"""Characters of such a beginning."""
BODY = 64 << 10
"""Bytes of a body that are shown."""


class SharedPicture:
    """The node's picture, taken when somebody asks and the last one is older than a second."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self._lock = runtime, threading.Lock()
        self._last: Snapshot | None = None
        self._document, self._taken = b"", float("-inf")

    def document(self) -> bytes:
        """It as JSON: ``snapshot``, and ``rates`` (null at first) since the one before. Raises StoreError."""
        with self._lock:
            if time.monotonic() - self._taken >= FRESH:
                now = take_snapshot(self._runtime)
                self._document = msgspec.json.encode({"snapshot": now, "rates": _rates(self._last, now)})
                self._last, self._taken = now, time.monotonic()
            return self._document


def _rates(before: Snapshot | None, now: Snapshot) -> dict[str, Any] | None:
    if before is None or not 0 < now.at - before.at < STALE:
        return None
    return rates(before, now).as_dict()


def looking_routes(runtime: Runtime, _log: logging.Logger) -> list[Route]:
    """Those of the page that only look."""
    picture = SharedPicture(runtime)
    return [
        Route("GET", "/api/snapshot", lambda _request: Answer(picture.document(), "application/json")),
        Route("GET", "/api/messages", lambda request: _list(runtime, request)),
        Route("GET", "/api/message/*", lambda request: _one(runtime, request)),
        Route("GET", "/api/trace/*", lambda request: _trace(runtime, request)),
        Route("GET", "/api/body/*", lambda request: _body(runtime, request)),
    ]


def id_in(text: str) -> MessageId:
    """A whole id. Raises Refused."""
    try:
        return MessageId(parse_id(text))
    except DroprError as error:
        raise Refused(400, f"{text[:60]!r} is no id of a message") from error


def _list(runtime: Runtime, request: Request) -> Answer:
    """Query: ``side``, ``state`` (several with commas), ``channel``, ``peer``, ``id`` (or its beginning), ``limit``."""
    query = request.query
    side = query.get("side") or "both"
    if side not in ("both", "inbox", "outbox"):
        raise Refused(400, "side is inbox, outbox or both")
    states = tuple(one for one in query.get("state", "").split(",") if one)
    for state in states:
        if state not in {*OUTBOX_STATES, *INBOX_STATES} or state not in {*map(str, State)}:
            raise Refused(400, f"no state is called {state[:60]!r}")
    limit = query.get("limit") or "100"
    most = min(MOST, max(1, int(limit))) if limit.isascii() and limit.isdigit() and len(limit) < 10 else 100
    ids, whole = _ids(runtime, query.get("id", "").strip())
    filters: dict[str, Any] = {"channel": query.get("channel") or None, "peer": query.get("peer") or None}
    if ids is not None:
        filters["ids"] = ids
    found = [] if ids == () else list(islice(find_messages(runtime, side, states, filters), most + 1))
    return as_json({"messages": found[:most], "more": len(found) > most, "whole": whole})


def _ids(runtime: Runtime, given: str) -> tuple[tuple[bytes, ...] | None, bool]:
    """The ids that are meant (None: all), and whether everything was looked through for them."""
    if not given:
        return None, True
    digits = given.replace("-", "").lower()
    if set(digits) - set("0123456789abcdef") or not SHORTEST <= len(digits) <= 32:
        raise Refused(400, f"an id, or its beginning, is {SHORTEST} to 32 digits from 0 to 9 and a to f")
    if len(digits) == 32:
        return (id_in(given),), True
    found, whole = dict[bytes, None](), True
    for half in (
        walk_outbox(runtime.outbox, select(), SEARCHED), walk_inbox(runtime.inbox, select(), SEARCHED)
    ):  # fmt: skip
        looked = 0
        for one in half:
            looked += 1
            if one.id.hex().startswith(digits) and len(found) < MOST:
                found[one.id] = None
        whole = whole and looked < SEARCHED
    return tuple(found), whole


def _one(runtime: Runtime, request: Request) -> Answer:
    """Everything that is known here of one message, but not its body."""
    identity = id_in(request.rest)
    deliveries, job = runtime.outbox.status(identity), runtime.inbox.status(identity)
    data = envelope_of(runtime, identity)
    if not deliveries and job is None and data is None:
        raise Refused(404, "no such message here, or it ended and was forgotten")
    held, waits = held_peers(runtime), why_it_waits(runtime, identity)
    head = None
    if data is not None:
        head = {**message_document(header_of(data), None if job is None else job.sender), "size": body_size(data)}
    sent = [delivery_document(one, held) for one in deliveries]
    for one in sent:
        if one["state"] == "queued":
            one["reason"] = one["reason"] or waits.get(one["peer"], "")
    got = None if job is None else job_document(job)
    story = _told(local_story(runtime, identity), ())
    return as_json({"id": format_id(identity), "message": head, "deliveries": sent, "inbox": got, **story})


def _trace(runtime: Runtime, request: Request) -> Answer:
    """The story of one message, with what its peers know: they are asked now."""
    story = local_story(runtime, id_in(request.rest))
    told = ask_peers(runtime, id_in(request.rest), whom_to_ask(story, list(runtime.config.peers)))
    return as_json({**_told(story, told), "peers": [one.as_dict() for one in told]})


def _told(story: Story, told: Sequence[Told]) -> dict[str, Any]:
    """``events`` in the order of time, ``now``: where it is and what can be done."""
    return {"events": [one.as_dict() for one in timeline(story, told)], "now": whereabouts(story, told)}


def _body(runtime: Runtime, request: Request) -> Answer:
    """The beginning of a message's body, as text if it is some."""
    identity = id_in(request.rest)
    body = open_body(runtime, identity)
    if body is None:
        raise Refused(404, "its body is not kept here any more")
    with body:
        start = body.read(BODY + 1)
    shown = start[:BODY]
    try:
        text, form = shown.decode("utf-8", "strict" if len(start) <= BODY else "ignore"), "text"
    except UnicodeDecodeError:
        text, form = shown[:4096].hex(" "), "hex"
    return as_json({"form": form, "text": text, "whole": len(start) <= BODY and (form == "text" or len(shown) <= 4096)})
