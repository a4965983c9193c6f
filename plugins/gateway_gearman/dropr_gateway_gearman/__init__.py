"""Gearman at a node's door: clients submit jobs, workers grab them, and neither knows that a node stands behind.

Owns the plugin's surface: `Options`, the hook, the gateway. A function is a channel: with a route its jobs go to other
nodes, and their results come home with the receipts. See docs/gateways/gearman.md.
"""

from dropr_core.contracts.context import Context
from dropr_core.contracts.gateway import Desk, Gateway, Line
from dropr_core.hookspecs import hookimpl
from dropr_gateway_gearman.hall import Hall, Options
from dropr_gateway_gearman.session import Session

__all__ = ["GearmanGateway", "Options", "dropr_gateway"]


class GearmanGateway(Gateway):
    """One instance serves all connections of a gateway process. Gearman has no authentication."""

    default_listen = "tcp://127.0.0.1:4730"

    def __init__(self, options: Options, context: Context) -> None:
        self._hall = Hall(context.node, options)

    async def serve(self, line: Line, desk: Desk) -> None:
        """See the contract."""
        await Session(self._hall, line, desk).run()


@hookimpl
def dropr_gateway(options: Options, context: Context) -> GearmanGateway:
    """Make the gateway."""
    return GearmanGateway(options, context)
