"""Traces over two nodes, and an exporter that fails and hurts nobody."""

import json
import logging
import threading
import time

import pytest
from dropr_observer_opentelemetry import Options, Tracer, context_of
from dropr_observer_opentelemetry.exporting import provider_for
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.nodes import Road, eventually

from dropr_core.model.facts import MessageFacts
from dropr_core.model.names import MessageId
from dropr_core.testing import ObserverCase, ObserverContract

ID = MessageId(b"m" * 16)


def tracer(exporter=None, **options):
    """An observer of one process, with an exporter of the test."""
    exporter = exporter or InMemorySpanExporter()
    made = Options(**options)
    return Tracer(made, provider_for(made, "shop", exporter), Wall())


class Wall:
    """A clock that says what the computer says."""

    def now(self):
        return time.monotonic()

    def wall(self):
        return time.time()


class TestContract(ObserverContract):
    """Everything that an observer promises."""

    @pytest.fixture
    def observer_case(self):
        return ObserverCase(make=tracer)


def finished(observer, exporter):
    """The spans that were handed over when the process ended, by name."""
    observer.close()
    return {span.name: span for span in exporter.get_finished_spans()}


def facts(headers, created_at=None):
    return MessageFacts(ID, "shop", "orders", headers, time.time() if created_at is None else created_at, 120)


def test_what_happens_to_a_message_is_one_trace():
    """Send is below the application's span; ship, accept and process are below send, linked to it, and say what the
    conventions ask for.
    """
    exporter = InMemorySpanExporter()
    observer = tracer(exporter)
    with observer._provider.get_tracer("application").start_as_current_span("checkout") as own:
        headers = observer.dropr_message_headers("shop", "orders")
        observer.dropr_message_queued("shop", "orders", ("berlin",), facts(headers))
    observer.dropr_batch_accepted("shop", "outbox", "berlin", 1, [facts(headers)], 0.25)
    observer.dropr_batch_accepted("berlin", "inbox", "shop", 1, [facts(headers)], None)
    observer.dropr_message_claimed("orders", 1, facts(headers))
    with observer.dropr_message_handling("berlin", facts(headers), 1):
        inner = observer.dropr_message_headers("berlin", "replies")
        observer.dropr_message_queued("berlin", "replies", ("shop",), facts(inner))
    observer.dropr_message_settled("berlin", ID, "orders", "ack")
    spans = finished(observer, exporter)
    assert set(spans) == {"checkout", "send orders", "ship orders", "accept orders", "process orders", "send replies"}
    assert len({span.context.trace_id for span in spans.values()}) == 1
    sent = spans["send orders"]
    assert sent.parent.span_id == own.get_span_context().span_id
    for name in ("ship orders", "accept orders", "process orders"):
        assert spans[name].parent.span_id == sent.context.span_id
        assert [link.context.span_id for link in spans[name].links] == [sent.context.span_id]
    assert spans["send replies"].parent.span_id == spans["process orders"].context.span_id
    kinds = {name: span.kind.name for name, span in spans.items()}
    assert kinds == {
        "checkout": "INTERNAL", "send orders": "PRODUCER", "send replies": "PRODUCER", "ship orders": "CLIENT",
        "accept orders": "SERVER", "process orders": "CONSUMER",
    }  # fmt: skip
    assert spans["ship orders"].end_time - spans["ship orders"].start_time == 250_000_000
    said = dict(spans["process orders"].attributes)
    assert said["messaging.system"] == "dropr"
    assert said["messaging.operation.name"] == said["messaging.operation.type"] == "process"
    assert said["messaging.destination.name"] == "orders"
    assert said["messaging.message.id"] == "6d6d6d6d-6d6d-6d6d-6d6d-6d6d6d6d6d6d"


def test_delayed_work_is_linked_and_no_child():
    """A message older than `link_after` is processed in a trace of its own, with a link to the one of its sender."""
    exporter = InMemorySpanExporter()
    observer = tracer(exporter, link_after=60.0)
    headers = observer.dropr_message_headers("shop", "orders")
    observer.dropr_message_queued("shop", "orders", ("berlin",), facts(headers))
    with observer.dropr_message_handling("berlin", facts(headers, time.time() - 3600), 1):
        pass
    spans = finished(observer, exporter)
    process = spans["process orders"]
    assert process.parent is None
    assert process.context.trace_id != spans["send orders"].context.trace_id
    assert process.links[0].context.span_id == spans["send orders"].context.span_id


def test_a_loop_without_a_worker_is_a_span_from_claim_to_settlement():
    """With its outcome; a message that came without a context begins a trace."""
    exporter = InMemorySpanExporter()
    observer = tracer(exporter)
    observer.dropr_message_claimed("orders", 3, facts({}))
    observer.dropr_message_settled("berlin", ID, "orders", "bury")
    observer.dropr_message_settled("berlin", ID, "orders", "bury")
    span = finished(observer, exporter)["process orders"]
    assert span.parent is None
    assert (span.attributes["dropr.attempt"], span.attributes["dropr.outcome"]) == (3, "bury")
    assert span.status.status_code.name == "ERROR"


def test_what_a_handler_raises_is_named_and_never_quoted():
    """The kind of the error is on the span, its text is not: it may hold a payload."""
    exporter = InMemorySpanExporter()
    observer = tracer(exporter)
    with pytest.raises(ValueError, match="card"), observer.dropr_message_handling("berlin", facts({}), 1):
        raise ValueError("card 4111 1111")
    span = finished(observer, exporter)["process orders"]
    assert span.attributes["error.type"] == "ValueError"
    assert "4111" not in span.to_json()


def test_a_context_that_the_sender_brought_is_left_alone():
    """`send` with a traceparent of the application's own is a span linked to that."""
    exporter = InMemorySpanExporter()
    observer = tracer(exporter)
    brought = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    observer.dropr_message_queued("shop", "orders", ("berlin",), facts(brought))
    span = finished(observer, exporter)["send orders"]
    assert span.kind.name == "CLIENT"
    assert span.links[0].context.span_id == 0xB7AD6B7169203331
    assert trace.get_current_span(context_of(brought)).get_span_context().trace_id == span.context.trace_id


def test_what_is_not_sampled_costs_no_span():
    """With `sample: 0` nothing is handed over, and the context that goes along says so to the other side."""
    exporter = InMemorySpanExporter()
    observer = tracer(exporter, sample=0.0)
    headers = observer.dropr_message_headers("shop", "orders")
    observer.dropr_message_queued("shop", "orders", ("berlin",), facts(headers))
    observer.dropr_batch_accepted("shop", "outbox", "berlin", 1, [facts(headers)], 0.25)
    assert int(headers["traceparent"].rpartition("-")[2], 16) & 1 == 0
    assert finished(observer, exporter) == {}


def test_what_is_never_stored_is_forgotten():
    """Messages that were begun and never stored (a full queue) do not pile up."""
    observer = tracer(most_in_batch=0)
    for _ in range(10_050):
        observer.dropr_message_headers("shop", "orders")
    assert len(observer._sending) == 10_000
    observer.close()


class Hanging(SpanExporter):
    """A collector that takes connections and answers nobody."""

    def __init__(self):
        self.ended = threading.Event()

    def export(self, spans):
        self.ended.wait(60)
        return SpanExportResult.FAILURE

    def shutdown(self):
        self.ended.wait(60)


class Failing(SpanExporter):
    """A collector that is not there."""

    def export(self, spans):
        raise OSError("no collector today")


@pytest.mark.parametrize("exporter", [Hanging, Failing])
def test_an_exporter_that_fails_or_hangs_keeps_nobody_waiting(exporter, caplog):
    """Thousands of spans go nowhere, and the process ends all the same."""
    caplog.set_level(logging.CRITICAL)
    made = exporter()
    observer = tracer(made)
    for _ in range(5000):
        headers = observer.dropr_message_headers("shop", "orders")
        observer.dropr_message_queued("shop", "orders", ("berlin",), facts(headers))
    ended = threading.Thread(target=observer.close)
    ended.start()
    ended.join(60)
    assert not ended.is_alive()
    if exporter is Hanging:
        made.ended.set()


HANDLER = """
def work(work):
    return work.body.upper()
"""


@pytest.mark.e2e
def test_one_trace_over_two_nodes(tmp_path):
    """Real daemons, server and worker, each with an observer of its own: their spans have one trace id, and the payload
    is in none of them.
    """
    road = Road(tmp_path)
    module = road.write_handlers(HANDLER)
    observers = {"observers": [{"use": "opentelemetry", "exporter": "file", "file": str(tmp_path / "traces")}]}
    jobs = {"handler": f"python:{module}:work"}
    shop, ware = road.build("shop", "ware", shop=observers, ware={**observers, "channels": {"jobs": jobs}})
    try:
        processes = [ware.run("server"), ware.run("worker"), shop.run("server"), shop.run("daemon")]
        with shop.opened() as node:
            sent = node.send(b"a secret body", to="ware", channel="jobs", receipt=True)
            assert sent.wait(timeout=60) == b"A SECRET BODY"
        for process in processes:
            process.stop()
    finally:
        road.close()

    def spans():
        lines = (tmp_path / "traces").read_text().splitlines()
        found = {span["name"]: span for span in map(json.loads, lines)}
        return found if len(found) == 4 else None

    found = eventually(spans, what="a span of each step")
    assert set(found) == {"send jobs", "ship jobs", "accept jobs", "process jobs"}
    assert len({span["context"]["trace_id"] for span in found.values()}) == 1
    assert {span["parent_id"] for name, span in found.items() if name != "send jobs"} == {
        found["send jobs"]["context"]["span_id"]
    }
    assert "secret" not in (tmp_path / "traces").read_text().lower()
    nodes = {name: span["resource"]["attributes"]["dropr.node"] for name, span in found.items()}
    assert nodes == {"send jobs": "shop", "ship jobs": "shop", "accept jobs": "ware", "process jobs": "ware"}
