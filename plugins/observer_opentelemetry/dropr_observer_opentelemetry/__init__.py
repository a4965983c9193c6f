"""The observer ``opentelemetry``: traces of messages across nodes.

`Options` is what the YAML may say, `exporting` makes what takes the spans away, `tracer` makes the spans. Never a
payload, never the text of an exception; of headers only those of W3C Trace Context are read.
"""

from dropr_core.contracts.context import Context
from dropr_core.hookspecs import hookimpl
from dropr_observer_opentelemetry.exporting import provider_for
from dropr_observer_opentelemetry.options import Options
from dropr_observer_opentelemetry.tracer import Tracer, context_of

DROPR_CONTRACT = 1

__all__ = ["DROPR_CONTRACT", "Options", "Tracer", "context_of", "dropr_observer"]


@hookimpl
def dropr_observer(options: Options, context: Context) -> object:
    """Make the observer of one process."""
    return Tracer(options, provider_for(options, context.node), context.clock)
