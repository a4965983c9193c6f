"""Work for the built-in handlers."""

from dropr_core.contracts.handler import Work
from dropr_core.model.message import Message

LONG = 60.0


def work(body=b"body", attempt=1, **facts):
    message = Message(**{"id": bytes(range(16)), "sender": "shop", "channel": "orders/eu", **facts})
    return Work(message, body, body.decode("latin-1"), attempt, False, 0.5)
