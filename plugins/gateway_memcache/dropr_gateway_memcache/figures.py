"""`stats`: a node's queues in the figures of memcached, MemcacheQ and Kestrel.

Owns which figure is which. Must not know how they are worded.
"""

import os
import time
from collections.abc import Iterator

from dropr_core.contracts.gateway import Counts, Desk
from dropr_gateway_memcache.requests import Stats


async def answer(desk: Desk, request: Stats) -> bytes:
    """The answer to one request. Raises DroprErrors of the desk."""
    answers, topic = request.answers, request.topic
    if topic == "me":
        count = await desk.count(request.queue)
        return answers.stats(_one(count)) if _present(count) or count.processed else answers.miss(b"")
    if topic == "queue":
        counts = await desk.counts()
        return answers.stats((name, memcacheq(count)) for name, count in sorted(counts.items()))
    if not topic:
        counts = await desk.counts()
        general = [
            ("pid", str(os.getpid())),
            ("time", str(int(time.time()))),
            ("curr_items", str(sum(map(_present, counts.values())))),
            ("total_items", str(sum(_total(count) for count in counts.values()))),
            ("bytes", str(sum(count.bytes for count in counts.values()))),
        ]
        return answers.stats([*general, *(pair for name in sorted(counts) for pair in kestrel(name, counts[name]))])
    return answers.stats(())  # slabs, items, sizes, settings: a cache's inner life


def _present(count: Counts) -> int:
    return count.ready + count.delayed + count.blocked + count.leased


def _total(count: Counts) -> int:
    return _present(count) + count.buried + count.processed


def memcacheq(count: Counts) -> str:
    """All there ever were, and how many of them are done: ``15/9``."""
    return f"{_total(count)}/{count.processed}"


def kestrel(name: str, count: Counts) -> Iterator[tuple[str, str]]:
    """The figures of one queue under Kestrel's names."""
    yield f"queue_{name}_items", str(_present(count) - count.leased)
    yield f"queue_{name}_bytes", str(count.bytes)
    yield f"queue_{name}_total_items", str(_total(count))
    yield f"queue_{name}_age", str(int(count.oldest * 1000))
    yield f"queue_{name}_open_transactions", str(count.leased)


def _one(count: Counts) -> Iterator[tuple[str, str]]:
    yield "items", str(_present(count) - count.leased)
    yield "open", str(count.leased)
    yield "buried", str(count.buried)
    yield "size", str(count.bytes)


__all__ = ["answer", "kestrel", "memcacheq"]
