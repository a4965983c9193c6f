"""From Kombu's `publish` to the node's outbox, or its own inbox.

Owns what the properties of a message become: priority, expiry, the way it goes. Talks to no network. Must not know
exchanges: they are resolved before.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dropr_kombu.homes import mark
from dropr_kombu.nodes import SharedNode
from dropr_kombu.routes import Routes
from dropr_kombu.wire import Raw, encode

if TYPE_CHECKING:
    from dropr_core.api.send_options import PutOptions

LAST = 9
"""Of both scales of priorities."""


def to_dropr(priority: Any, *, zero_first: bool) -> int:
    """The priority of dropr, 0 first, for one of Celery: 9 first as with RabbitMQ, or 0 first as with Redis."""
    try:
        number = min(max(int(priority or 0), 0), LAST)
    except (TypeError, ValueError):
        number = 0
    return number if zero_first else LAST - number


def to_celery(priority: int, *, zero_first: bool) -> int:
    """The way back."""
    return priority if zero_first else LAST - priority


def publish(
    shared: SharedNode, routes: Routes, queue: str, message: Raw, *, eta_in_queue: bool, zero_first: bool
) -> None:
    """Put a message on its way; when this returns it is on stable storage. Raises UsageError, StoreError."""
    node, route = shared.node, routes.of(queue)
    headers, properties = message.get("headers") or {}, message.get("properties") or {}
    mark(message, node.name, shared.chord_sizes)
    options: PutOptions = {"priority": to_dropr(properties.get("priority"), zero_first=zero_first)}
    task = headers.get("task")
    if isinstance(task, str):
        options["headers"] = {"celery-task": task[:500], "celery-id": str(headers.get("id", ""))[:500]}
    life = seconds_of(properties.get("expiration"))
    delay = _until(headers.get("eta")) if eta_in_queue else None
    if delay is not None and (life is None or delay < life):
        options["delay"] = delay
    if life is not None:
        options["expires_in"] = life
    data = encode(message)
    if not route.away:
        node.put(data, channel=route.channel, **options)
    elif route.to:
        node.send(data, channel=route.channel, to=route.to, **options)
    else:
        node.send(data, channel=route.channel, **options)


def seconds_of(expiration: Any) -> float | None:
    """Of AMQP's expiration, which is milliseconds in a text; None: none was given."""
    try:
        return max(int(expiration) / 1000, 0.001) if expiration not in {None, ""} else None
    except (TypeError, ValueError):
        return None


def _until(eta: Any) -> float | None:
    try:
        moment = datetime.fromisoformat(eta)
    except (TypeError, ValueError):
        return None
    seconds = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return seconds if seconds > 0 else None
