"""The contract of gateways, held by both ways of taking that the memcache door has."""

import re

import pytest
from dropr_gateway_memcache import MemcacheGateway, Options

from dropr_core.testing import gateway_contract
from dropr_core.testing.gateway_contract import GatewayCase

VALUE = re.compile(rb"VALUE \S+ \d+ (\d+)\r\n")


def bodies(answer):
    """The values that are whole, each with what follows it."""
    found, at = [], 0
    while head := VALUE.search(answer, at):
        end = head.end() + int(head[1])
        if answer[end : end + 7] != b"\r\nEND\r\n":
            break
        found.append(answer[head.end() : end])
        at = end + 7
    return found


def case(words, done):
    """``words``: what stands behind the queue when it is read."""
    return GatewayCase(
        make=lambda _context: MemcacheGateway(Options(open_reads=100)),
        put=lambda channel, body: b"set %s 0 0 %d\r\n%s\r\n" % (channel.encode(), len(body), body),
        stored=lambda answer: answer.count(b"STORED\r\n"),
        take=lambda channel: b"get %s/%s\r\n" % (channel.encode(), words),
        bodies=bodies,
        done=done,
    )


class TestTaking(gateway_contract.GatewayContract):
    """`get q`: at most once."""

    @pytest.fixture
    def gateway_case(self):
        return case(b"t=60000", None)


class TestOpenReads(gateway_contract.GatewayContract):
    """`get q/open`, `get q/close`."""

    @pytest.fixture
    def gateway_case(self):
        return case(b"open/t=60000", lambda answer: b"get kit.mail/close\r\n")

    def test_what_a_connection_holds_comes_back_when_it_ends(self, host, gateway_case):
        """`/close` acknowledges what was opened first, as in Kestrel; what is open at the end comes back."""
        with self.caller(host, gateway_case) as one:
            self.put(one, gateway_case, b"finished", b"kept")
            assert self.take(one, gateway_case, 2, settle=False) == [b"finished", b"kept"]
            one.say(gateway_case.done(one.answer))
            self.put(one, gateway_case, b"last")  # answered: what came before it was carried out
        with self.caller(host, gateway_case) as two:
            assert sorted(self.take(two, gateway_case, 2)) == [b"kept", b"last"]
