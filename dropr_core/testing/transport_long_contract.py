"""What every transport must do with long requests: the part of the transport contract about `ask_long`.

Owns the ends of requests that are torn, slow or too long to be read in vain. Must not know any technology.
"""

import contextlib
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from dropr_core.contracts.transport import Caller, Connection
from dropr_core.errors import Refused, Unanswered, Unreachable
from dropr_core.testing.contract import Contract, within
from dropr_core.testing.echo import MIB, WAIT, Echo, Pair, TransportCase, request
from dropr_core.testing.forks import Child, Say
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


class InFile(Tail):
    """The end of a request, which the kernel can take from a file as well (`contracts.transport.FileTail`)."""

    def __init__(self, data: bytes, fd: int) -> None:
        super().__init__(data)
        self._fd = fd

    def send(self, line: int, offset: int, size: int) -> int:
        """See `contracts.transport.FileTail`."""
        return os.sendfile(line, self._fd, offset, size)


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


class Slow(Echo):
    """An answerer that thinks before it refuses: time enough to read too much."""

    def admit(self, head: bytes, caller: Caller) -> int:
        """See `Echo`."""
        time.sleep(0.3 if b"no:" in head else 0.0)
        return super().admit(head, caller)


UNWANTED, ROOM = 64 * MIB, 16 * MIB
"""Bytes of a request that is refused, and of memory that a listener may take until then."""


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

    def test_a_long_request_that_ends_in_a_file_arrives_whole(self, pair: Pair, tmp_path: Path) -> None:
        """Whether the kernel sends the end of it or not, some at once and between ordinary ones."""
        for size in (70, 3_000_000):
            whole = request(size)
            (tmp_path / "file").write_bytes(whole[30:])
            with (tmp_path / "file").open("rb") as file:
                end = InFile(whole[30:], file.fileno())
                futures = [pair.connection.ask_long(whole[:30], end, idle=WAIT) for _ in range(3)]
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

    def test_what_was_not_admitted_is_not_kept(self, transport_case: TransportCase) -> None:
        """However long a request is, a listener has no more than its beginning in memory before it was admitted.

        It is looked at from outside: the listener stands in a process of its own, whose largest size is read. A
        transport that reaches nobody outside of its process is watched by what Python allocates.
        """

        def work(say: Say) -> None:
            say(transport_case.make().listen(transport_case.listen, Slow()).url)
            threading.Event().wait(600)  # until it is killed

        beginning = request(5000, "no:peer")
        whole = b"".join((b"%012d" % UNWANTED, beginning[12:], bytes(UNWANTED - len(beginning))))
        with Child(work) as child:
            url = child.go().hear()
            asking = transport_case.make()
            try:
                connection = asking.connect(url)
                try:
                    connection.ask(request(20), idle=WAIT).result(WAIT)
                except Unreachable:
                    pass  # not between processes
                else:
                    grown = self._grown(child.pid, lambda: self._refused(connection, whole))
                    if grown is None:
                        pytest.skip("this system does not tell how large a process was")
                    assert grown < ROOM, f"of {UNWANTED} bytes that were refused, {grown} were in memory before"
                    return
            finally:
                within(self.patience, asking.close, "close of the asking transport")
        self._inside(transport_case, whole)

    def _inside(self, case: TransportCase, whole: bytes) -> None:
        asking, answering = case.make(), case.make()
        try:
            connection = asking.connect(answering.listen(case.listen, Slow()).url)
            connection.ask(request(20), idle=WAIT).result(WAIT)
            tracemalloc.start()
            try:
                self._refused(connection, whole)
                taken = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert taken < ROOM, f"of {UNWANTED} bytes that were refused, {taken} were copied before"
        finally:
            within(self.patience, asking.close, "close of the asking transport")
            within(self.patience, answering.close, "close of the answering transport")

    @staticmethod
    def _refused(connection: Connection, whole: bytes) -> None:
        error = connection.ask(whole, idle=WAIT).exception(WAIT)
        assert isinstance(error, Refused), f"a long request that is refused by its beginning: {error!r}"

    @staticmethod
    def _grown(pid: int, act: Callable[[], object]) -> int | None:
        """By how many bytes a process was larger meanwhile than before; None where nobody tells."""

        def size(what: str) -> int:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))

        try:
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")  # forget the largest size
            before = size("VmHWM")
        except (OSError, StopIteration):
            return None
        act()
        return size("VmHWM") - before
