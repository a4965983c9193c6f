"""What a plugin may implement: the pluggy hook specs.

Owns the markers `hookspec` and `hookimpl` and the names and arguments of all hooks. Must not know how
plugins are found, checked or called (`plugin/registry.py`).

A plugin is a module, named by an entry point of the group ``dropr.<kind>``:

    from dropr_core.hookspecs import hookimpl

    DROPR_CONTRACT = 1             # optional: the version of the contract it was written for

    @attrs.frozen(kw_only=True)    # optional: what the user may say in the YAML (see options.py)
    class Options: ...

    @hookimpl
    def dropr_storage(options, context):
        return MyStorage(options, context)

An implementation may leave out arguments that it does not need, and must not invent others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:  # a plugin of one kind loads no contract of another
    from dropr_core.contracts.context import Context
    from dropr_core.contracts.gateway import Gateway
    from dropr_core.contracts.handler import Handler
    from dropr_core.contracts.serializer import Serializer
    from dropr_core.contracts.storage import Storage
    from dropr_core.contracts.transport import Answerer, Transport
    from dropr_core.model.facts import MessageFacts
    from dropr_core.model.names import MessageId

CONTRACT = 1
"""The version of the plugin contracts that this dropr speaks; a plugin's DROPR_CONTRACT may not be higher."""

hookspec = pluggy.HookspecMarker("dropr")
hookimpl = pluggy.HookimplMarker("dropr")

# mypy: disable-error-code=empty-body

# ── the five kinds: each hook makes one instance ─────────────────────────────────────────────────


@hookspec(firstresult=True)
def dropr_storage(options: Any, context: "Context") -> "Storage":
    """Make a storage from the plugin's own ``Options`` (None if it has no such class) and the host's context."""


@hookspec(firstresult=True)
def dropr_transport(options: Any, context: "Context") -> "Transport":
    """Make a transport. The module's ``SCHEMES`` names the URL schemes it serves, to be read before this."""


@hookspec(firstresult=True)
def dropr_keypair(secret: str | None) -> tuple[str, str]:
    """Optional, of a transport with keys of its own: (secret, public) as text for the YAML; a fresh pair without
    ``secret``. ``dropr keygen NAME`` calls it. Raises UsageError for a secret that is none.
    """


@hookspec(firstresult=True)
def dropr_asgi(answerer: "Answerer") -> Callable[..., Any]:
    """Optional, of a transport that speaks HTTP: an ASGI application that answers peers, to be mounted into an
    application of the user's (`dropr_core.asgi`). It answers POST at its mount and below.
    """


@hookspec(firstresult=True)
def dropr_serializer(options: Any, context: "Context") -> "Serializer":
    """Make a serializer."""


@hookspec(firstresult=True)
def dropr_handler(options: Any, context: "Context") -> "Handler":
    """Make a handler. ``options.target`` is what stands behind the colon in ``handler: python:shop:on_order``."""


@hookspec(firstresult=True)
def dropr_gateway(options: Any, context: "Context") -> "Gateway":
    """Make a gateway. ``options`` are what the YAML says under its name, but for the host's own words (`listen` …)."""


@hookspec(firstresult=True)
def dropr_observer(options: Any, context: "Context") -> object:
    """Make an observer: an object whose methods implement some of the hooks below.

    Optional: without it the module itself is the observer. A ``close()`` is called at the end, if there is one.
    """


# ── observers: told what happened; they change nothing and stop nothing ──────────────────────────
# They are called in the thread to which it happened, after it happened: be quick, and do not send from
# within dropr_message_queued.


@hookspec
def dropr_message_queued(
    node: str,
    id: "MessageId",  # noqa: A002
    channel: str,
    peers: Sequence[str],
    facts: "MessageFacts",
) -> None:
    """A message was stored by `send`, with one delivery for each of ``peers``. ``facts``: its headers and the like,
    never its body.
    """


@hookspec
def dropr_batch_accepted(
    node: str, side: str, peer: str, count: int, messages: "Iterable[MessageFacts]", seconds: float | None
) -> None:
    """``count`` messages entered a queue: ours from ``peer`` (side ``inbox``), or the peer's (``outbox``).

    ``messages``: each of them, read only as far as somebody iterates. ``seconds``: how long that took, from the request
    to the answer; None where it is not measured.
    """


@hookspec
def dropr_peer_down(node: str, peer: str, reason: str) -> None:
    """A peer that answered before cannot be reached now, and why."""


@hookspec
def dropr_peer_up(node: str, peer: str) -> None:
    """A peer answers again, or for the first time."""


@hookspec
def dropr_message_claimed(
    node: str,
    id: "MessageId",  # noqa: A002
    channel: str,
    attempt: int,
    facts: "MessageFacts",
) -> None:
    """A consumer of this node was given the message; ``attempt`` is 1 at the first try."""


@hookspec
def dropr_message_settled(node: str, id: "MessageId", channel: str, outcome: str) -> None:  # noqa: A002
    """A consumer gave the message back: outcome ``ack``, ``release`` or ``bury``."""


@hookspec
def dropr_store_event(node: str, event: str, details: Mapping[str, Any]) -> None:
    """Something about the store that people should know: ``rolled_back``, ``corrupt``, ``full``, ``read_only`` …"""


# ── propagators: an observer that also has these carries a context (a trace) along ───────────────


@hookspec
def dropr_message_headers(node: str, channel: str) -> Mapping[str, str] | None:
    """Headers that go along with a message that is being sent on ``channel``, or None.

    Called by ``send`` in the thread that sends, before anything is stored. Only those in `PROPAGATED` (``traceparent``,
    ``tracestate``, ``baggage``), 4096 characters together; others are left out and logged. What the sender himself gave
    under one of these names counts, and then nothing is added. They do not count for whether two messages with the same
    id are the same.
    """


@hookspec
def dropr_message_handling(node: str, facts: "MessageFacts", attempt: int) -> "AbstractContextManager[object] | None":
    """What is entered around the call of a handler, in its thread or task, and left with the handler's exception.

    It can set what the thread or task has as its context (contextvars); it cannot stop the handler, nor swallow what it
    raises.
    """
