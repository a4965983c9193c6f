"""The shop: a web application that sends orders, takes prices, and answers peers, all on one port."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from models import Order, Price

import dropr_core as dropr

post = dropr.Lifespan("shop.yaml", tasks=5)  # opened when the application starts, in each of its processes
app = FastAPI(lifespan=post)
app.mount("/dropr", post.receiver)
PostBox = Annotated[dropr.AsyncNode, Depends(post.node)]
PRICES = Path("prices")


@app.post("/orders", status_code=202)
async def order(wanted: Order, node: PostBox) -> dict[str, str]:
    """Answers when the order is on the disk, whatever the line to the warehouse does."""
    sent = await node.send(wanted.model_dump(), channel="orders")
    return {"id": sent.id}


@app.get("/orders/{order_id}")
async def look(order_id: str, node: PostBox) -> dict[str, Any]:
    """What became of an order."""
    sent = await node.find(order_id)
    if sent is None:
        raise HTTPException(404, "no such order")
    status = await sent.status()
    return {"state": str(status.state), "result": await sent.wait() if status.state == "processed" else None}


@post.on("prices")
def take_price(price: Price) -> None:
    """Runs in one of the processes, in a thread; an `async` function would run on the application's event loop."""
    PRICES.mkdir(exist_ok=True)
    (PRICES / str(price.sku)).write_text(str(price.cents))


@app.get("/prices")
def prices() -> dict[str, int]:
    """What came in."""
    return {path.name: int(path.read_text()) for path in sorted(PRICES.glob("*"))}
