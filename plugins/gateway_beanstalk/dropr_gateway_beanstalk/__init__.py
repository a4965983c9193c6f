"""A door for programs that speak beanstalkd's protocol: each tube is a channel of the node.

Owns the plugin's surface: `Options`, the hook, the gateway. The protocol's text stands in `commands`, `parser` and
`replies` (without I/O), what one connection does with it in `session`.
"""

import logging
from importlib import metadata
from typing import ClassVar

import attrs

from dropr_core import options as fields
from dropr_core.contracts.context import Context
from dropr_core.contracts.gateway import Desk, Gateway, Line
from dropr_core.hookspecs import hookimpl
from dropr_gateway_beanstalk.commands import MAX_JOB, MAX_U32
from dropr_gateway_beanstalk.session import Session
from dropr_gateway_beanstalk.statistics import Statistics

__all__ = ["BeanstalkGateway", "Options", "dropr_gateway"]


@attrs.frozen(kw_only=True)
class Options:
    """Options of the gateway ``beanstalk``."""

    max_job_size: int = fields.option(
        MAX_JOB, least=1, most=1 << 30, doc="Bytes of the largest job; a larger one is answered with JOB_TOO_BIG."
    )
    ttr: int = fields.option(
        60, least=1, most=MAX_U32,
        doc="Seconds that a worker has for a message that was not put through such a door, and so brings no TTR.",
    )  # fmt: skip


class BeanstalkGateway(Gateway):
    """The dialect of beanstalkd. It has no authentication, so it stays on loopback."""

    default_listen: ClassVar[str] = "tcp://127.0.0.1:11300"

    def __init__(self, options: Options, log: logging.Logger) -> None:
        self._options, self._log = options, log
        self._statistics = Statistics(f"dropr {metadata.version('dropr-gateway-beanstalk')}", options.max_job_size)
        self._sessions: set[Session] = set()

    async def serve(self, line: Line, desk: Desk) -> None:
        """See the contract."""
        session = Session(
            line, desk, self._statistics, self._sessions, self._log,
            max_job=self._options.max_job_size, ttr=self._options.ttr,
        )  # fmt: skip
        await session.run()

    async def close(self) -> None:
        """See the contract. Nothing outlives a connection."""


@hookimpl
def dropr_gateway(options: Options, context: Context) -> Gateway:
    """Make the gateway of one node."""
    return BeanstalkGateway(options, context.log)
