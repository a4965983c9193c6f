"""Durable subscriptions to topics, as clients of ActiveMQ, Artemis and RabbitMQ ask for them.

Owns how those headers name a subscription of a topic. Does no I/O. Must not know connections.
"""

import hashlib
import re
from collections.abc import Mapping

from dropr_gateway_stomp.frames import ProtocolError

_NAMES = ("activemq.subscriptionName", "durable-subscription-name", "durable-subscriber-name")
"""ActiveMQ's and Artemis' headers; that they are there is the wish."""
_WISHES = ("durable", "persistent")
"""RabbitMQ's, ``true``; the name is the id of the subscription."""
_GOOD_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def wanted(headers: Mapping[str, str]) -> bool:
    """Whether a SUBSCRIBE or UNSUBSCRIBE means a durable subscription, if it is one to a topic."""
    return any(headers.get(name) for name in _NAMES) or any(
        headers.get(name, "").lower() == "true" for name in _WISHES
    )  # fmt: skip


def subscription_name(headers: Mapping[str, str], client_id: str) -> str:
    """What it is called here: NAME, or CLIENT.NAME for a client that said its client-id. A text that no name may be has
    its SHA-256 instead. Raises ProtocolError if there is none.
    """
    name = next((headers[one] for one in _NAMES if headers.get(one)), headers.get("id", ""))
    if not name:
        raise ProtocolError(f"a durable subscription needs a name: the header {_NAMES[0]}, or an id")
    whole = f"{client_id}.{name}" if client_id else name
    if not _GOOD_NAME.fullmatch(whole) or whole in {".", ".."}:
        whole = hashlib.sha256(f"{client_id}\0{name}".encode("utf-8", "replace")).hexdigest()[:32]
    return whole
