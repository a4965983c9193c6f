"""An application of Celery as it was before: it names a Redis, and knows nothing of dropr."""

from celery import Celery

app = Celery("shop", broker="redis://localhost", backend="redis://localhost")


@app.task
def pack(order: int) -> str:
    """What the warehouse does for each order."""
    return f"order {order} is packed"
