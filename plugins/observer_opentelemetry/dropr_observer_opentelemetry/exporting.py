"""Where the spans go: a provider of OpenTelemetry with an exporter behind a queue.

Owns that nobody waits for an exporter: spans are handed over in a thread of OpenTelemetry's, in batches, from a queue
with a bound; what is too much is dropped. Must not know what the spans are about.
"""

import os
from pathlib import Path
from typing import TextIO

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from dropr_core.errors import ConfigError, PluginError
from dropr_core.system.loading import unforked
from dropr_observer_opentelemetry.options import Options

DEFAULT_FILE = "traces.jsonl"


def provider_for(options: Options, node: str, exporter: SpanExporter | None = None) -> trace.TracerProvider:
    """What makes tracers for one process of ``node``. ``exporter``: instead of the one that the options name.

    Raises PluginError, ConfigError.
    """
    if options.exporter == "application" and exporter is None:
        return trace.get_tracer_provider()
    resource = Resource.create(
        {"service.name": options.service or node, "service.instance.id": f"{node}-{os.getpid()}", "dropr.node": node}
    )
    provider = TracerProvider(
        resource=resource, sampler=ParentBased(TraceIdRatioBased(options.sample)), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(exporter or _exporter(options)))
    return provider


def _exporter(options: Options) -> SpanExporter:
    if options.exporter == "file":
        return FileExporter(options.file or Path(DEFAULT_FILE))
    try:
        with unforked:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise PluginError(
            "observer 'opentelemetry' needs a package more to send to a collector; run: "
            "pip install 'dropr-observer-opentelemetry[otlp]' (or say exporter: file)"
        ) from error
    made: SpanExporter = OTLPSpanExporter(endpoint=options.endpoint)
    return made


class FileExporter(ConsoleSpanExporter):
    """Adds a line of JSON for each span; each batch is one write, so that lines of several processes do not mix."""

    def __init__(self, path: Path) -> None:
        """Opens the file. Raises ConfigError."""
        try:
            self._file: TextIO = path.open("a", encoding="utf-8", buffering=1 << 20)
        except OSError as error:
            raise ConfigError([f"observers: file: {path} cannot be written: {error.strerror}"]) from error
        super().__init__(out=self._file, formatter=_line)

    def shutdown(self) -> None:
        """Close the file; safe twice."""
        self._file.close()


def _line(span: ReadableSpan) -> str:
    return str(span.to_json(indent=None)) + "\n"
