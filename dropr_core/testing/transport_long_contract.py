"""What every transport must do with long requests: the part of the transport contract about `ask_long`.

Owns the ends of requests that are torn, slow or too long to be read in vain. Must not know any technology.
"""

import time

import pytest

from dropr_core.contracts.transport import Connection
from dropr_core.errors import Refused, Unanswered, Unreachable
from dropr_core.testing.contract import Contract
from dropr_core.testing.echo import MIB, WAIT, Pair, request
from dropr_core.testing.payloads import difference


class Tail:
    """The end of a request, in memory; ``torn``: its second half cannot be read."""

    def __init__(self, data: bytes, *, torn: bool = False) -> None:
        self._data, self._torn, self.size = data, torn, len(data)

    def read(self, offset: int, size: int) -> bytes:
        """See `contracts.transport.Tail`."""
        if self._torn and offset + size > self.size // 2:
            raise OSError(5, "planted: the file cannot be read")
        return self._data[offset : offset + size]


class Steps:
    """A long end of zeros that is read in steps, the first ``pauses`` of them slowly."""

    def __init__(self, size: int, pause: float = 0.0, pauses: int = 0) -> None:
        self.size, self.furthest = size, 0
        self._pause, self._pauses = pause, pauses

    def read(self, offset: int, size: int) -> bytes:
        """See `contracts.transport.Tail`; notes how far it was read."""
        if size < self.size and self._pauses:
            self._pauses -= 1
            time.sleep(self._pause)  # a slow disk: no test waits for it
        self.furthest = max(self.furthest, offset + size)
        return bytes(size)


class LongRequestTests(Contract):
    """A part of `TransportContract`, which has the fixture `pair`."""

    def test_a_long_request_arrives_whole(self, pair: Pair) -> None:
        """Its end is read where it lies, some at once and one after another, between ordinary ones."""
        for size in (70, 5000, 3_000_000):
            whole = request(size)
            for cut in (30, len(whole) - 1):
                futures = [pair.connection.ask_long(whole[:cut], Tail(whole[cut:]), idle=WAIT) for _ in range(3)]
                assert [future.result(WAIT) for future in futures] == [whole] * 3
            assert pair.ask(request(20)) == request(20)

    def test_the_end_of_a_long_request_cannot_be_read(self, pair: Pair) -> None:
        """Then it failed, the other side got nothing of it as a whole, and the connection goes on."""
        pair.ask(request(20))
        answered = pair.echo.answered
        whole = request(2_000_000)
        with pytest.raises((Unanswered, Unreachable)):
            pair.connection.ask_long(whole[:30], Tail(whole[30:], torn=True), idle=WAIT).result(WAIT)
        assert pair.ask(request(20)) == request(20)
        assert pair.echo.answered == answered + 1

    def test_the_idle_time_is_none_for_the_whole(self, pair: Pair) -> None:
        """A long request whose end is slow to read takes more than the idle time, and arrives."""
        tail = Steps(8 * MIB, pause=0.25, pauses=12)
        beginning = request(5000)
        whole = b"%012d" % (len(beginning) + tail.size) + beginning[12:]
        got = pair.connection.ask_long(whole, tail, idle=2.0).result(WAIT)
        assert not (wrong := difference(got, whole + bytes(tail.size))), wrong

    def test_the_end_of_a_long_request_waits_for_admit(self, pair: Pair) -> None:
        """Who sends in steps does not send all before the host judged the beginning: a refusal stops it."""
        if type(pair.connection).ask_long is Connection.ask_long:
            pytest.skip("this transport sends long requests in one piece")
        tail = Steps(128 * MIB)
        beginning = request(5000, "no:peer")
        whole = b"%012d" % (len(beginning) + tail.size) + beginning[12:]
        asked = pair.connection.ask_long(whole, tail, idle=WAIT)
        assert isinstance(asked.exception(WAIT), Refused)
        assert tail.furthest < tail.size // 2, f"{tail.furthest} of {tail.size} bytes were read though it was refused"
