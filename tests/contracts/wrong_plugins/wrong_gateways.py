"""Gateways with one mistake each, and the right one; see test_wrong_plugins.py."""

import asyncio
import re

import pytest

from dropr_core.contracts.gateway import Gateway, Parcel
from dropr_core.errors import DroprError
from dropr_core.testing import GatewayCase, GatewayContract


class Right(Gateway):
    """put CHANNEL HEX, take CHANNEL, done NUMBER; a line each."""

    default_listen = "tcp://127.0.0.1:0"
    most = 1 << 20

    async def serve(self, line, desk):
        data = bytearray()
        while piece := await self.read(line):
            data += piece
            while b"\n" in piece and (end := data.find(b"\n")) >= 0:
                request = bytes(data[:end])
                del data[: end + 1]
                if not await self.carry_out(request, line, desk):
                    return
            if len(data) > self.most:
                return
        await self.at_the_end(data, desk)

    async def read(self, line):
        return await line.read()

    async def at_the_end(self, data, desk):
        pass

    async def carry_out(self, request, line, desk):
        words = request.decode("latin1").split(" ")
        try:
            if words[0] == "put" and len(words) == 3:
                await self.put(line, desk, words[1], bytes.fromhex(words[2]))
            elif words[0] == "take" and len(words) == 2:
                await self.take(line, desk, words[1])
            elif words[0] == "done" and len(words) == 2 and words[1].isdigit():
                held = desk.held(int(words[1]))
                await line.write(b"ok\n" if held is not None and await held.ack() else b"gone\n")
            else:
                return False
        except (DroprError, ValueError) as error:
            await line.write(f"refused {error}\n".encode())
        return True

    async def put(self, line, desk, channel, body):
        await desk.put(Parcel(channel=channel, body=body))
        await line.write(b"stored\n")

    async def take(self, line, desk, channel):
        got = await desk.reserve([channel], wait=None)
        await line.write(b"job %d %s\n" % (got[0].number, got[0].body.hex().encode()) if got else b"none\n")


def case_of(cls):
    return GatewayCase(
        make=lambda _context: cls(),
        put=lambda channel, body: b"put %s %s\n" % (channel.encode(), body.hex().encode()),
        stored=lambda answer: answer.count(b"stored\n"),
        take=lambda channel: b"take %s\n" % channel.encode(),
        bodies=lambda answer: [bytes.fromhex(body.decode()) for body in re.findall(rb"job \d+ ([0-9a-f]*)\n", answer)],
        done=lambda answer: b"done %s\n" % re.findall(rb"job (\d+) [0-9a-f]*\n", answer)[-1],
    )


class OfGateways(GatewayContract):
    gateway: type[Gateway]
    idle = 50
    patience = 5.0

    @pytest.fixture
    def gateway_case(self):
        return case_of(self.gateway)


class TestRight(OfGateways):
    gateway = Right
    patience = 60.0


class AnswersFirst(Right):
    async def put(self, line, desk, channel, body):
        await line.write(b"stored\n")
        await desk.put(Parcel(channel=channel, body=body))


class TestAnswersBeforeItStores(OfGateways):
    gateway = AnswersFirst
    caught_by = "test_stored_means_durable"


class BelievesInDisks(Right):
    async def put(self, line, desk, channel, body):
        try:
            await desk.put(Parcel(channel=channel, body=body))
        finally:
            await line.write(b"stored\n")


class TestSaysStoredOnAFullDisk(OfGateways):
    gateway = BelievesInDisks
    caught_by = "test_a_full_disk_is_said"


class OneRequestAPiece(Right):
    async def serve(self, line, desk):
        while piece := await line.read():
            if not await self.carry_out(piece.partition(b"\n")[0], line, desk):
                return


class TestDropsWhatComesAtOnce(OfGateways):
    gateway = OneRequestAPiece
    caught_by = "test_requests_that_come_at_once_are_all_answered"


class TestWantsWholePieces(OfGateways):
    gateway = OneRequestAPiece
    caught_by = "test_a_request_may_come_in_pieces"


class Strips(Right):
    async def put(self, line, desk, channel, body):
        await super().put(line, desk, channel, body.strip())


class TestStripsBodies(OfGateways):
    gateway = Strips
    caught_by = "test_what_one_connection_puts_another_takes"


class AcksWhatItTakes(Right):
    async def take(self, line, desk, channel):
        got = await desk.reserve([channel], wait=None)
        if got:
            await got[0].ack()
        await line.write(b"job %d %s\n" % (got[0].number, got[0].body.hex().encode()) if got else b"none\n")


class TestAcknowledgesBeforeTheWorkIsDone(OfGateways):
    gateway = AcksWhatItTakes
    caught_by = "test_what_a_connection_holds_comes_back_when_it_ends"


class Never(Right):
    async def take(self, line, desk, channel):
        got = await desk.reserve([channel])
        await line.write(b"job %d %s\n" % (got[0].number, got[0].body.hex().encode()) if got else b"none\n")


class TestNeverWaits(OfGateways):
    gateway = Never
    caught_by = "test_who_waits_gets_what_is_put_later"


class Raises(Right):
    async def carry_out(self, request, line, desk):
        verb = {b"put": self.put, b"take": self.take, b"done": None}[request.split(b" ")[0]]
        assert verb is not self.read
        return await super().carry_out(request, line, desk)


class TestFallsOverGarbage(OfGateways):
    gateway = Raises
    caught_by = "test_garbage_disturbs_nobody"


class Patient(Right):
    most = 1 << 40


class TestReadsForEver(OfGateways):
    gateway = Patient
    caught_by = "test_what_never_ends_is_bounded"


class StoresParts(Right):
    async def at_the_end(self, data, desk):
        words = data.decode("latin1").split(" ")
        if words[0] == "put" and len(words) == 3 and words[2]:
            body = words[2][: len(words[2]) // 2 * 2]
            await desk.put(Parcel(channel=words[1], body=bytes.fromhex(body)))


class TestStoresWhatIsNotWhole(OfGateways):
    gateway = StoresParts
    caught_by = "test_a_connection_that_dies_while_it_puts"


class KeepsItself(Right):
    def __init__(self):
        self.queue = asyncio.Queue()

    async def put(self, line, desk, channel, body):
        await self.queue.put(body)
        await line.write(b"stored\n")

    async def take(self, line, desk, channel):
        await line.write(b"job 1 %s\n" % (await self.queue.get()).hex().encode())


class TestKeepsMessagesInMemory(OfGateways):
    gateway = KeepsItself
    caught_by = "test_a_restart_in_the_middle_loses_nothing"


class Stays(Right):
    async def read(self, line):
        while not (piece := await line.read()):  # noqa: ASYNC110 - it is wrong
            await asyncio.sleep(0.05)
        return piece


class TestDoesNotHearTheEnd(OfGateways):
    gateway = Stays
    caught_by = "test_it_drains"
