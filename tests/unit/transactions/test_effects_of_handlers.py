"""Effects of handlers and of asyncio: the same transactions, called otherwise."""

import asyncio
import sqlite3

import pytest
from support.one_node import Peer
from support.transactions import Shop
from unit.transactions.effects_rig import forget_the_settlement, states

from dropr_core.contracts.storage import Selection


@pytest.mark.parametrize("fails", [False, True], ids=["done", "raises afterwards"])
def test_a_handler_has_transactions_too(shop, fails):
    """Its result goes home; what it raises after its commit is only said; what took effect before is not repeated."""
    (identity,) = Peer(shop.node).push(b"one", receipt=True)

    @shop.node.on("jobs")
    def handle(work):
        connection = sqlite3.connect(shop.outbox.database.name)
        with work.transaction(connection):
            connection.execute("INSERT INTO effect VALUES ('once')")
        connection.close()
        if fails:
            raise ValueError("afterwards")
        return "result"

    assert shop.node.work(wait=0) == 1
    assert shop.effects() == ["once"]
    assert states(shop) == []
    (outcome,) = shop.node.inbox.outcomes("berlin", None, 0, 10)[1]
    assert outcome.result == (None if fails else b"result")
    assert outcome.id == identity


def test_a_handler_that_would_repeat_its_effect_is_ended(shop):
    """Its transaction is rolled back, the message is acknowledged."""
    (identity,) = Peer(shop.node).push(b"one")
    forget_the_settlement(shop, identity)

    @shop.node.on("jobs")
    def handle(work):
        connection = sqlite3.connect(shop.outbox.database.name)
        try:
            with work.transaction(connection):
                connection.execute("INSERT INTO effect VALUES ('twice')")
        finally:
            connection.close()

    shop.node.work(wait=0)
    assert shop.effects() == []
    assert states(shop) == []


def test_a_handler_that_rolls_back_makes_an_attempt(shop):
    """It returns as if all was well; the message comes again."""
    Peer(shop.node).push(b"one")
    attempts = []

    @shop.node.on("jobs")
    def handle(work):
        attempts.append(work.attempt)
        connection = sqlite3.connect(shop.outbox.database.name)
        work.ack(connection=connection)
        if work.attempt == 1:
            connection.rollback()
        else:
            connection.commit()
        connection.close()

    shop.node.work(wait=0)
    shop.node.work(wait=0)
    assert attempts == [1, 2]
    assert states(shop) == []


def test_asyncio(tmp_path, postgres_url):
    """`await message.ack(connection=...)` with a connection for asyncio."""
    import psycopg
    from support.one_node import configure

    import dropr_core as dropr

    shop = Shop(tmp_path, postgres_url)

    async def work():
        config = configure(tmp_path / "other", channels={"jobs": {"retry_backoff_min": 0}},
                           outboxes={"app": {"url": postgres_url}})  # fmt: skip
        async with dropr.aopen(config) as node, await psycopg.AsyncConnection.connect(postgres_url) as connection:
            await node.put(b"one", channel="jobs")
            async for message in node.receive("jobs", wait=0):
                await connection.execute("INSERT INTO effect VALUES ('x')")
                await message.ack(connection=connection)
                if message.attempt == 1:
                    await connection.rollback()
                else:
                    await connection.commit()
            return [one.state for one in node.node.inbox.all(Selection())]

    (tmp_path / "other").mkdir()
    assert asyncio.run(work()) == []
    assert shop.effects() == ["x"]
    shop.close()


@pytest.mark.parametrize("kind", ["engine", "session", "psycopg"])
def test_asyncio_has_the_form_that_does_all_of_it(kind, tmp_path, postgres_url):
    """`async with message.transaction(...)` with whatever the library has."""
    import psycopg
    import sqlalchemy
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
    from support.one_node import configure

    import dropr_core as dropr

    shop = Shop(tmp_path, postgres_url)

    async def work():
        engine = create_async_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))
        given = engine if kind == "engine" else AsyncSession(engine)
        if kind == "psycopg":
            given = await psycopg.AsyncConnection.connect(postgres_url, autocommit=True)
        config = configure(tmp_path / "other", outboxes={"app": {"url": postgres_url}})
        async with dropr.aopen(config) as node:
            await node.put(b"one", channel="jobs")
            async for message in node.receive("jobs", wait=0):
                async with message, message.transaction(given) as mine:
                    sql = "INSERT INTO effect VALUES ('x')"
                    await mine.execute(sql if kind == "psycopg" else sqlalchemy.text(sql))
            left = [one.state for one in node.node.inbox.all(Selection())]
        if kind != "engine":
            await given.close()
        await engine.dispose()
        return left

    (tmp_path / "other").mkdir()
    assert asyncio.run(work()) == []
    assert shop.effects() == ["x"]
    shop.close()
