"""A connection as a conversation, with an event loop of the test's own: which pass of it sees what."""

import asyncio

import pytest

from dropr_core.gateway.budget import Budget
from dropr_core.gateway.line import StreamLine
from dropr_core.gateway_kit.conversation import Conversation

PASSES = 10
"""More passes of an event loop than a conversation needs to notice that the gateway drains."""


class Wire(asyncio.Transport):
    """Takes what is answered."""

    def __init__(self):
        super().__init__()
        self.answered = asyncio.Event()

    def set_write_buffer_limits(self, high=None, low=None):
        """Of no use here."""

    def is_closing(self):
        """Never."""
        return False

    def get_write_buffer_size(self):
        """It reads at once."""
        return 0

    def write(self, data):
        """An answer."""
        self.answered.set()


class Echo(Conversation[bytes]):
    """Has a job in hand; no command of it is short."""

    holds = True

    def begin(self):
        return False

    async def carry_out(self):
        await self.say(self._pending.popleft())


@pytest.mark.parametrize("passes", range(PASSES))
def test_a_command_is_answered_whenever_it_comes_while_the_drain_begins(passes):
    """A drain wakes each connection; a command that comes in any pass of the loop meanwhile is carried out."""

    async def talk():
        wire, line = Wire(), StreamLine(asyncio.Event(), lambda _: None, Budget(1 << 20))
        line.connection_made(wire)
        task = asyncio.create_task(Echo(line, lambda data: [data]).converse())
        while not line.waits:  # noqa: ASYNC110 - pass by pass
            await asyncio.sleep(0)
        line.stopping.set()
        for _ in range(passes):
            await asyncio.sleep(0)
        line.data_received(b"stats\r\n")
        await asyncio.wait_for(wire.answered.wait(), 60)
        line.eof_received()
        await task

    asyncio.run(talk())
