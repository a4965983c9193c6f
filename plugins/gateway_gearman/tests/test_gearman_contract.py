"""Gearman's door keeps the contract of gateways: connections that die anywhere, garbage, slow readers, a full disk."""

import pytest
from dropr_gateway_gearman import GearmanGateway, Options
from dropr_gateway_gearman.packets import REQUEST, RESPONSE, Kind, Packet, Parser, encode

from dropr_core.testing.gateway_contract import GatewayCase, GatewayContract


def packets(answer):
    return [event for event in Parser(1 << 27, RESPONSE).receive(answer) if isinstance(event, Packet)]


def assigned(answer):
    return [event.arguments for event in packets(answer) if event.kind is Kind.JOB_ASSIGN]


def request(kind, *arguments):
    return encode(kind, *arguments, magic=REQUEST)


class TestGearmanKeepsTheContract(GatewayContract):
    @pytest.fixture
    def gateway_case(self):
        return GatewayCase(
            make=lambda context: GearmanGateway(Options(), context),
            put=lambda channel, body: request(Kind.SUBMIT_JOB_BG, channel, b"", body),
            stored=lambda answer: sum(event.kind is Kind.JOB_CREATED for event in packets(answer)),
            take=lambda channel: request(Kind.CAN_DO, channel) + request(Kind.GRAB_JOB),
            bodies=lambda answer: [arguments[2] for arguments in assigned(answer)],
            done=lambda answer: request(Kind.WORK_COMPLETE, assigned(answer)[-1][0], b""),
            garbage=[b"\0" * 64, b"\0REQ" + b"\xff" * 40, b"GET / HTTP/1.0\r\n\r\n", request(Kind.SUBMIT_JOB)],
        )

    def take(self, caller, case, count=1, *, settle=True):
        """A worker that finds no job sleeps, and asks again when it is woken."""
        got = []
        for _ in range(count):
            caller.answer = b""
            caller.say(case.take(self.channel))
            while not (caller.hear(packets, "an answer to GRAB_JOB") and case.bodies(caller.answer)):
                caller.answer = b""
                caller.say(request(Kind.PRE_SLEEP))
                caller.hear(packets, "NOOP")
                caller.answer = b""
                caller.say(request(Kind.GRAB_JOB))
            got.append(case.bodies(caller.answer)[0])
            if settle:
                caller.say(case.done(caller.answer))
        return got

    def test_who_waits_gets_what_is_put_later(self, host, gateway_case):
        """A worker that sleeps is woken as soon as there is a job."""
        with self.caller(host, gateway_case) as one, self.caller(host, gateway_case) as two:
            one.say(request(Kind.CAN_DO, self.channel) + request(Kind.PRE_SLEEP))
            one.listen(0.3)
            assert one.answer == b""
            self.put(two, gateway_case, b"later")
            one.hear(packets, "NOOP")
            assert self.take(one, gateway_case) == [b"later"]
