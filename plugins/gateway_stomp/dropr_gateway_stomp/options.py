"""What a user may say about this gateway in the node's YAML.

Owns the options and their limits. Must not know sockets or frames.
"""

from collections.abc import Mapping

import attrs

from dropr_core import options as fields


@attrs.frozen(kw_only=True)
class Options:
    """Options of the gateway ``stomp``."""

    users: Mapping[str, str] = fields.option(
        dict, secret=True, example="{app: ${file:app.password}}", unset="everybody is let in",
        doc="login → passcode. Who connects must be one of them.",
    )  # fmt: skip
    prefetch: int = fields.option(
        100,
        least=1,
        most=10_000,
        doc="Messages that a subscription has under way, if it does not say (`prefetch-count`).",
    )
    heart_beat: float = fields.duration("1s", least=0.1, doc="The shortest interval of heart-beats, both ways.")
    connect: float = fields.duration("30s", least=0.1, doc="How long a client has until its CONNECT frame is here.")
    max_body: int = fields.size("64MiB", least=1024, doc="The largest body of a frame.")
    max_transaction: int = fields.size("64MiB", least=1024, doc="What open transactions of one connection may hold.")
    max_behind: int = fields.size(
        "4MiB", least=1024, doc="What may wait for a slow subscriber of a topic that is not durable; then it is ended."
    )
    origins: tuple[str, ...] = fields.option(
        (),
        doc="Web pages that may connect by WebSocket, such as https://shop.example.",
        unset="with `users` all, else none",
    )
