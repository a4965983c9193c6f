"""The buttons of the page: what a person may do, by POST and with the token alone.

Owns the words of a request and of its answer. What is done, `actions.py` does, as for the command line. Each is one
line in the log.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from dropr_core.api.runtime import Runtime
from dropr_core.model.names import format_id
from dropr_core.monitor import actions
from dropr_core.monitor.looking import MOST, id_in
from dropr_core.monitor.routes import Answer, Refused, Request, Route, as_json
from dropr_core.monitor.selection import select

LONGEST = 500
"""Characters of a reason."""


class Words:
    """The words of one request."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def text(self, name: str, default: str | None = None) -> str:
        """A text that must be there, unless it has a default."""
        value = self._document.get(name, default)
        if not isinstance(value, str) or (not value and default is None):
            raise Refused(400, f"'{name}' is missing")
        if len(value) > LONGEST:
            raise Refused(400, f"'{name}' is longer than {LONGEST} characters")
        return value

    def maybe(self, name: str) -> str | None:
        """A text, or None."""
        return self.text(name, "") or None

    def seconds(self, name: str) -> float | None:
        """A number of seconds above 0, or None."""
        value = self._document.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 10**9:
            raise Refused(400, f"'{name}' is a number of seconds")
        return float(value)

    def filters(self) -> dict[str, Any]:
        """Which messages: some ``ids``, or a ``channel`` or ``peer``, or ``all``."""
        ids = self._document.get("ids", [])
        if not isinstance(ids, list) or len(ids) > MOST or not all(isinstance(one, str) for one in ids):
            raise Refused(400, f"'ids' is a list of up to {MOST} ids")
        found = {"ids": tuple(id_in(one) for one in ids), "channel": self.maybe("channel"), "peer": self.maybe("peer")}
        if not any(found.values()) and self._document.get("all") is not True:
            raise Refused(400, "say which: ids, channel, peer, or all")
        return found


def _redrive(node: Runtime, words: Words) -> str:
    count = actions.redrive(node, select(**words.filters()))
    return _counted(count, "delivery", "deliveries", "queued again")


def _kick(node: Runtime, words: Words) -> str:
    return _counted(actions.kick(node, select(**words.filters())), "message", "messages", "ready again")


def _bury(node: Runtime, words: Words) -> str:
    identity = id_in(words.text("id"))
    if not actions.bury(node, identity, words.text("reason", "buried by hand")):
        info = node.inbox.status(identity)
        state = "gone" if info is None else str(info.state)
        raise Refused(409, f"it is {state}: only a message that waits can be buried")
    return f"{format_id(identity)} is buried"


def _cancel(node: Runtime, words: Words) -> str:
    identity, peer = id_in(words.text("id")), words.maybe("peer")
    cancelled, late = actions.cancel(node, identity, (peer,) if peer else ())
    if not cancelled:
        raise Refused(409, "it is too late: it is under way, accepted or ended")
    return _counted(cancelled, "delivery", "deliveries", "cancelled") + (f", too late for {late}" if late else "")


def _hold(node: Runtime, words: Words) -> str:
    peer = words.text("peer")
    return f"{peer} is held: {actions.hold(node, peer, words.text('reason', '') or 'held by hand')}"


def _release(node: Runtime, words: Words) -> str:
    peer = words.text("peer")
    return f"{peer} is released" if actions.release(node, peer) else f"{peer} was not held"


def _retry(node: Runtime, words: Words) -> str:
    peer = words.maybe("peer")
    actions.retry(node, peer)
    return f"{peer or 'every peer'} is tried now"


def _pause(node: Runtime, words: Words) -> str:
    channel = words.text("channel")
    made = node.pauses.pause(channel, words.seconds("seconds"), words.text("reason", "") or "paused by hand")
    return f"{channel} is paused: {made.reason}"


def _unpause(node: Runtime, words: Words) -> str:
    channel = words.text("channel")
    return f"{channel} goes on" if node.pauses.unpause(channel) else f"{channel} was not paused"


_DOES: Mapping[str, Callable[[Runtime, Words], str]] = {
    "redrive": _redrive, "kick": _kick, "bury": _bury, "cancel": _cancel, "hold": _hold, "release": _release,
    "retry": _retry, "pause": _pause, "unpause": _unpause,
}  # fmt: skip


def acting_routes(runtime: Runtime, log: logging.Logger) -> list[Route]:
    """One for each button."""
    return [button(runtime, log, name, does) for name, does in _DOES.items()]


def button(runtime: Runtime, log: logging.Logger, name: str, does: Callable[[Runtime, Words], str]) -> Route:
    """POST /api/do/NAME with a JSON object: ``does`` says in a sentence what came of it."""

    def function(request: Request) -> Answer:
        said = does(runtime, Words(request.document()))
        log.info("by the page, %s: %s", name, said)
        return as_json({"said": said})

    return Route("POST", f"/api/do/{name}", function)


def _counted(count: int, one: str, many: str, what: str) -> str:
    return f"{count} {one if count == 1 else many} {what}"
