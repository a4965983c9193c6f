"""`send(connection=)` for asyncio: the same, awaited."""

import asyncio
import sqlite3

import pytest
from support.one_node import configure
from support.transactions import ASYNC, Shop

import dropr_core as dropr
from dropr_core.errors import UsageError


async def _using(way, url):
    """(what is given, a function that ends the transaction, a function that closes) of a library."""
    if way == "psycopg":
        import psycopg

        connection = await psycopg.AsyncConnection.connect(url)
        return connection, connection.commit, connection.rollback, connection.close
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    engine = create_async_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    made = AsyncSession(engine) if way.endswith("session") else await engine.connect()

    async def close():
        await made.close()
        await engine.dispose()

    return made, made.commit, made.rollback, close


@pytest.mark.parametrize("way", ASYNC)
def test_a_message_is_committed_with_the_transaction_and_gone_with_it(way, tmp_path, postgres_url):
    """One by one and as a batch, with every library."""
    Shop(tmp_path, postgres_url).close()

    async def work():
        config = configure(tmp_path, channels={"orders": {"to": "berlin", "serializer": "json"}},
                           outboxes={"app": {"url": postgres_url}})  # fmt: skip
        async with dropr.aopen(config) as node:
            given, commit, rollback, close = await _using(way, postgres_url)
            await node.send("gone", channel="orders", connection=given)
            await rollback()
            sent = await node.send("stays", channel="orders", connection=given)
            async with node.batch(connection=given) as batch:
                batch.send("too", channel="orders")
            await commit()
            await close()
            return sent.durability

    assert asyncio.run(work()) == "transaction"
    shop = Shop(tmp_path, postgres_url)
    assert shop.relayed() == [b'"stays"', b'"too"']
    shop.close()


def test_a_blocking_connection_is_used_where_it_is_given(tmp_path):
    """An sqlite3 connection belongs to its thread: it is used in the coroutine's own."""
    shop = Shop(tmp_path, None)

    async def work():
        config = configure(tmp_path, channels={"orders": {"to": "berlin", "serializer": "json"}},
                           outboxes={"app": {"url": shop.url}})  # fmt: skip
        async with dropr.aopen(config) as node:
            connection = sqlite3.connect(shop.outbox.database.name)
            await node.send("one", channel="orders", connection=connection)
            connection.commit()
            connection.close()

    asyncio.run(work())
    assert shop.relayed() == [b'"one"']
    shop.close()


def test_an_asynchronous_connection_is_refused_by_the_blocking_node(tmp_path, postgres_url):
    """The words say where it belongs."""
    import psycopg

    shop = Shop(tmp_path, postgres_url)

    async def work():
        async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
            with pytest.raises(UsageError, match="aopen"):
                shop.node.send(1, channel="orders", connection=connection)

    asyncio.run(work())
    shop.close()
