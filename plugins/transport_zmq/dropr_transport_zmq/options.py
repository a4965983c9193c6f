"""What a user may say about this transport in the node's YAML.

Owns the options and their limits. Must not know sockets.
"""

import attrs

from dropr_core import options as fields
from dropr_transport_zmq.keys import check_public, check_secret


@attrs.frozen(kw_only=True)
class Options:
    """Options of the transport ``zmq``."""

    key: str = fields.secret(
        "", check=check_secret, example="${file:shop.curve}",
        doc="This node's secret CURVE key, made by `dropr keygen zmq`. Listening on zmq+tcp needs it.",
    )  # fmt: skip
    curve: bool = fields.option(
        default=True, doc="`false`: listen on zmq+tcp, and ask peers whose url names no key, without encryption."
    )
    clients: tuple[str, ...] = fields.option(
        (), check=check_public, doc="Public CURVE keys of those who may connect.",
        unset="everybody who knows our public key; who may talk is decided by the keys of `peers` anyway",
    )  # fmt: skip
    connect: float = fields.duration("5s", least=0.01, doc="How long connecting and the handshake may take, each.")
    heartbeat: float = fields.duration(
        "10s",
        least=0.1,
        doc="A connection without a sign of life for so long is ended. Slow lines need more (zmq.md).",
    )
    body_idle: float = fields.duration("30s", least=0.05, doc="How long a caller may stall within one request.")
    linger: float = fields.duration("1s", least=0, most=30, doc="On close, last answers may take so long to leave.")
    high_water: int = fields.option(
        500, least=8, doc="Messages (of at most 64 KiB) that ZeroMQ may queue for one connection, each way."
    )
    max_waiting: int = fields.option(1000, least=1, doc="Requests under way at once to one peer.")
    max_requests: int = fields.option(4096, least=1, doc="Requests that a listener takes at once.")
    max_held: int = fields.size(
        "128MiB", least=1 << 20, doc="Bytes of long requests that a listener holds at once; others wait, unread."
    )
    max_connections: int = fields.option(
        4096, least=1, doc="Connections over TCP whose caller was admitted that a listener keeps."
    )
    max_strangers: int = fields.option(
        512, least=1, doc="Connections beside these on which no request was admitted yet; the oldest goes first."
    )
    max_strangers_per_address: int = fields.option(128, least=1, doc="The same from one address.")
    admission: float = fields.duration(
        "10s", least=0.05, doc="How long a caller has until its first request is admitted, handshake included."
    )
    max_answer: int = fields.size("64MiB", least=1024, doc="No answer of a peer may be bigger.")
