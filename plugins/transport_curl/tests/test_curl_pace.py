"""How fast a request comes in, and what its end does to others."""

import asyncio
import contextlib

import pytest
from dropr_transport_curl.incoming import Incoming, Pace

from dropr_core.errors import Refused


async def never():
    """Nothing comes."""
    await asyncio.Event().wait()
    return {}


async def ending():
    """A limit that ends in this very pass of the event loop, while its request has not heard of it."""
    made = asyncio.get_running_loop().create_future()

    async def request():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0) as limit:
                made.set_result(limit)
                await never()

    task = asyncio.create_task(request())
    limit = await made
    while not limit.expired():  # noqa: ASYNC110 - pass by pass
        await asyncio.sleep(0)
    assert not task.done()
    return limit


async def left():
    """The limit of a request whose refusal is being told."""
    async with asyncio.timeout(60) as limit:
        await asyncio.sleep(0)
    return limit


@pytest.mark.parametrize("limit_of", [ending, left])
@pytest.mark.parametrize("lost", [None, Refused("busy", "others need the room")])
def test_news_of_a_request_that_is_over_harm_nobody(limit_of, lost):
    """Its last bytes may come, or its place be taken by others, when its time has just ended: nobody has an error."""

    async def serve():
        incoming = Incoming(never)
        pace = Pace(incoming, await limit_of(), 60.0, 0.0, 60.0)
        incoming.lost = lost
        pace.moved(1)

    with asyncio.Runner() as runner:
        runner.run(serve())
