"""What programs do that use Kombu without Celery."""

from kombu import Consumer, Exchange, Producer, Queue

TASKS = Queue("tasks", Exchange("tasks", "direct"), routing_key="tasks")


def send(connection, body, queue=TASKS, **options):
    """Publish as Celery does: by the queue's exchange, which is declared."""
    Producer(connection.default_channel).publish(
        body, exchange=queue.exchange, routing_key=queue.routing_key, declare=[queue], **options
    )


def take(connection, queue=TASKS, timeout=0):
    """The next message, or None."""
    found = []
    with Consumer(connection.default_channel, [queue], callbacks=[lambda _, message: found.append(message)]):
        try:
            connection.drain_events(timeout=timeout)
        except TimeoutError:
            return None
    return found[0]
