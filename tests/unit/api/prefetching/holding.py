"""Consumers that hold messages ahead, and what they hold."""

from dropr_core.api.prefetching import PrefetchingConsumer


class Quick:
    """A clock by which nothing takes any time: as much is held as may be."""

    def __call__(self):
        return 0.0


def fill(node, count, channel="orders", **more):
    """Queue messages whose bodies are their numbers."""
    for number in range(count):
        node.put(b"%d" % number, channel=channel, **more)


def consume(node, *channels, **more):
    """A consumer that thinks that all is quick."""
    return PrefetchingConsumer(node.runtime, channels or ("orders",), clock=Quick(), **more)


def grown(node, channel="orders", **more):
    """The same, when it has learnt how quick."""
    fill(node, 12, channel)
    consumer = consume(node, channel, **more)
    for _ in range(12):
        consumer.take().ack()
    return consumer


def count(node, channel="orders"):
    """State → number."""
    return {state: number for state, number in node.inbox.counts()[channel].items() if number and state != "bytes"}
