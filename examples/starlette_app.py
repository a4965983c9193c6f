"""Mount a node's answering side into your own web application: peers and users share one port.

    DROPR_CONFIG=warehouse.yaml uvicorn examples.starlette_app:app --port 8420 --timeout-graceful-shutdown 5

Peers use the URL ``http://host:8420/dropr/``, with the slash at its end. FastAPI is Starlette: all of it is the same
there. The graceful time-out is for peers that wait in a long poll, which lose nothing by it.
"""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import dropr_core as dropr

post = dropr.Lifespan(os.environ.get("DROPR_CONFIG", "warehouse.yaml"))


async def home(_request: Request) -> PlainTextResponse:
    """Your own pages go on beside it."""
    return PlainTextResponse("the warehouse\n")


app = Starlette(lifespan=post, routes=[Route("/", home), Mount("/dropr", app=post.receiver)])
