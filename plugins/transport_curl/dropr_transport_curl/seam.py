"""What this transport relies on in uvicorn beyond its documented interface: all of it, by name.

uvicorn promises that ``http=`` may be a protocol class of one's own; it does not promise what its own classes look
like inside. guard.py and accepting.py use nothing of them that is not listed here (a test reads their text), and
`missing` says what an installed uvicorn lacks, before a listener opens: an upgrade can then be refused in words, and
never shows as requests that fail. Must not know what the names are used for.
"""

import asyncio

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

OVERRIDDEN = frozenset({
    "connection_made", "connection_lost", "data_received", "on_message_begin", "on_headers_complete",
    "on_message_complete", "timeout_keep_alive_handler",
})  # fmt: skip
"""Methods of the protocol in whose place ours is called; each calls the original."""

CALLED = frozenset({"shutdown", "pause_writing", "resume_writing", "_unset_keepalive_if_required"})
"""Methods of the protocol that we call."""

PROTOCOL = frozenset({
    "access_log", "cycle", "expect_100_continue", "flow", "headers", "logger", "loop", "parser", "pipeline", "scope",
    "timeout_keep_alive", "timeout_keep_alive_task", "transport",
})  # fmt: skip
"""Attributes of the protocol that we read or set."""

FLOW = frozenset({"resume_reading"})
"""Of the protocol's ``flow``."""

CYCLE = frozenset({"body", "message_event", "more_body", "scope"})
"""Attributes of the protocol's ``cycle``, which is one request."""

STATE = frozenset({"connections", "tasks"})
"""Attributes of the state that all connections of a listener share."""


def missing() -> list[str]:
    """What the installed uvicorn lacks; empty if it can be used."""
    loop = asyncio.new_event_loop()
    try:
        state = ServerState()
        config = uvicorn.Config(_nobody, loop="none", ws="none", lifespan="off", log_config=None, interface="asgi3")
        protocol = HttpToolsProtocol(config=config, server_state=state, app_state={}, _loop=loop)
        cycle = set(RequestResponseCycle.__init__.__code__.co_names)
        lacks = _lacks("HttpToolsProtocol", OVERRIDDEN | CALLED | PROTOCOL, set(dir(protocol)))
        lacks += _lacks("RequestResponseCycle", CYCLE, cycle)
        lacks += _lacks("ServerState", STATE, set(dir(state)))
    except (AttributeError, TypeError, ImportError) as error:
        return [str(error)]
    finally:
        loop.close()
    return lacks


def _lacks(name: str, wanted: frozenset[str], has: set[str]) -> list[str]:
    return [f"{name}.{word}" for word in sorted(wanted - has)]


async def _nobody(_scope: object, _receive: object, _send: object) -> None:
    """An application that nobody asks."""
