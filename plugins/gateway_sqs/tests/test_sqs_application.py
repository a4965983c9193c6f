"""The ASGI application by itself: how much it reads of whom."""

import asyncio
import logging
import time
from types import SimpleNamespace

import attrs
import pytest
from dropr_gateway_sqs import application
from dropr_gateway_sqs.application import Application
from dropr_gateway_sqs.counter import Counter
from dropr_gateway_sqs.queues import Queues, untouched
from dropr_gateway_sqs.sigv4 import Verifier

from dropr_core.errors import ConfigError
from dropr_core.system.clock import SystemClock
from dropr_core.system.shared_document import FileDocuments


def made(tmp_path, verifier=None):
    """An application without a node behind it."""
    clock = SystemClock()
    queues = Queues(FileDocuments(tmp_path), clock.wall)
    desk = SimpleNamespace(node="shop", counts=None)
    counter = Counter(desk, queues, clock, logging.getLogger("test"), region="r", account="000000000000")
    return Application(counter, verifier, url=None)


async def ask(app, chunks, headers=()):
    """Status of the answer, and how many chunks were read."""
    waiting, answers = list(chunks), []

    async def receive():
        await asyncio.sleep(0)
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message):
        answers.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/", "raw_path": b"/", "query_string": b"",
        "headers": [(b"host", b"x"), *headers],
    }  # fmt: skip
    await app(scope, receive, send)
    return answers[0]["status"], len(chunks) - len(waiting)


def test_a_stranger_is_refused_before_the_body_is_read(tmp_path):
    """Who has no key costs the reading of a head."""
    app = made(tmp_path, Verifier({"KEY": "secret"}))
    assert asyncio.run(ask(app, [b"x"] * 5)) == (403, 0)


def test_a_request_that_is_too_large_is_not_read(tmp_path):
    """Neither what announces too much nor what sends too much is taken in."""
    app = made(tmp_path)
    announced = [(b"content-length", b"%d" % (application.LARGEST_REQUEST + 1))]
    assert asyncio.run(ask(app, [b"x"] * 5, announced)) == (413, 0)
    status, read = asyncio.run(ask(app, [b"x" * (1 << 20)] * 50))
    assert (status, read < 10) == (413, True)


def test_all_requests_together_are_bounded(tmp_path):
    """Many callers that send at once are told to wait before memory is full, and there is room again afterwards."""
    app = made(tmp_path)

    async def many():
        return await asyncio.gather(*(ask(app, [b"x" * (1 << 20)] * 6) for _ in range(20)))

    statuses = {status for status, _ in asyncio.run(many())}
    assert statuses == {503, 400}
    assert asyncio.run(ask(app, [b"x" * (1 << 20)] * 6))[0] == 400


def test_two_doors_of_one_node_keep_the_same_queues(tmp_path):
    """What one process creates and sets the other one knows and keeps; a document that nobody can read is told with
    what to do.
    """
    here, there = (Queues(FileDocuments(tmp_path), time.time) for _ in range(2))

    async def work():
        await here.create(untouched("orders"))
        await there.create(untouched("bills"))
        await there.change("orders", lambda one: attrs.evolve(one, tags={"team": "blue"}))
        await here.remove("bills")
        return await there.get_now("orders")

    assert asyncio.run(work()).tags == {"team": "blue"}
    assert (set(here.names()), set(there.names()), there.deleted) == ({"orders"}, {"orders"}, {"bills"})
    (tmp_path / "sqs-queues.json").write_text("{")
    with pytest.raises(ConfigError, match="put it back from a backup"):
        Queues(FileDocuments(tmp_path), time.time)
