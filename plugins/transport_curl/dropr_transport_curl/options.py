"""What a user may say about this transport. Must not know curl or sockets."""

from pathlib import Path

import attrs

from dropr_core import options as fields


@attrs.frozen(kw_only=True)
class Tls:
    """Certificates. The peer's certificate and name are always verified; there is no switch for that."""

    ca: Path | None = fields.path(None, doc="PEM file of the authorities that sign peers; instead of the system's.")
    cert: Path | None = fields.path(None, doc="This node's certificate chain (PEM): shown to peers, used by listeners.")
    key: Path | None = fields.path(None, doc="Its private key (PEM), without a pass phrase.")
    client_ca: Path | None = fields.path(
        None, doc="PEM file: listeners take only callers with a certificate of this authority."
    )


@attrs.frozen(kw_only=True)
class Options:
    """Options of the transport ``curl``."""

    connect: float = fields.duration("5s", least=0.001, doc="How long name lookup, TCP and TLS may take together.")
    min_rate: int = fields.size("100B", doc="Bytes a second below which a moving body is given up; 0: never.")
    rate_window: float = fields.duration("30s", least=0.05, doc="The time over which the rate is measured.")
    max_answer: int = fields.size("64MiB", least=1024, doc="No answer of a peer may be bigger.")
    max_held: int = fields.size(
        "128MiB", least=1 << 20, doc="Bytes of long requests that a listener holds at once; others wait, unread."
    )
    keep: int = fields.option(256, least=1, doc="Idle connections to peers that are kept for the next request.")
    proxy: str = fields.option(
        "", doc="URL of a proxy for all peers. Variables such as http_proxy are not looked at.", secret=True
    )
    http2: bool = fields.option(default=False, doc="Offer HTTP/2 to https peers.")
    tls: Tls = fields.option(Tls, doc="Certificates.")
    max_connections: int = fields.option(
        4096, least=1, doc="Connections whose caller was admitted that a listener keeps."
    )
    max_strangers: int = fields.option(
        512, least=1, doc="Connections beside these on which no request was admitted yet; the oldest goes first."
    )
    max_strangers_per_address: int = fields.option(128, least=1, doc="The same from one address.")
    admission: float = fields.duration(
        "10s", least=0.05, doc="How long a caller has until the head of its first request is there, TLS included."
    )
    body_idle: float = fields.duration(
        "30s", least=0.05, doc="How long a caller may send nothing before it is cut off."
    )
