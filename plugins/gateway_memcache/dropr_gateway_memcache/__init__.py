"""A door for memcache clients: MemcacheQ's queues and Kestrel's reliable reads over this node's outbox and inbox.

Owns the plugin's surface: `Options`, the hook, the gateway. The protocols are in `text.py`, `meta.py` and `binary.py`,
`reader.py` tells them apart, and `session.py` does what they ask for.
"""

from collections.abc import Mapping

import attrs

from dropr_core import options as fields
from dropr_core.contracts.context import Context
from dropr_core.contracts.gateway import Desk, Gateway, Line
from dropr_core.hookspecs import hookimpl
from dropr_gateway_memcache.reader import Reader
from dropr_gateway_memcache.session import Session

__all__ = ["VERSION", "MemcacheGateway", "Options", "dropr_gateway"]

VERSION = "1.6.0-dropr"
"""What `version` answers: the meta commands are those of memcached 1.6, and clients read the number."""


@attrs.frozen(kw_only=True)
class Options:
    """Options of the gateway ``memcache``."""

    users: Mapping[str, str] = fields.option(
        dict, secret=True,
        doc="Users and their passwords. If there are any, each connection says first who it is: by SASL PLAIN in the "
        "binary protocol, by a `set` of `user password` in text, as with memcached's -Y.",
    )  # fmt: skip
    max_item: int = fields.size("1MiB", least=1024, most=1 << 30, doc="No message that is set may be bigger.")
    open_reads: int = fields.option(
        1, least=1, most=1000, doc="Reads of one queue that a connection may have open at once."
    )


class MemcacheGateway(Gateway):
    """One for all connections."""

    default_listen = "tcp://127.0.0.1:11211"

    def __init__(self, options: Options) -> None:
        self._options = options
        self.authenticates = bool(options.users)

    async def serve(self, line: Line, desk: Desk) -> None:
        """See the contract."""
        options = self._options
        reader = Reader(max_item=options.max_item, version=VERSION, locked=self.authenticates)
        await Session(line, desk, reader, users=options.users, open_reads=options.open_reads).run()


@hookimpl
def dropr_gateway(options: Options, context: Context) -> Gateway:  # noqa: ARG001 - the form of the hook
    """Make the gateway."""
    return MemcacheGateway(options)
