"""A web application with pages, a receiving side for peers, and a task that takes the orders."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

import dropr_core as dropr


class Price(BaseModel):
    """What a price costs from now on."""

    sku: int
    cents: int


node = dropr.open("warehouse.yaml")
orders: list[Any] = []


async def take_orders() -> None:
    """Each order once: it is acknowledged when its block is left."""
    async with dropr.aopen("warehouse.yaml") as mine:
        async for message in mine.receive("orders"):
            async with message:
                orders.append(message.value)  # a real one would write it into its database


@contextlib.asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Take orders as long as the application runs; close the node with it."""
    task = asyncio.create_task(take_orders())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    node.close()


app = FastAPI(lifespan=lifespan)
app.mount("/dropr", dropr.asgi(node))


@app.get("/orders")
async def list_orders() -> dict[str, list[Any]]:
    """What came in since the start."""
    return {"orders": orders}


@app.post("/prices", status_code=202)
def set_price(price: Price) -> dict[str, str]:
    """Tell the shop. A plain function: FastAPI runs it in a thread, where `send` may wait for the disk."""
    return {"id": str(node.send(price.model_dump(), channel="prices").id)}
