"""The verbs that are told by a call, and bytes that are heard without a task."""

import asyncio

import pytest
from unit.gateway.test_hub import at_a_hub

from dropr_core.contracts.parcels import Parcel
from dropr_core.errors import Closed, UsageError, WriteFailed
from dropr_core.gateway.budget import Budget
from dropr_core.gateway.desk import NodeDesk
from dropr_core.gateway.line import WRITE_AHEAD, StreamLine


async def told(begin, *given):
    """What a call tells, which it must not do before it has returned."""
    future = asyncio.get_running_loop().create_future()
    begun = begin(*given, future.set_result)
    assert not future.done()
    return await future if begun is not False else False


def test_put_reserve_and_settle_tell_what_their_tasks_would_return(tmp_path):
    """Stored, leased and settled as by `put`, `reserve` and `settle`; at an end there is nothing left."""

    async def main(hub, desk):
        one = desk()
        (placed,) = await told(one.put_soon, [Parcel(channel="mail", body=b"x")])
        assert await told(one.reserve_soon, ["other"], 1) == []
        (held,) = await told(one.reserve_soon, ["mail", "other"], 5)
        assert (held.number, held.body, one.held(held.number)) == (placed.number, b"x", held)
        assert await told(one.settle_soon, [held.acked()]) == [True]
        assert await told(one.settle_soon, [held.acked()]) == [False]
        assert (hub.held, one.busy, hub.waiting._by_owner, hub.waiting._groups) == ({}, False, {}, {})

    at_a_hub(tmp_path, main)


def test_what_cannot_begin_at_once_is_left_to_put(tmp_path):
    """A full budget and large bodies are said by False, mistakes at once; nothing is stored, and no room is lost."""

    async def main(hub, desk):
        budget = Budget(100)
        one = NodeDesk(hub, "test", budget)
        small, large = Parcel(channel="mail", body=b"x" * 60), Parcel(channel="mail", body=b"x" * (1 << 20))
        first = asyncio.ensure_future(told(one.put_soon, [small]))
        await asyncio.sleep(0)
        assert not one.put_soon([small], pytest.fail)
        await first
        assert not one.put_soon([large], pytest.fail)
        with pytest.raises(UsageError):
            one.put_soon([Parcel(channel="no channel", body=b"")], pytest.fail)
        assert budget._used == 0
        assert (await one.count("mail")).ready == 1

    at_a_hub(tmp_path, main)


def test_a_store_that_fails_is_told(tmp_path, monkeypatch):
    """The exception comes by the call; a lease that could not be ended is still there, and can be ended later."""

    async def main(hub, desk):
        one, inbox = desk(), hub.runtime.storage.inbox

        def refuse(*_):
            raise WriteFailed("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(inbox, "put_all", refuse)
            assert isinstance(await told(one.put_soon, [Parcel(channel="mail", body=b"x")]), WriteFailed)
        await one.put(Parcel(channel="mail", body=b"x"))
        with monkeypatch.context() as patch:
            patch.setattr(inbox, "claim", refuse)
            assert isinstance(await told(one.reserve_soon, ["mail"], 1), WriteFailed)
        (held,) = await told(one.reserve_soon, ["mail"], 1)
        with monkeypatch.context() as patch:
            patch.setattr(inbox, "settle", refuse)
            assert isinstance(await told(one.settle_soon, [held.acked()]), WriteFailed)
        assert await told(one.settle_soon, [held.acked()]) == [True]

    at_a_hub(tmp_path, main)


def test_who_has_gone_gets_nothing_and_nothing_stays_leased(tmp_path):
    """A desk that closes while it is asked for messages is told Closed; the message goes to the next one."""

    async def main(hub, desk):
        one, two = desk(), desk()
        await one.put(Parcel(channel="mail", body=b"x"))
        asking = asyncio.ensure_future(told(one.reserve_soon, ["mail"], 1))
        await asyncio.sleep(0)
        await one.close()
        assert isinstance(await asking, Closed)
        (held,) = await two.reserve(["mail"], wait=None)
        assert (held.body, held.attempt) == (b"x", 1)
        with pytest.raises(Closed):
            one.reserve_soon(["mail"], 1, pytest.fail)

    at_a_hub(tmp_path, main)


def test_a_fault_of_one_who_is_told_keeps_nobody_waiting(tmp_path):
    """The exception goes to the event loop's handler, and the others are told all the same."""

    async def main(hub, desk):
        faults = []
        asyncio.get_running_loop().set_exception_handler(lambda _, said: faults.append(said["exception"]))
        one = desk()
        await one.put(*[Parcel(channel="mail", body=b"x")] * 2)
        fault = ZeroDivisionError()

        def fail(_):
            raise fault

        one.reserve_soon(["mail"], 1, fail)
        assert len(await told(one.reserve_soon, ["mail"], 1)) == 1
        assert faults == [fault]

    at_a_hub(tmp_path, main)


class Transport(asyncio.Transport):
    """What a line writes to; its reader takes nothing until it is told to."""

    def __init__(self):
        super().__init__()
        self.written = []

    def write(self, data):
        """See asyncio."""
        self.written.append(data)

    def get_write_buffer_size(self):
        """See asyncio."""
        return sum(map(len, self.written))

    def set_write_buffer_limits(self, high=None, low=None):
        """See asyncio."""

    def is_closing(self):
        """See asyncio."""
        return False


def at_a_line(main):
    """Run ``main(line, transport)``."""

    async def run():
        line, transport = StreamLine(asyncio.Event(), lambda _: None, Budget(1 << 20)), Transport()
        line.connection_made(transport)
        async with asyncio.timeout(60):
            await main(line, transport)

    asyncio.run(run())


def test_what_arrives_while_a_read_waits_is_heard_and_all_else_is_read():
    """In order: what comes before the read, what is heard, and what the hearer leaves; each byte once."""

    async def main(line, _):
        heard = []
        line.hear(lambda data: heard.append(data) is None and data != b"task")
        line.data_received(b"early")
        assert (await line.read(), heard) == (b"early", [])
        reading = asyncio.ensure_future(line.read())
        await asyncio.sleep(0)
        line.data_received(b"short")
        await asyncio.sleep(0)
        assert (reading.done(), heard) == (False, [b"short"])
        line.data_received(b"task")
        line.data_received(b"more")
        assert (await reading, heard) == (b"taskmore", [b"short", b"task"])

    at_a_line(main)


def test_a_slow_reader_is_not_sent_anything_without_waiting():
    """While the transport has enough, `send` sends nothing and says so; afterwards it sends again."""

    async def main(line, transport):
        assert line.send(b"one")
        line.pause_writing()
        assert not line.send(b"two")
        line.resume_writing()
        assert line.send(b"three")
        line.connection_lost(None)
        assert not line.send(b"four")
        assert transport.written == [b"one", b"three"]

    at_a_line(main)


def test_what_is_sent_without_waiting_is_bounded():
    """A reader that takes nothing is given no more than is written ahead; the rest is for `write`, which counts it."""

    async def main(line, transport):
        assert not line.send(bytes(WRITE_AHEAD + 1))
        assert transport.written == []
        while line.send(bytes(10_000)):
            assert transport.get_write_buffer_size() <= WRITE_AHEAD
        assert transport.get_write_buffer_size() > WRITE_AHEAD - 10_000

    at_a_line(main)
