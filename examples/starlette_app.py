"""Mount a node's answering side into your own web application: peers and users share one port.

    DROPR_CONFIG=warehouse.yaml uvicorn examples.starlette_app:app --port 8420 --timeout-graceful-shutdown 5

Peers use the URL ``http://host:8420/dropr/``, with the slash at its end. FastAPI is Starlette:
`app.mount` is the same there. Run one process (``--workers 1``), because sessions live in memory;
the graceful time-out is for peers that wait in a long poll, which lose nothing by it.
"""

import contextlib
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import dropr_core as dropr

node = dropr.open(os.environ["DROPR_CONFIG"])


@contextlib.asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    """Close the node with the application."""
    yield
    node.close()


async def home(_request: Request) -> PlainTextResponse:
    """Your own pages go on beside it."""
    return PlainTextResponse("the warehouse\n")


app = Starlette(lifespan=lifespan, routes=[Route("/", home), Mount("/dropr", app=dropr.asgi(node))])
