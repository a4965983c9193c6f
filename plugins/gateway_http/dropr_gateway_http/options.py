"""What a user may say about this gateway. Must not know HTTP's details."""

import attrs

from dropr_core import options as fields


@attrs.frozen(kw_only=True)
class User:
    """Somebody who may call, and what for."""

    token: str = fields.secret(doc="What stands in `Authorization: Bearer …`; `dropr keygen` makes one.")
    send: tuple[str, ...] = fields.option((), doc="Patterns of channels it may send to, such as `orders` or `shop/*`.")
    receive: tuple[str, ...] = fields.option((), doc="Patterns of channels it may receive from, and look into.")
    manage: bool = fields.option(
        default=False, doc="Whether it may pause, purge, kick and remove in the channels that it may receive from."
    )


@attrs.frozen(kw_only=True)
class Options:
    """Options of the gateway ``http``."""

    users: dict[str, User] = fields.option(dict, doc="Who may call. None: everybody on this machine may do everything.")
    hold: float = fields.duration("60s", least=1, doc="How long a lease lasts if the caller does not say.")
    max_hold: float = fields.duration("12h", least=1, doc="The longest that a caller may ask for.")
    max_wait: float = fields.duration("55s", least=0, doc="The longest long poll.")
    max_batch: int = fields.size("8MiB", least=1024, doc="Most bytes of one batch, sent or received.")
    max_uploads: int = fields.option(64, least=1, doc="Large bodies on their way in at once; more wait for their turn.")
    hosts: tuple[str, ...] = fields.option(
        (), doc="Names besides localhost that this door is called by, where callers have no token."
    )
    origins: tuple[str, ...] = fields.option(
        (), doc="Origins of web pages that may call, such as `https://shop.example`. None: no browser may."
    )
    deduplicate_events: bool = fields.option(
        default=True, doc="Whether a CloudEvent's source and id are its idempotency key, if there is no other."
    )
