"""What the YAML may say below ``observers:``.

Owns the options. Must not know what a span is.
"""

from pathlib import Path
from typing import Literal

import attrs

from dropr_core import options as fields


@attrs.frozen(kw_only=True)
class Options:
    """Options of the observer ``opentelemetry``."""

    exporter: Literal["otlp", "file", "application"] = fields.option(
        "otlp",
        doc="Where spans go: `otlp`: to a collector over HTTP; `file`: lines of JSON; `application`: to what the "
        "application has set up for itself (nothing, in processes of dropr's own).",
    )
    endpoint: str | None = fields.option(
        None,
        doc="URL of the collector, such as `http://127.0.0.1:4318/v1/traces`.",
        unset="as $OTEL_EXPORTER_OTLP_ENDPOINT says; its headers are in $OTEL_EXPORTER_OTLP_HEADERS",
    )
    file: Path | None = fields.path(None, doc="Where `exporter: file` adds its lines.", unset="./traces.jsonl")
    service: str | None = fields.option(None, doc="`service.name` of the spans.", unset="the name of the node")
    sample: float = fields.option(
        1.0, least=0.0, most=1.0, doc="Share of new traces that are kept; one that has begun elsewhere is as it began."
    )
    link_after: float = fields.duration(
        "1h",
        doc="What happens to a message that is older begins a trace of its own, linked to the one of its sender.",
    )
    most_in_batch: int = fields.option(
        1000, least=0, doc="Messages of one request between nodes that get spans of their own; the others get none."
    )
