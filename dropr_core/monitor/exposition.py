"""Metrics as the text that Prometheus reads, and as a file for its node_exporter.

Owns the way from a node through the library `prometheus_client`, which is an extra (``dropr-core[metrics]``), to a
text. Must not know which metrics there are.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dropr_core.api.runtime import Runtime
from dropr_core.errors import PluginError
from dropr_core.monitor.gathering import take_snapshot
from dropr_core.monitor.metrics import Family, families
from dropr_core.system.loading import unforked
from dropr_core.system.turns import turn_of

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def metrics_of(node: Runtime) -> bytes:
    """The metrics of a node as they are now; it may be open only to look. Raises StoreError, PluginError.

    Costs a snapshot: the number of peers, channels and lanes, and not of messages.
    """
    with unforked:
        from dropr_core import __version__

    snapshot = take_snapshot(node)
    turns = {one.pid: turn_of(one.pid) for _, one in snapshot.processes.all() if one.pid is not None}
    silent = {pid: turn.late for pid, turn in turns.items() if turn is not None}
    return exposition(families(snapshot, __version__, silent=silent))


def exposition(found: Sequence[Family]) -> bytes:
    """The text. Raises PluginError: the library is not installed."""
    try:
        with unforked:
            from prometheus_client import generate_latest
            from prometheus_client.registry import Collector, CollectorRegistry
    except ImportError as error:
        raise PluginError("metrics need a package more; run: pip install 'dropr-core[metrics]'") from error

    class Families(Collector):
        def collect(self) -> "Iterator[Metric]":
            return _metrics(found)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families())
    return generate_latest(registry)


def _metrics(found: Sequence[Family]) -> "Iterator[Metric]":
    with unforked:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for family in found:
        kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
        metric = kind(family.name, family.help, labels=family.labels)
        for labels, value in family.values:
            metric.add_metric(labels, value)
        yield metric


def write_textfile(path: Path, text: bytes) -> None:
    """Put the text in place of the file at once: whoever reads it meanwhile sees the old one or the new one, whole.

    It can be read by everybody, as node_exporter is another user. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")  # node_exporter reads *.prom
    try:
        temporary.write_bytes(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
