"""Spans for the way of a message: send, ship, accept, process.

Owns their names, attributes and how they hang together, by the semantic conventions of OpenTelemetry for messaging
(1.28 and later: ``{operation} {destination}``, ``messaging.*``). The context that travels is that of ``send``, in the
header ``traceparent``: ``ship`` (in the sender's daemon), ``accept`` (in the receiver's server) and ``process`` (around
the handler, or from claim to settlement) are its children, each linked to it. Must not know where spans go.
"""

import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dropr_core.hookspecs import hookimpl
from dropr_core.model.facts import MessageFacts
from dropr_core.model.names import MessageId, format_id
from dropr_core.system.clock import Clock
from dropr_observer_opentelemetry.options import Options

MOST = 10_000
"""Messages that are between two events at once; of more, the oldest are forgotten."""
SYSTEM = "dropr"
LAST = 3.0
"""Seconds at the end of a process for spans that wait for an exporter."""
NANO = 1_000_000_000
_PROPAGATOR = TraceContextTextMapPropagator()


def context_of(headers: Mapping[str, str]) -> Context:
    """The context that came with a message, for spans of the application's own: ``context_of(message.headers)``."""
    return _PROPAGATOR.extract(headers, Context())


class Tracer:
    """The observer of one process. Safe from many threads."""

    def __init__(self, options: Options, provider: trace.TracerProvider, clock: Clock) -> None:
        self._options, self._provider, self._clock = options, provider, clock
        self._tracer = provider.get_tracer("dropr", schema_url="https://opentelemetry.io/schemas/1.28.0")
        self._lock = threading.Lock()
        self._sending: dict[int, Span] = {}
        """Span id → the span of a message that is being stored."""
        self._claimed: dict[tuple[MessageId, str], tuple[int, int, MessageFacts]] = {}
        """Message → when it was claimed (ns), which attempt it is."""
        self._closed = False

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    @hookimpl
    def dropr_message_headers(self, node: str, channel: str) -> Mapping[str, str]:
        """Begin the span of a message that is being sent, below the application's own; its context goes along."""
        span = self._tracer.start_span(
            f"send {channel}", kind=SpanKind.PRODUCER, attributes=_attributes(node, channel, "send", "send")
        )
        if span.is_recording():
            _remember(self._lock, self._sending, span.get_span_context().span_id, span)
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
        return carrier

    @hookimpl
    def dropr_message_queued(self, node: str, channel: str, peers: Sequence[str], facts: MessageFacts) -> None:
        """It is durable here: the span of its sending ends."""
        if facts is None:
            return
        sent = _sent(facts.headers)
        with self._lock:
            span = self._sending.pop(sent.span_id, None) if sent is not None else None
        if span is None:  # the application has brought a context of its own
            if sent is None or not sent.trace_flags.sampled:
                return
            span = self._tracer.start_span(
                f"send {channel}", context_of(facts.headers), SpanKind.CLIENT,
                _attributes(node, channel, "send", "send"), [Link(sent)],
            )  # fmt: skip
        span.set_attributes({"messaging.message.id": format_id(facts.id), "dropr.peers": list(peers or ())})
        span.end()

    # ── between the nodes ────────────────────────────────────────────────────────────────────────

    @hookimpl
    def dropr_batch_accepted(
        self, node: str, side: str, peer: str, count: int, messages: Iterable[MessageFacts], seconds: float | None
    ) -> None:
        """A span for each message that is traced: from the request to its answer, or as it entered the queue."""
        ended = time.time_ns()
        begun = ended - round((seconds or 0.0) * NANO)
        ours = side == "inbox"
        for facts in itertools.islice(messages or (), self._options.most_in_batch):
            parent, links = self._hang(facts)
            if not links or not links[0].context.trace_flags.sampled:
                continue
            name, kind = ("accept", SpanKind.SERVER) if ours else ("ship", SpanKind.CLIENT)
            span = self._tracer.start_span(
                f"{name} {facts.channel}", parent, kind,
                {
                    **_attributes(node, facts.channel, name, "receive" if ours else "send"),
                    "messaging.message.id": format_id(facts.id), "messaging.message.envelope.size": facts.size,
                    "messaging.batch.message_count": count, "dropr.peer": peer,
                },
                links, begun,
            )  # fmt: skip
            span.end(ended)

    # ── consuming ────────────────────────────────────────────────────────────────────────────────

    @hookimpl
    def dropr_message_claimed(self, channel: str, attempt: int, facts: MessageFacts) -> None:
        """A consumer got it; if no handler of a worker is called, processing begins here."""
        if facts is not None:
            _remember(self._lock, self._claimed, (facts.id, channel), (time.time_ns(), attempt, facts))

    @hookimpl
    def dropr_message_handling(
        self, node: str, facts: MessageFacts, attempt: int
    ) -> AbstractContextManager[object] | None:
        """The span of a handler's call; what the handler does and sends is below it."""
        if facts is None:
            return None
        with self._lock:
            self._claimed.pop((facts.id, facts.channel), None)
        return self._processing(node, facts, attempt)

    @contextmanager
    def _processing(self, node: str, facts: MessageFacts, attempt: int) -> Iterator[None]:
        span = self._process(node, facts, attempt, time.time_ns())
        token = contexts.attach(trace.set_span_in_context(span))
        try:
            yield
        except BaseException as error:
            # Its kind alone: the text may hold anything of the message.
            span.set_attribute("error.type", type(error).__qualname__)
            span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            contexts.detach(token)
            span.end()

    @hookimpl
    def dropr_message_settled(self, node: str, id: MessageId, channel: str, outcome: str) -> None:  # noqa: A002
        """The consumer is done with it: the span of its processing ends, if it was no handler's."""
        with self._lock:
            known = self._claimed.pop((id, channel), None)
        if known is None:
            return
        begun, attempt, facts = known
        span = self._process(node, facts, attempt, begun)
        span.set_attribute("dropr.outcome", outcome)
        if outcome != "ack":
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def _process(self, node: str, facts: MessageFacts, attempt: int, begun: int) -> Span:
        parent, links = self._hang(facts)
        return self._tracer.start_span(
            f"process {facts.channel}", parent, SpanKind.CONSUMER,
            {
                **_attributes(node, facts.channel, "process", "process"),
                "messaging.message.id": format_id(facts.id), "messaging.message.envelope.size": facts.size,
                "dropr.sender": facts.sender, "dropr.attempt": attempt,
            },
            links, begun,
        )  # fmt: skip

    # ── the whole ────────────────────────────────────────────────────────────────────────────────

    def _hang(self, facts: MessageFacts) -> tuple[Context, list[Link]]:
        """Below what a span of a message hangs, and what it is linked to: nothing if it came without a context."""
        sent = _sent(facts.headers)
        if sent is None:
            return Context(), []
        late = self._clock.wall() - facts.created_at > self._options.link_after
        return Context() if late else context_of(facts.headers), [Link(sent)]

    def close(self) -> None:
        """Hand over what waits, for a few seconds at most; safe twice. The application's own provider goes on."""
        if self._closed or self._options.exporter == "application":
            return
        self._closed = True
        with self._lock:
            begun, self._sending = self._sending, {}
            self._claimed.clear()
        for span in begun.values():
            span.end()
        shutdown = getattr(self._provider, "shutdown", None)
        if shutdown is not None:  # in a thread: an exporter that hangs keeps no process alive
            ending = threading.Thread(target=shutdown, name="dropr-opentelemetry-end", daemon=True)
            ending.start()
            ending.join(LAST)


def _sent(headers: Mapping[str, str]) -> trace.SpanContext | None:
    if "traceparent" not in headers:
        return None
    found = trace.get_current_span(context_of(headers)).get_span_context()
    return found if found.is_valid else None


def _attributes(node: str, channel: str, name: str, kind: str) -> dict[str, Any]:
    return {
        "messaging.system": SYSTEM, "messaging.operation.name": name, "messaging.operation.type": kind,
        "messaging.destination.name": channel, "messaging.client.id": node,
    }  # fmt: skip


def _remember(lock: threading.Lock, kept: dict[Any, Any], key: object, value: object) -> None:
    with lock:
        kept[key] = value
        if len(kept) > MOST:
            oldest = kept.pop(next(iter(kept)))
        else:
            oldest = None
    if isinstance(oldest, Span):
        oldest.end()
