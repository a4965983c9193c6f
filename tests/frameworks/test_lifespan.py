"""A node inside of a web application: opened and closed with it, sending and handling on its event loop."""

import asyncio
import threading
from typing import Annotated, Any

import fastapi
import pytest
from support.nodes import eventually

import dropr_core as dropr
from dropr_core.api.aio import AsyncNode
from dropr_core.errors import BadName, Closed, ConfigError, UsageError, WriteFailed
from dropr_core.system.presence import living

SHOP = """
node: shop
data: ./data
limits: {min_free: 0}
peers: {warehouse: {url: "http://127.0.0.1:9", key: "0123456789-abcdef"}}
channels:
  orders: {to: warehouse, serializer: json}
  jobs: {serializer: json, attempts: 3}
  slow: {serializer: json, timeout: 100ms, attempts: 1}
"""
PATIENCE = 30.0


@pytest.fixture
def shop(tmp_path):
    """The file of a node whose only peer cannot be reached."""
    path = tmp_path / "shop.yaml"
    path.write_text(SHOP)
    return path


def on_fastapi(post):
    """An application of FastAPI that sends, and its test client."""
    from fastapi.testclient import TestClient

    app = fastapi.FastAPI(lifespan=post)
    app.mount("/dropr", post.receiver)

    @app.post("/orders/{sku}")
    async def order(sku: int, node: Annotated[AsyncNode, fastapi.Depends(post.node)]) -> dict[str, str]:
        return {"id": (await node.send({"sku": sku}, channel="orders")).id}

    return TestClient(app)


def on_starlette(post):
    """The same with Starlette."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Mount, Route
    from starlette.testclient import TestClient

    async def order(request):
        node = await post.node()
        return JSONResponse({"id": (await node.send({"sku": 7}, channel="orders")).id})

    routes = [Route("/orders/{sku}", order, methods=["POST"]), Mount("/dropr", app=post.receiver)]
    return TestClient(Starlette(lifespan=post, routes=routes))


def on_litestar(post):
    """The same with Litestar."""
    from litestar import Litestar, asgi
    from litestar import post as handles_post
    from litestar.di import NamedDependency, Provide
    from litestar.params import FromPath
    from litestar.testing import TestClient

    @handles_post("/orders/{sku:int}")
    async def order(sku: FromPath[int], node: NamedDependency[Any]) -> dict[str, str]:
        return {"id": (await node.send({"sku": sku}, channel="orders")).id}

    receiver = asgi("/dropr", is_mount=True, copy_scope=True)(post.receiver)
    # Without a logging of its own, which puts a queue and a thread before the handlers of the test process: a child
    # that is forked by a later test while that thread holds the queue would wait for it for ever.
    dependencies = {"node": Provide(post.node)}
    return TestClient(Litestar([order, receiver], lifespan=[post], dependencies=dependencies, logging_config=None))


@pytest.mark.parametrize("build", [on_fastapi, on_starlette, on_litestar], ids=lambda build: build.__name__)
def test_an_application_sends_and_handles_while_it_runs(shop, build):
    """With each framework: a page sends though the peer cannot be reached, marked functions get what comes, the mounted
    path answers, and after the end all of it is closed.
    """
    post, got = dropr.Lifespan(shop), []

    @post.on("jobs")
    async def handle(work):
        got.append(work.value)
        return "done"

    with build(post) as client:
        assert client.post("/orders/7").json()["id"]
        assert client.get("/dropr/").status_code == 405  # nodes POST here
        with dropr.open(shop) as other:
            other.put({"n": 1}, channel="jobs")
            eventually(lambda: got == [{"n": 1}], what="the handler got it")
            eventually(lambda: not other.inbox.counts().get("jobs", {}).get("leased"), what="it is acknowledged")
            assert [one["channels"] for one in living(other.config.data / "run", "worker")] == [["jobs"]]
    with pytest.raises(Closed, match="lifespan"):
        asyncio.run(post.node())
    with dropr.open(shop) as node:
        assert node.outbox.counts()["warehouse", "orders"]["queued"] == 1
        assert list(living(node.config.data / "run", "worker")) == []


def lived(post, during):
    """Run a coroutine function with the open node inside of a lifespan; what it returns."""

    async def run():
        async with post(None):
            return await during(await post.node())

    return asyncio.run(asyncio.wait_for(run(), PATIENCE))


async def until(condition):
    """`eventually`, on an event loop that goes on meanwhile."""
    return await asyncio.to_thread(eventually, condition)


def test_it_can_run_again_but_not_twice_at_once(shop):
    """An application that starts anew (as tests do) opens the node anew; two at once would share one state."""
    post = dropr.Lifespan(shop)

    async def send(node):
        with pytest.raises(UsageError, match="runs already"):
            async with post(None):
                pass
        return (await node.send({"sku": 1}, channel="orders")).id

    assert lived(post, send) != lived(post, send)


def test_modules_of_marked_functions_are_taken(shop, tmp_path, monkeypatch):
    """`handlers` names modules, as in the YAML and for `node.handlers`."""
    (tmp_path / "shop_jobs_of_lifespan.py").write_text(
        "import dropr_core as dropr\n\nGOT = []\n\n@dropr.on('jobs')\ndef do(work):\n    GOT.append(work.value)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    post = dropr.Lifespan(shop, handlers="shop_jobs_of_lifespan")

    async def during(node):
        import shop_jobs_of_lifespan as jobs

        await node.put(5, channel="jobs")
        await until(lambda: jobs.GOT)
        return jobs.GOT

    assert lived(post, during) == [5]


def test_the_end_waits_for_what_is_in_hand(shop):
    """A handler that is at work when the application ends may finish, and its message is done."""
    post, begun, ended = dropr.Lifespan(shop, tasks=2, drain=PATIENCE), asyncio.Event(), []

    @post.on("jobs")
    async def handle(work):
        begun.set()
        await asyncio.sleep(0.2)
        ended.append(work.value)

    async def during(node):
        await node.put(1, channel="jobs")
        await begun.wait()

    lived(post, during)
    assert ended == [1]
    with dropr.open(shop) as node:
        assert list(node.receive("jobs", wait=0)) == []


def test_what_does_not_end_goes_back_untried(shop):
    """A handler that takes longer than the drain is cancelled, and its attempt does not count."""
    post, begun = dropr.Lifespan(shop, drain=0.0), asyncio.Event()

    @post.on("jobs")
    async def handle(work):
        begun.set()
        await asyncio.Event().wait()

    async def during(node):
        await node.put(1, channel="jobs")
        await begun.wait()

    lived(post, during)
    with dropr.open(shop) as node:
        assert [message.attempt for message in node.receive("jobs", wait=0)] == [1]


def test_functions_that_block_leave_the_application_its_threads(shop):
    """As many blocking functions as there are tasks hold up neither the event loop nor `send`."""
    post, free = dropr.Lifespan(shop, tasks=40), threading.Event()
    begun = []

    @post.on("jobs")
    def handle(_work):
        begun.append(1)
        free.wait(PATIENCE)

    async def during(node):
        for number in range(40):
            await node.put(number, channel="jobs")
        await until(lambda: len(begun) == 40)
        try:
            return (await node.send({"sku": 1}, channel="orders")).id
        finally:
            free.set()

    assert lived(post, during)


def test_no_more_is_taken_than_is_in_hand(shop):
    """Back-pressure: with two tasks and handlers that do not end, the rest stays in the store for other processes."""
    post, begun, free = dropr.Lifespan(shop, tasks=2), [], asyncio.Event()

    @post.on("jobs")
    async def handle(work):
        begun.append(work.value)
        await free.wait()

    async def during(node):
        for number in range(20):
            await node.put(number, channel="jobs")
        await until(lambda: len(begun) == 2)
        with dropr.open(shop) as other:
            others = len([message.ack() for message in other.receive("jobs", wait=0)])
        free.set()
        return others

    assert lived(post, during) >= 16
    assert len(begun) <= 4


def test_the_timeout_of_a_channel_holds_here_too(shop):
    """An `async` handler that takes longer than its channel's `timeout` is cancelled, and the attempt has failed."""
    post = dropr.Lifespan(shop)

    @post.on("slow")
    async def handle(_work):
        await asyncio.Event().wait()

    async def during(node):
        await node.put(1, channel="slow")
        return await until(lambda: node.node.inbox.counts().get("slow", {}).get("buried"))

    assert lived(post, during)


def test_a_store_that_fails_is_tried_again(shop, monkeypatch, caplog):
    """A failing disk ends no consumer: it rests, says so once, and goes on."""
    failures, receive = [WriteFailed("the disk is ill"), WriteFailed("the disk is ill")], AsyncNode.receive

    def ill(self, *channels, **options):
        if failures:
            raise failures.pop()
        return receive(self, *channels, **options)

    monkeypatch.setattr(AsyncNode, "receive", ill)
    post, got = dropr.Lifespan(shop, tasks=1), asyncio.Event()

    @post.on("jobs")
    async def handle(_work):
        got.set()

    async def during(node):
        await node.put(1, channel="jobs")
        await got.wait()

    lived(post, during)
    assert len([record for record in caplog.records if "the disk is ill" in record.message]) == 1


def test_mistakes_are_said_at_the_start(shop, tmp_path):
    """A wrong file, no place for a message, a bad name of a channel, two functions for one: each has its error."""
    with pytest.raises(ConfigError):
        lived(dropr.Lifespan(tmp_path / "none.yaml"), None)
    with pytest.raises(UsageError, match="at least one"):
        dropr.Lifespan(shop, tasks=0)
    post = dropr.Lifespan(shop)
    with pytest.raises(BadName):
        post.on("no such name!")
    for _ in range(2):
        post.on("jobs")(lambda _work: None)
    with pytest.raises(UsageError, match="has a handler already"):
        lived(post, None)


def test_peers_are_told_to_come_again_while_no_node_is_open():
    """Before the start and after the end the mounted path says 503: peers keep what they have."""
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.testclient import TestClient

    post = dropr.Lifespan("nowhere.yaml")
    answer = TestClient(Starlette(routes=[Mount("/dropr", app=post.receiver)])).post("/dropr/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_idle_consumers_end_at_once(shop):
    """Consumers that wait for messages hold up no end, however long the drain is."""
    post = dropr.Lifespan(shop, tasks=5, drain=3600.0)
    post.on("jobs")(lambda _work: None)

    async def during(_node):
        await asyncio.sleep(0.05)

    lived(post, during)
