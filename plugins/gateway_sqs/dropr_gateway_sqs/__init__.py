"""Amazon SQS as a gateway: programs written for SQS use a queue on their own machine.

Owns the plugin's surface: `Options`, the hook, the gateway. Must not know actions.
"""

from dropr_core.contracts.context import Context
from dropr_core.contracts.gateway import ASGIApplication, Desk, WebGateway
from dropr_core.hookspecs import hookimpl
from dropr_gateway_sqs.application import Application
from dropr_gateway_sqs.counter import Counter
from dropr_gateway_sqs.options import Options
from dropr_gateway_sqs.queues import Queues
from dropr_gateway_sqs.sigv4 import Verifier

__all__ = ["Options", "SqsGateway", "dropr_gateway"]

DROPR_CONTRACT = 1


class SqsGateway(WebGateway):
    """The door of the dialect."""

    default_listen = "http://127.0.0.1:9324"

    def __init__(self, options: Options, context: Context) -> None:
        self._options, self._context = options, context
        self._application: Application | None = None
        self.authenticates = bool(options.credentials)

    def application(self, desk: Desk) -> ASGIApplication:
        """See the contract. Raises ConfigError if the document of the queues cannot be read."""
        options, context = self._options, self._context
        queues = Queues(context.documents, context.clock.wall)
        counter = Counter(desk, queues, context.clock, context.log, region=options.region, account=options.account)
        counter.wall = context.clock.wall
        verifier = Verifier(options.credentials, options.clock_skew) if options.credentials else None
        self._application = Application(counter, verifier, url=options.url.rstrip("/") if options.url else None)
        return self._application

    async def close(self) -> None:
        """See the contract."""
        application, self._application = self._application, None
        if application is not None:
            await application.close()


@hookimpl
def dropr_gateway(options: Options, context: Context) -> SqsGateway:
    """Make the gateway."""
    return SqsGateway(options, context)
